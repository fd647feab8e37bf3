package subscriber

import (
	"fmt"
	"math"
	"strconv"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// RecordType says what a write did to its row.
type RecordType uint8

// The record types of the tunnel service.
const (
	// Put is a whole row: a PutRow, or a row of the base data.
	Put RecordType = 1
	// Update holds only the cells that changed.
	Update RecordType = 2
	// Delete is a deleted row; it has a primary key and no columns.
	Delete RecordType = 3
)

// String returns "put", "update" or "delete", as in the message metadata.
func (t RecordType) String() string {
	switch t {
	case Put:
		return "put"
	case Update:
		return "update"
	case Delete:
		return "delete"
	}
	return "RecordType(" + strconv.Itoa(int(t)) + ")"
}

// CellType says what a cell of a Record did to its column.
type CellType uint8

// The cell types of a record.
const (
	// CellPut wrote the value.
	CellPut CellType = iota
	// CellDeleteOneVersion removed the version with the cell's Timestamp.
	CellDeleteOneVersion
	// CellDeleteAllVersions removed the column.
	CellDeleteAllVersions
)

// String returns "put", "delete-one-version" or "delete-all-versions".
func (t CellType) String() string {
	switch t {
	case CellPut:
		return "put"
	case CellDeleteOneVersion:
		return "delete-one-version"
	case CellDeleteAllVersions:
		return "delete-all-versions"
	}
	return "CellType(" + strconv.Itoa(int(t)) + ")"
}

// Sequence is the place of a record in the stream. Records of a channel are
// ordered by (Epoch, Timestamp, RowIndex). It is zero for base data.
type Sequence struct {
	Epoch     int32
	Timestamp int64 // microseconds since 1970
	RowIndex  int32
}

// IsZero reports whether s is the sequence of base data, which has none.
func (s Sequence) IsZero() bool { return s == Sequence{} }

// Less reports whether s comes before o in a channel.
func (s Sequence) Less(o Sequence) bool {
	if s.Epoch != o.Epoch {
		return s.Epoch < o.Epoch
	}
	if s.Timestamp != o.Timestamp {
		return s.Timestamp < o.Timestamp
	}
	return s.RowIndex < o.RowIndex
}

// String is the service's own text form: epoch, timestamp and row index in
// hexadecimal, so that texts of one channel sort as their sequences do.
func (s Sequence) String() string {
	return fmt.Sprintf("%08x:%016x:%08x", uint32(s.Epoch), uint64(s.Timestamp), uint32(s.RowIndex))
}

// Column is a primary key column.
type Column struct {
	Name  string
	Value Value
}

// Cell is one cell of a row: a version of a column, or its removal.
type Cell struct {
	Name      string
	Value     Value // zero unless Type is CellPut
	Type      CellType
	Timestamp int64 // version, milliseconds since 1970; 0 where the service sends none
}

// Record is one change of a row, or one row of the base data.
//
// A Record and everything in it are views into the page that was read, and
// read-only. Keeping one (or a string or []byte of it) keeps its whole page, up
// to a few MiB, in memory; copy what is kept for longer than the handler runs.
type Record struct {
	Instance, Table, Tunnel, Channel string

	Type       RecordType
	Sequence   Sequence // zero for base data
	PrimaryKey []Column // in key order
	Columns    []Cell   // as on the wire: in the service's order, several versions possible
	Origin     []Cell   // columns before the change, if the table's stream keeps them
	Attempt    int      // 1 for the first delivery by this process, then counting up
	UUID       string   // of the message, unless the Unmarshaler gives it another one
}

// Column returns the newest value written to the column of that name, or the
// primary key column of that name. A column that is absent or was only deleted
// gives false.
func (r *Record) Column(name string) (Value, bool) {
	for i := range r.PrimaryKey {
		if r.PrimaryKey[i].Name == name {
			return r.PrimaryKey[i].Value, true
		}
	}
	return newest(r.Columns, name)
}

// OriginColumn returns the value that the column had before the change, where
// the table's stream keeps it.
func (r *Record) OriginColumn(name string) (Value, bool) { return newest(r.Origin, name) }

func newest(cells []Cell, name string) (Value, bool) {
	best := -1
	for i := range cells {
		c := &cells[i]
		if c.Type == CellPut && c.Name == name && (best < 0 || c.Timestamp > cells[best].Timestamp) {
			best = i
		}
	}
	if best < 0 {
		return Value{}, false
	}
	return cells[best].Value, true
}

// Kind is the type of a Value.
type Kind uint8

// The types of Tablestore values. The zero Value has KindNone.
const (
	KindNone Kind = iota
	KindInteger
	KindDouble
	KindBoolean
	KindString
	KindBinary
)

// String returns the service's name of the type, in lower case.
func (k Kind) String() string {
	switch k {
	case KindNone:
		return "none"
	case KindInteger:
		return "integer"
	case KindDouble:
		return "double"
	case KindBoolean:
		return "boolean"
	case KindString:
		return "string"
	case KindBinary:
		return "binary"
	}
	return "Kind(" + strconv.Itoa(int(k)) + ")"
}

// Value is one column value. It is small, comparable with ==, and passed by value.
type Value struct {
	kind Kind
	num  uint64 // integer, IEEE-754 bits or 0/1
	data string // string or binary
}

// IntegerValue returns an integer Value.
func IntegerValue(v int64) Value { return Value{kind: KindInteger, num: uint64(v)} }

// DoubleValue returns a double Value.
func DoubleValue(v float64) Value { return Value{kind: KindDouble, num: math.Float64bits(v)} }

// BooleanValue returns a boolean Value.
func BooleanValue(v bool) Value {
	if v {
		return Value{kind: KindBoolean, num: 1}
	}
	return Value{kind: KindBoolean}
}

// StringValue returns a string Value.
func StringValue(v string) Value { return Value{kind: KindString, data: v} }

// BinaryValue returns a binary Value with a copy of v.
func BinaryValue(v []byte) Value { return Value{kind: KindBinary, data: string(v)} }

// Kind returns the type of v.
func (v Value) Kind() Kind { return v.kind }

// Int64 returns an integer; of any other kind, 0.
func (v Value) Int64() int64 {
	if v.kind != KindInteger {
		return 0
	}
	return int64(v.num)
}

// Float64 returns a double; of any other kind, 0.
func (v Value) Float64() float64 {
	if v.kind != KindDouble {
		return 0
	}
	return math.Float64frombits(v.num)
}

// Bool returns a boolean; of any other kind, false.
func (v Value) Bool() bool { return v.kind == KindBoolean && v.num == 1 }

// String returns a string as it is, and any other value as text for people:
// numbers and booleans in Go syntax, binary as its bytes. Use Kind to tell them apart.
func (v Value) String() string {
	switch v.kind {
	case KindInteger:
		return strconv.FormatInt(int64(v.num), 10)
	case KindDouble:
		return strconv.FormatFloat(math.Float64frombits(v.num), 'g', -1, 64)
	case KindBoolean:
		return strconv.FormatBool(v.num == 1)
	}
	return v.data
}

// Bytes returns a copy of a binary value or of a string's bytes; of any other kind, nil.
func (v Value) Bytes() []byte {
	if v.kind != KindBinary && v.kind != KindString {
		return nil
	}
	return []byte(v.data)
}

// Any returns the value as int64, float64, bool, string or []byte (a copy), or
// nil for the zero Value.
func (v Value) Any() any {
	switch v.kind {
	case KindInteger:
		return int64(v.num)
	case KindDouble:
		return math.Float64frombits(v.num)
	case KindBoolean:
		return v.num == 1
	case KindString:
		return v.data
	case KindBinary:
		return []byte(v.data)
	}
	return nil
}

// fromWire converts a decoded value without copying its data. Kinds that only
// bounds and requests have (INF_MIN, AUTO_INCREMENT, ...) give the zero Value.
func fromWire(w plainbuffer.Value) Value {
	switch w.Kind() {
	case plainbuffer.Integer:
		return IntegerValue(w.Integer())
	case plainbuffer.Double:
		return DoubleValue(w.Double())
	case plainbuffer.Boolean:
		return BooleanValue(w.Boolean())
	case plainbuffer.String:
		return Value{kind: KindString, data: w.Str()}
	case plainbuffer.Binary:
		return Value{kind: KindBinary, data: w.Str()}
	}
	return Value{}
}
