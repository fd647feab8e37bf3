package tables

import (
	"errors"
	"slices"
	"unicode/utf8"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/watermill-ots/watermill-ots/emulator/internal/filter"
	"github.com/watermill-ots/watermill-ots/emulator/internal/store"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// Documented limits of requests.
const (
	maxBatchWrite     = 200     // rows in a BatchWriteRow
	maxBatchGet       = 100     // rows in a BatchGetRow
	maxWriteSize      = 4 << 20 // bytes of data that one request writes
	maxWantedColumns  = 128     // names in columns_to_get
	maxWantedLeniency = 1024    // the same, in the Java SDK's tests
	maxColumnName     = 255     // bytes
)

// rules are the checks of a request that the service makes before it looks at a
// table. They refuse the whole request, also a batch. The store checks what
// depends on the table, such as the types of its primary key, one row at a
// time.
//
// Where the documentation and the tests of an official SDK contradict each
// other, the rules follow the documentation, which is the stricter in each
// case; if lenient is set, they follow the tests.
type rules struct{ lenient bool }

// column checks an attribute column's name. The Java SDK's tests write names
// with any characters, except for a leading '#'.
func (r rules) column(name string) error {
	ok := name != "" && len(name) <= maxColumnName
	if ok && r.lenient {
		ok = utf8.ValidString(name) && name[0] != '#'
	} else if ok {
		ok = documentedName(name)
	}
	if !ok {
		return wire.Invalid("Invalid column name: '%s'.", name)
	}
	return nil
}

// documentedName reports whether a name consists of letters, digits,
// underscores and hyphens and begins with a letter or an underscore. It is
// called for each cell that is written, so a regular expression would be too
// slow.
func documentedName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_':
		case i > 0 && ('0' <= c && c <= '9' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// wanted checks the columns that a read wants.
func (r rules) wanted(names []string) error {
	limit := maxWantedColumns
	if r.lenient {
		limit = maxWantedLeniency
	}
	if len(names) > limit {
		return wire.Invalid("The number of columns from the request exceeds the limit, limit count: %d, column count: %d.", limit, len(names))
	}
	for _, name := range names {
		if err := r.column(name); err != nil {
			return err
		}
	}
	return nil
}

// filter decodes a filter or a column condition; what names it in errors.
func (r rules) filter(what string, b []byte) (*filter.Filter, error) {
	f, err := filter.Parse(b)
	var refusal filter.Refusal
	switch {
	case errors.As(err, &refusal):
		return nil, wire.Invalid("%s", refusal)
	case err != nil:
		return nil, wire.Invalid("Invalid %s: %v.", what, err)
	}
	return f, f.Each(func(column string, value plainbuffer.Value) error {
		if err := r.column(column); err != nil {
			return err
		}
		return store.CheckValue(column, value)
	})
}

// row checks a row to write.
func (r rules) row(row *plainbuffer.Row, update bool) error {
	if err := store.CheckWrittenKey(row.PrimaryKey); err != nil {
		return err
	}
	for i := range row.Cells {
		if err := r.column(row.Cells[i].Name); err != nil {
			return err
		}
		for j := range row.PrimaryKey {
			if row.PrimaryKey[j].Name == row.Cells[i].Name {
				return store.DuplicatedName(row.Cells[i].Name)
			}
		}
	}
	return store.CheckCells(row.Cells, update)
}

// returned checks which columns a write returns: with RT_AFTER_MODIFY those
// that it increments, otherwise none.
func (r rules) returned(row *plainbuffer.Row, content *pb.ReturnContent) error {
	if content.GetReturnType() != pb.ReturnType_RT_AFTER_MODIFY && len(content.GetReturnColumnNames()) > 0 {
		return wire.Invalid("Return columns take the return type RT_AFTER_MODIFY.")
	}
next:
	for _, name := range content.GetReturnColumnNames() {
		for i := range row.Cells {
			if row.Cells[i].Name == name && row.Cells[i].Op == plainbuffer.Increment {
				continue next
			}
		}
		return wire.Invalid("Return column '%s' is not incremented by the request.", name)
	}
	return nil
}

// writeSize checks the amount of data that a request writes.
func (r rules) writeSize(operation string, size int) error {
	if size > maxWriteSize {
		return wire.Invalid("The total data size of %s request exceeds the limit, limit size: %d, data size: %d.", operation, maxWriteSize, size)
	}
	return nil
}

// batchWrite checks the tables of a BatchWriteRow.
func (r rules) batchWrite(tables []*pb.TableInBatchWriteRowRequest) error {
	if len(tables) == 0 {
		return wire.Invalid("No row is specified in BatchWriteRow.")
	}
	rows := 0
	seen := make(map[string]bool, len(tables))
	for _, t := range tables {
		if err := batchTable(seen, t.GetTableName()); err != nil {
			return err
		}
		if len(t.GetRows()) == 0 {
			return wire.Invalid("No operation is specified for table: '%s'.", t.GetTableName())
		}
		rows += len(t.GetRows())
	}
	if rows > maxBatchWrite {
		return wire.Invalid("Rows count exceeds the upper limit: %d.", maxBatchWrite)
	}
	return nil
}

// batchGet checks the tables of a BatchGetRow. The Python SDK's tests read a
// table without naming a row.
func (r rules) batchGet(tables []*pb.TableInBatchGetRowRequest) error {
	if len(tables) == 0 {
		return wire.Invalid("No row specified in the request of BatchGetRow.")
	}
	rows := 0
	seen := make(map[string]bool, len(tables))
	for _, t := range tables {
		if err := batchTable(seen, t.GetTableName()); err != nil {
			return err
		}
		if len(t.GetPrimaryKey()) == 0 && !r.lenient {
			return wire.Invalid("No row is specified for table: '%s'.", t.GetTableName())
		}
		rows += len(t.GetPrimaryKey())
	}
	if rows > maxBatchGet {
		return wire.Invalid("Rows count exceeds the upper limit: %d.", maxBatchGet)
	}
	return nil
}

// batchTable checks the name of the next table in a batch.
func batchTable(seen map[string]bool, name string) error {
	if err := store.CheckTableName(name); err != nil {
		return err
	}
	if seen[name] {
		return wire.Invalid("Duplicated table name: '%s'.", name)
	}
	seen[name] = true
	return nil
}

// distinct checks rows that occur twice among the changes of a table. Where
// that is allowed, no change of such a row may have a condition or an
// increment.
func (r rules) distinct(changes []*change, atomic bool) error {
	first := make(map[string]*change, len(changes))
	for _, c := range changes {
		if c.numbered() {
			continue
		}
		key := string(plainbuffer.AppendOrderedKey(nil, c.Row.PrimaryKey))
		earlier := first[key]
		if earlier == nil {
			first[key] = c
			continue
		}
		if !atomic && !r.lenient {
			return wire.Invalid("Duplicate rows detected in MultiPut.")
		}
		for _, c := range []*change{earlier, c} {
			switch {
			case c.Expect != store.Ignore:
				return wire.Invalid("Repeated rows do not support row exist expectation check in BatchModify.")
			case c.Condition != nil:
				return wire.Invalid("Repeated rows do not support row condition check in BatchModify.")
			case c.increments():
				return wire.Invalid("Repeated rows do not support increments in BatchModify.")
			}
		}
	}
	return nil
}

// distinctKeys checks that a BatchGetRow does not name a row of a table twice.
// The Python SDK's tests read one twice.
func (r rules) distinctKeys(keys [][]plainbuffer.Cell) error {
	if r.lenient {
		return nil
	}
	seen := make(map[string]bool, len(keys))
	for _, key := range keys {
		ordered := string(plainbuffer.AppendOrderedKey(nil, key))
		if seen[ordered] {
			return wire.Invalid("Duplicate rows detected in MultiGet.")
		}
		seen[ordered] = true
	}
	return nil
}

// numbered reports whether the service assigns a part of the row's key.
func (c *change) numbered() bool {
	return slices.ContainsFunc(c.Row.PrimaryKey, func(k plainbuffer.Cell) bool { return k.Value.Kind() == plainbuffer.AutoIncrement })
}

func (c *change) increments() bool {
	return slices.ContainsFunc(c.Row.Cells, func(k plainbuffer.Cell) bool { return k.Op == plainbuffer.Increment })
}
