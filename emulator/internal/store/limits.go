package store

import (
	"math"
	"regexp"
	"unicode/utf8"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// Documented limits of the service.
const (
	maxKeyColumns  = 4
	maxIndexKey    = 8       // columns of an index's key, including those that the service adds
	maxIndexes     = 5       // of a table
	maxIndexed     = 4       // columns that an index names for its key
	maxIndexAttrs  = 32      // other columns of an index
	maxKeyValue    = 1 << 10 // bytes of a string or binary in a primary key
	maxColumnName  = 255     // bytes
	maxColumnValue = 2 << 20 // bytes of a string or binary column
	maxColumns     = 1024    // in one write
	maxDefined     = 32
	maxThroughput  = 100_000 // capacity units reserved for a table
	maxDeviation   = (1<<63 - 1) / 1_000_000
	endOfVersions  = (1<<63 - 1) / 1000 // cell timestamps (ms) are below it

	// maxRow bounds the size of a row after an update. The service's own bound
	// is not documented.
	maxRow = 64 << 20
)

var namePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,254}$`)

// CheckTableName refuses an invalid table name. The service checks the name
// before it looks for the table.
func CheckTableName(name string) error {
	if !namePattern.MatchString(name) {
		return wire.Invalid("Invalid table name: '%s'.", name)
	}
	return nil
}

// DuplicatedName is the answer to an attribute column with the name of a
// primary key column.
func DuplicatedName(column string) error {
	return wire.Invalid("Duplicated attribute column name with primary key column: '%s'.", column)
}

// kindNames are the names of types in the service's messages.
var kindNames = map[plainbuffer.Kind]string{
	plainbuffer.Integer: "VT_INTEGER", plainbuffer.Double: "VT_DOUBLE", plainbuffer.Boolean: "VT_BOOLEAN",
	plainbuffer.String: "VT_STRING", plainbuffer.Null: "VT_NULL", plainbuffer.Binary: "VT_BLOB",
	plainbuffer.InfMin: "VT_INF_MIN", plainbuffer.InfMax: "VT_INF_MAX", plainbuffer.AutoIncrement: "VT_AUTO_INCREMENT",
}

// CheckWrittenKey is CheckKey for a row that is to be written to a table, not
// to an index.
func CheckWrittenKey(key []plainbuffer.Cell) error {
	if err := checkKeySize(key, maxKeyColumns); err != nil {
		return err
	}
	return CheckKey(key, false)
}

func checkKeySize(key []plainbuffer.Cell, limit int) error {
	if len(key) < 1 || len(key) > limit {
		return wire.Invalid("The number of primary key columns must be in range: [1, %d].", limit)
	}
	return nil
}

// keyTooLong is the answer to a string or binary that is too long for a key.
func keyTooLong(c *plainbuffer.Cell) error {
	return wire.Invalid("The length of primary key column: '%s' exceeds the MaxLength:%d with CurrentLength:%d.", c.Name, maxKeyValue, len(c.Value.Str()))
}

// CheckKey refuses what cannot be a primary key of any table or index. The
// service checks it before it looks at the table. With bounds, infinities are
// allowed.
func CheckKey(key []plainbuffer.Cell, bounds bool) error {
	if err := checkKeySize(key, maxIndexKey); err != nil {
		return err
	}
	for i := range key {
		c := &key[i]
		switch kind := c.Value.Kind(); kind {
		case plainbuffer.Integer, plainbuffer.AutoIncrement:
		case plainbuffer.String, plainbuffer.Binary:
			if len(c.Value.Str()) > maxKeyValue {
				return keyTooLong(c)
			}
			if kind == plainbuffer.String && !utf8.ValidString(c.Value.Str()) {
				return wire.Invalid("Value of column '%s' must be UTF8 encoding.", c.Name)
			}
		default:
			if bounds && (kind == plainbuffer.InfMin || kind == plainbuffer.InfMax) {
				continue
			}
			return wire.Invalid("%s is an invalid type for the primary key.", kindNames[kind])
		}
	}
	return nil
}

// CheckValue refuses a string or binary that is too long for an attribute column.
func CheckValue(column string, v plainbuffer.Value) error {
	switch v.Kind() {
	case plainbuffer.String, plainbuffer.Binary:
		if n := len(v.Str()); n > maxColumnValue {
			return wire.Invalid("The length of attribute column: '%s' exceeds the MaxLength:%d with CurrentLength:%d.", column, maxColumnValue, n)
		}
	}
	return nil
}

// CheckCells refuses attribute columns that cannot be written to any table. The
// service checks them before it looks at the table.
func CheckCells(cells []plainbuffer.Cell, update bool) error {
	if len(cells) > maxColumns {
		return wire.Invalid("The number of attribute columns exceeds the limit, limit count: %d, column count: %d.", maxColumns, len(cells))
	}
	for i := range cells {
		c := &cells[i]
		if len(c.Name) == 0 || len(c.Name) > maxColumnName || !utf8.ValidString(c.Name) {
			return wire.Invalid("Invalid column name: '%s'.", c.Name)
		}
		if err := checkCell(c, update); err != nil {
			return err
		}
	}
	return checkIncrements(cells)
}

// checkIncrements refuses an update that increments a column and also changes
// it in another way: the result would be undefined.
func checkIncrements(cells []plainbuffer.Cell) error {
	for i := range cells {
		if cells[i].Op != plainbuffer.Increment {
			continue
		}
		for j := range cells {
			if i != j && cells[j].Name == cells[i].Name {
				return wire.Invalid("Column '%s' is incremented and changed again in one update.", cells[i].Name)
			}
		}
	}
	return nil
}

func checkCell(c *plainbuffer.Cell, update bool) error {
	if c.HasTimestamp && (c.Timestamp < 0 || c.Timestamp >= endOfVersions) {
		return wire.Invalid("Timestamp must be in range [0, INT64_MAX/1000).")
	}
	switch {
	case c.Op == plainbuffer.Put:
	case !update:
		return wire.Invalid("OpType cannot be given for column name:'%s' in PutRow.", c.Name)
	case c.Op == plainbuffer.DeleteAllVersion:
		if c.HasTimestamp {
			return wire.Invalid("Timestamp cannot be given when type is DELETE_ALL_VERSION.")
		}
		return checkDeletion(c)
	case c.Op == plainbuffer.DeleteOneVersion:
		if !c.HasTimestamp {
			return wire.Invalid("Timestamp must be given when type is DELETE_ONE_VERSION.")
		}
		return checkDeletion(c)
	case c.Op == plainbuffer.Increment:
		if !c.HasValue || c.Value.Kind() != plainbuffer.Integer {
			return wire.Invalid("Incrementing column '%s' takes an integer.", c.Name)
		}
	default:
		return wire.Invalid("Column '%s' carries the unknown operation %#02x.", c.Name, uint8(c.Op))
	}
	if !c.HasValue {
		return wire.Invalid("Column '%s' has no value.", c.Name)
	}
	switch c.Value.Kind() {
	case plainbuffer.Integer, plainbuffer.Boolean, plainbuffer.Binary:
	case plainbuffer.Double:
		if x := c.Value.Double(); math.IsNaN(x) {
			return wire.Invalid("NaN can't be set to double value.")
		} else if math.IsInf(x, 0) {
			return wire.Invalid("Infinity can't be set to double value.")
		}
	case plainbuffer.String:
		if !utf8.ValidString(c.Value.Str()) {
			return wire.Invalid("Value of column '%s' must be UTF8 encoding.", c.Name)
		}
	default:
		return wire.Invalid("Column '%s' has a value of type %s.", c.Name, kindNames[c.Value.Kind()])
	}
	return CheckValue(c.Name, c.Value)
}

func checkDeletion(c *plainbuffer.Cell) error {
	if c.HasValue {
		return wire.Invalid("Column value cannot be given when type is DELETE_ONE_VERSION,DELETE_ALL_VERSION.")
	}
	return nil
}

// checkThroughput refuses invalid numbers of reserved capacity units.
func checkThroughput(read, write int32) error {
	for _, units := range []int32{read, write} {
		if units < 0 {
			return wire.Invalid("Invalid Capacity Unit:%d. Capacity Unit must be nonnegative.", units)
		}
		if units > maxThroughput {
			return wire.Invalid("The reserved throughput must be in range: [0, %d], got %d.", maxThroughput, units)
		}
	}
	return nil
}
