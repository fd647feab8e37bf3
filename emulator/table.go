package emulator

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/store"
	"github.com/watermill-ots/watermill-ots/internal/oneline"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// KeyType is the type of a primary key column.
type KeyType int

// The types of primary key columns. The service numbers the rows of an
// AutoIncrement column itself; it cannot be the first column of a key.
const (
	Integer KeyType = iota + 1
	String
	Binary
	AutoIncrement
)

// keyTypes are the types by their names in seed files and errors.
var keyTypes = map[string]KeyType{"integer": Integer, "string": String, "binary": Binary, "auto_increment": AutoIncrement}

// String returns the type's name in seed files.
func (t KeyType) String() string {
	for name, known := range keyTypes {
		if t == known {
			return name
		}
	}
	return fmt.Sprintf("KeyType(%d)", int(t))
}

// streamRetention is how many hours a table's log keeps a change: the longest
// that the service accepts, so that tests with fake time lose nothing.
const streamRetention = 7 * 24

// TableOption is a property of a table that CreateTable creates.
type TableOption func(*tableSpec) error

// tableSpec collects the options of one table.
type tableSpec struct{ meta *pb.TableMeta }

// Key adds a primary key column. Columns are in the order of the options. The
// first is the partition key, whose values SplitAt takes.
func Key(name string, t KeyType) TableOption {
	return func(spec *tableSpec) error {
		column := &pb.PrimaryKeySchema{Name: &name}
		switch t {
		case Integer:
			column.Type = pb.PrimaryKeyType_INTEGER.Enum()
		case String:
			column.Type = pb.PrimaryKeyType_STRING.Enum()
		case Binary:
			column.Type = pb.PrimaryKeyType_BINARY.Enum()
		case AutoIncrement:
			column.Type = pb.PrimaryKeyType_INTEGER.Enum()
			column.Option = pb.PrimaryKeyOption_AUTO_INCREMENT.Enum()
		default:
			return fmt.Errorf("the key column %q has the unknown type %v; use Integer, String, Binary or AutoIncrement", name, t)
		}
		spec.meta.PrimaryKey = append(spec.meta.PrimaryKey, column)
		return nil
	}
}

// CreateTable creates a table that keeps one version of each cell, never
// expires rows, and has a stream that keeps each change for 7 days, so that
// tunnels of every type can be created on it. Use an SDK to create a table with
// other settings, as at the service.
//
// What the service refuses is refused with its code and message: an existing or
// invalid name, no key column, more than four.
func (e *Emulator) CreateTable(table string, options ...TableOption) error {
	spec := tableSpec{meta: &pb.TableMeta{TableName: &table}}
	for _, option := range options {
		if err := option(&spec); err != nil {
			return naming("creating", table, err)
		}
	}
	return naming("creating", table, e.call("CreateTable", &pb.CreateTableRequest{
		TableMeta:          spec.meta,
		ReservedThroughput: &pb.ReservedThroughput{CapacityUnit: &pb.CapacityUnit{}},
		StreamSpec:         &pb.StreamSpecification{EnableStream: proto.Bool(true), ExpirationTime: proto.Int32(streamRetention)},
	}))
}

// Row maps column names, including those of the primary key, to values. A value
// is an integer of any Go type that fits into an int64, a float64 or float32, a
// string, a []byte or a bool. Leave out an AutoIncrement column when putting a
// row.
type Row map[string]any

// Put writes whole rows: a row's earlier columns are gone.
//
// Like Update and Delete, it works on any table, however it was created, and
// follows the rules for the API's requests. It returns at the first row that is
// refused, with the service's code and message; the rows before it are written
// and durable. It does not count as a request: it meets no faults, does not
// wait during Pause, and does not appear in Stats.
func (e *Emulator) Put(table string, rows ...Row) error {
	return e.writeRows("putting a row into", table, rows, func(row *plainbuffer.Row) (string, protoadapt.MessageV1) {
		return "PutRow", &pb.PutRowRequest{TableName: &table, Row: encodeRow(row), Condition: anyRow()}
	})
}

// Update sets the columns that each row names and leaves the row's other
// columns unchanged. A row that does not exist is created.
func (e *Emulator) Update(table string, rows ...Row) error {
	return e.writeRows("updating a row of", table, rows, func(row *plainbuffer.Row) (string, protoadapt.MessageV1) {
		return "UpdateRow", &pb.UpdateRowRequest{TableName: &table, RowChange: encodeRow(row), Condition: anyRow()}
	})
}

// Delete deletes the rows with these keys; columns outside the key are refused.
// Deleting a row that does not exist still adds a record to the log.
func (e *Emulator) Delete(table string, keys ...Row) error {
	return e.writeRows("deleting a row of", table, keys, func(row *plainbuffer.Row) (string, protoadapt.MessageV1) {
		row.Delete = true
		return "DeleteRow", &pb.DeleteRowRequest{TableName: &table, PrimaryKey: encodeRow(row), Condition: anyRow()}
	})
}

// writeRows sends one request for each row.
func (e *Emulator) writeRows(what, table string, rows []Row, request func(*plainbuffer.Row) (operation string, req protoadapt.MessageV1)) error {
	t, err := e.store.Table(table)
	if err != nil {
		return naming(what, table, err)
	}
	key := t.Schema().Key
	for _, row := range rows {
		encoded, err := row.split(key)
		if err == nil {
			err = e.call(request(encoded))
		}
		if err != nil {
			return naming(what, table, fmt.Errorf("row %s: %w", row.name(key), err))
		}
	}
	return nil
}

// call executes a request of this process and discards the response.
func (e *Emulator) call(operation string, req protoadapt.MessageV1) error {
	body, err := proto.Marshal(protoadapt.MessageV2Of(req))
	if err != nil {
		return fmt.Errorf("encoding the request %s: %w", operation, err)
	}
	_, err = e.tables.Handle(operation, body, nil)
	return err
}

// anyRow is the condition that always holds, whether the row exists or not.
func anyRow() *pb.Condition {
	return &pb.Condition{RowExistence: pb.RowExistenceExpectation_IGNORE.Enum()}
}

func encodeRow(row *plainbuffer.Row) []byte {
	return plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), row)
}

// split divides the columns into those of the key, in the key's order, and the
// others, sorted by name.
func (r Row) split(key []store.KeyColumn) (*plainbuffer.Row, error) {
	row := new(plainbuffer.Row)
	for _, column := range key {
		cell := plainbuffer.Cell{Name: column.Name, HasValue: true}
		v, ok := r[column.Name]
		switch {
		case !ok && column.AutoIncrement:
			cell.Value = plainbuffer.Special(plainbuffer.AutoIncrement)
		case !ok:
			return nil, fmt.Errorf("there is no value for the key column %q", column.Name)
		default:
			var err error
			if cell.Value, err = columnValue(column.Name, v); err != nil {
				return nil, err
			}
		}
		row.PrimaryKey = append(row.PrimaryKey, cell)
	}
	for _, name := range slices.Sorted(maps.Keys(r)) {
		if isKey := func(c store.KeyColumn) bool { return c.Name == name }; slices.ContainsFunc(key, isKey) {
			continue
		}
		v, err := columnValue(name, r[name])
		if err != nil {
			return nil, err
		}
		row.Cells = append(row.Cells, plainbuffer.Cell{Name: name, Value: v, HasValue: true})
	}
	return row, nil
}

// maxShown bounds the bytes of a key column that an error shows.
const maxShown = 100

// name returns the row's key for errors, without the columns that are missing.
func (r Row) name(key []store.KeyColumn) string {
	var parts []string
	for _, column := range key {
		if v, ok := r[column.Name]; ok {
			parts = append(parts, column.Name+": "+oneline.Text(fmt.Sprint(v), maxShown))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// columnValue returns a value in its stored form.
func columnValue(name string, v any) (plainbuffer.Value, error) {
	switch v := v.(type) {
	case int:
		return plainbuffer.IntegerValue(int64(v)), nil
	case int64:
		return plainbuffer.IntegerValue(v), nil
	case int32:
		return plainbuffer.IntegerValue(int64(v)), nil
	case int16:
		return plainbuffer.IntegerValue(int64(v)), nil
	case int8:
		return plainbuffer.IntegerValue(int64(v)), nil
	case uint8:
		return plainbuffer.IntegerValue(int64(v)), nil
	case uint16:
		return plainbuffer.IntegerValue(int64(v)), nil
	case uint32:
		return plainbuffer.IntegerValue(int64(v)), nil
	case uint:
		return unsignedValue(name, uint64(v))
	case uint64:
		return unsignedValue(name, v)
	case float64:
		return plainbuffer.DoubleValue(v), nil
	case float32:
		return plainbuffer.DoubleValue(float64(v)), nil
	case string:
		return plainbuffer.StringValue(v), nil
	case []byte:
		return plainbuffer.BinaryValue(v), nil
	case bool:
		return plainbuffer.BooleanValue(v), nil
	}
	return plainbuffer.Value{}, fmt.Errorf("column %q is a %T; a column holds an integer, a float, a string, a []byte or a bool", name, v)
}

func unsignedValue(name string, n uint64) (plainbuffer.Value, error) {
	if n > math.MaxInt64 {
		return plainbuffer.Value{}, fmt.Errorf("column %q is %d, which is larger than the largest integer of the service, %d", name, n, int64(math.MaxInt64))
	}
	return plainbuffer.IntegerValue(int64(n)), nil
}
