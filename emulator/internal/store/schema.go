package store

import (
	"regexp"
	"unicode/utf8"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// Documented limits of the service.
const (
	maxKeyColumns   = 4
	maxKeyValue     = 1 << 10 // bytes of a string or binary in a primary key
	maxColumnName   = 255     // bytes
	maxColumnValue  = 2 << 20 // bytes of a string or binary column
	maxColumns      = 1024    // of one write
	maxDefined      = 32
	maxVersionLimit = 1<<31 - 1

	// maxRow bounds what updates can make of a row. The service's own bound is
	// not documented.
	maxRow = 64 << 20
)

var namePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,254}$`)

// KeyColumn is one column of a table's primary key.
type KeyColumn struct {
	Name          string
	Kind          plainbuffer.Kind // Integer, String or Binary
	AutoIncrement bool             // the service numbers rows; not the first column
}

// DefinedColumn is a predefined column. It constrains nothing here.
type DefinedColumn struct {
	Name string
	Type int32 // DefinedColumnType on the wire
}

// Options are a table's changeable settings.
type Options struct {
	TTL         int32 // seconds that a cell lives, -1 for ever
	MaxVersions int32 // of a column that are kept, newest first
	Deviation   int64 // seconds that a cell's timestamp may differ from now
	AllowUpdate bool  // UpdateRow may be used
}

// Schema describes a table.
type Schema struct {
	Name       string
	Key        []KeyColumn
	Defined    []DefinedColumn
	Options    Options
	ReadUnits  int32 // reserved throughput, kept and returned, not enforced
	WriteUnits int32
}

func (s *Schema) check() error {
	if !namePattern.MatchString(s.Name) {
		return wire.Invalid("Invalid table name: '%s'.", s.Name)
	}
	if len(s.Key) < 1 || len(s.Key) > maxKeyColumns {
		return wire.Invalid("The number of primary key columns must be in range: [1, %d].", maxKeyColumns)
	}
	names := make(map[string]bool)
	auto := 0
	for i, c := range s.Key {
		if !namePattern.MatchString(c.Name) {
			return wire.Invalid("Invalid column name: '%s'.", c.Name)
		}
		if names[c.Name] {
			return wire.Invalid("Duplicated primary key name: '%s'.", c.Name)
		}
		names[c.Name] = true
		switch c.Kind {
		case plainbuffer.Integer, plainbuffer.String, plainbuffer.Binary:
		default:
			return wire.Invalid("Primary key column '%s' has an unknown type.", c.Name)
		}
		if c.AutoIncrement {
			auto++
			if i == 0 {
				return wire.Invalid("The first primary key column '%s' can't be auto increment.", c.Name)
			}
			if c.Kind != plainbuffer.Integer {
				return wire.Invalid("The auto increment column '%s' must be of type INTEGER.", c.Name)
			}
		}
	}
	if auto > 1 {
		return wire.Invalid("Only one auto increment column is allowed.")
	}
	if len(s.Defined) > maxDefined {
		return wire.Invalid("The number of defined columns must be in range: [0, %d].", maxDefined)
	}
	for _, c := range s.Defined {
		if !namePattern.MatchString(c.Name) || names[c.Name] {
			return wire.Invalid("Invalid or duplicated defined column: '%s'.", c.Name)
		}
		names[c.Name] = true
	}
	return s.Options.check()
}

func (o *Options) check() error {
	const day = 24 * 60 * 60
	if o.TTL != -1 && o.TTL < day {
		return wire.Invalid("The time to live must be -1 or at least %d seconds, got %d.", day, o.TTL)
	}
	if o.MaxVersions < 1 {
		return wire.Invalid("The max versions must be in range: [1, %d], got %d.", maxVersionLimit, o.MaxVersions)
	}
	if o.Deviation < 1 {
		return wire.Invalid("The deviation of cell versions must be positive, got %d seconds.", o.Deviation)
	}
	return nil
}

// CheckKey verifies a primary key against the schema. With bounds the
// infinities may stand in it, with put the auto-increment placeholder.
func (s *Schema) CheckKey(key []plainbuffer.Cell, bounds, put bool) error {
	if len(key) != len(s.Key) {
		return wire.Errorf(wire.CodeInvalidPK, "The number of primary key columns must be %d, got %d.", len(s.Key), len(key))
	}
	for i := range key {
		c, want := &key[i], &s.Key[i]
		if c.Name != want.Name {
			return wire.Errorf(wire.CodeInvalidPK, "Validate PK name fail. Input: %s, Meta: %s.", c.Name, want.Name)
		}
		switch kind := c.Value.Kind(); {
		case kind == want.Kind:
		case bounds && (kind == plainbuffer.InfMin || kind == plainbuffer.InfMax):
		case put && want.AutoIncrement && kind == plainbuffer.AutoIncrement:
		default:
			return wire.Errorf(wire.CodeInvalidPK, "Validate PK type fail. Column %s has type byte %#02x, Meta: %#02x.", c.Name, kind, want.Kind)
		}
		if c.Value.Kind() == plainbuffer.String || c.Value.Kind() == plainbuffer.Binary {
			if n := len(c.Value.Str()); n > maxKeyValue {
				return wire.Invalid("The length of primary key column '%s' is %d bytes, more than %d.", c.Name, n, maxKeyValue)
			}
		}
		if c.Value.Kind() == plainbuffer.String && !utf8.ValidString(c.Value.Str()) {
			return wire.Invalid("The value of primary key column '%s' is not UTF-8.", c.Name)
		}
	}
	return nil
}

// checkCells verifies the attribute columns of a write.
func (s *Schema) checkCells(cells []plainbuffer.Cell, update bool, nowMillis int64) error {
	if len(cells) > maxColumns {
		return wire.Errorf(wire.CodeOutOfColumnCountLimit, "The number of columns from the request exceeds the limit of %d.", maxColumns)
	}
	for i := range cells {
		c := &cells[i]
		if len(c.Name) == 0 || len(c.Name) > maxColumnName || !utf8.ValidString(c.Name) {
			return wire.Invalid("Invalid column name: '%.32s'.", c.Name)
		}
		for j := range s.Key {
			if s.Key[j].Name == c.Name {
				return wire.Invalid("Attribute column '%s' has the name of a primary key column.", c.Name)
			}
		}
		if err := s.checkCell(c, update, nowMillis); err != nil {
			return err
		}
	}
	return nil
}

func (s *Schema) checkCell(c *plainbuffer.Cell, update bool, nowMillis int64) error {
	switch {
	case c.Op == plainbuffer.Put:
	case !update:
		return wire.Invalid("Column '%s' carries an operation; only UpdateRow allows that.", c.Name)
	case c.Op == plainbuffer.DeleteAllVersion:
		if c.HasValue || c.HasTimestamp {
			return wire.Invalid("Deleting all versions of column '%s' takes no value and no timestamp.", c.Name)
		}
		return nil
	case c.Op == plainbuffer.DeleteOneVersion:
		if c.HasValue || !c.HasTimestamp {
			return wire.Invalid("Deleting one version of column '%s' takes a timestamp and no value.", c.Name)
		}
		return nil
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
	case plainbuffer.Integer, plainbuffer.Double, plainbuffer.Boolean:
	case plainbuffer.String, plainbuffer.Binary:
		if n := len(c.Value.Str()); n > maxColumnValue {
			return wire.Invalid("The length of attribute column '%s' is %d bytes, more than %d.", c.Name, n, maxColumnValue)
		}
		if c.Value.Kind() == plainbuffer.String && !utf8.ValidString(c.Value.Str()) {
			return wire.Invalid("The value of column '%s' is not UTF-8.", c.Name)
		}
	default:
		return wire.Invalid("Column '%s' has a value of type %#02x.", c.Name, uint8(c.Value.Kind()))
	}
	if c.HasTimestamp {
		// The service refuses versions that time to live would drop at once.
		low, high := nowMillis-1000*s.Options.Deviation, nowMillis+1000*s.Options.Deviation
		if s.Options.TTL >= 0 {
			low = max(low, nowMillis-1000*int64(s.Options.TTL))
		}
		if c.Timestamp < low || c.Timestamp >= high {
			return wire.Invalid("Cell version of column '%s' is %d, out of range [%d, %d).", c.Name, c.Timestamp, low, high)
		}
	}
	return nil
}

// Live drops cells that time to live or the number of versions has ended, and
// reports whether the row is still there: a row goes with its last cell, but a
// row that was written without columns stays.
func (o *Options) Live(row *plainbuffer.Row, nowMillis int64) bool {
	if len(row.Cells) == 0 {
		return true
	}
	horizon := int64(-1 << 63)
	if o.TTL >= 0 {
		horizon = nowMillis - 1000*int64(o.TTL)
	}
	kept := row.Cells[:0]
	versions := int32(0)
	for i := range row.Cells {
		c := row.Cells[i]
		if i == 0 || c.Name != row.Cells[i-1].Name {
			versions = 0
		}
		if versions++; versions <= o.MaxVersions && c.Timestamp >= horizon {
			kept = append(kept, c)
		}
	}
	row.Cells = kept
	return len(kept) > 0
}
