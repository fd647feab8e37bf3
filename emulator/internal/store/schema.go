package store

import (
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// KeyColumn is one column of a table's primary key.
type KeyColumn struct {
	Name          string
	Kind          plainbuffer.Kind // Integer, String or Binary
	AutoIncrement bool             // the service numbers rows; not the first column
}

// Options are a table's settings that can be changed.
type Options struct {
	TTL         int32 // seconds that a cell lives; -1: forever
	MaxVersions int32 // versions of a column that are kept, newest first
	Deviation   int64 // seconds that a cell's timestamp may differ from now
	AllowUpdate bool  // UpdateRow may be used
	// UpdateFullRow is stored and returned; its effect is not documented.
	UpdateFullRow bool `json:",omitempty"`
}

// Schema describes a table.
type Schema struct {
	Name              string
	Key               []KeyColumn
	Defined           []DefinedColumn
	Options           Options
	LocalTransactions bool `json:",omitempty"` // local transactions may be used

	ReadUnits  int32 // reserved throughput; stored and returned, not enforced
	WriteUnits int32
}

func (s *Schema) check() error {
	if err := CheckTableName(s.Name); err != nil {
		return err
	}
	if err := checkThroughput(s.ReadUnits, s.WriteUnits); err != nil {
		return err
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
				return wire.Invalid("First primary key can't be auto increment, table: %s.", s.Name)
			}
			if c.Kind != plainbuffer.Integer {
				return wire.Invalid("AUTO_INCREMENT primary key must be integer.")
			}
		}
	}
	if auto > 1 {
		return wire.Invalid("AUTO_INCREMENT primary key count must <= 1.")
	}
	if auto > 0 && s.LocalTransactions {
		return wire.Invalid("Local transactions can't be used with an AUTO_INCREMENT primary key.")
	}
	if err := s.checkDefined(); err != nil {
		return err
	}
	return s.Options.check()
}

func (o *Options) check() error {
	const day = 24 * 60 * 60
	if o.TTL == 0 || o.TTL < -1 {
		return wire.Invalid("TimeToLive cannot be 0 or less than -1.")
	}
	if o.TTL != -1 && o.TTL < day {
		return wire.Invalid("The time to live must be -1 or at least %d seconds, got %d.", day, o.TTL)
	}
	if o.MaxVersions < 1 {
		return wire.Invalid("The maximum versions cannot be less than or equal to 0.")
	}
	if o.Deviation < 1 || o.Deviation > maxDeviation {
		return wire.Invalid("The maximum deviation must be in range [0, INT64_MAX/1000000].")
	}
	return nil
}

// CheckKey verifies a primary key against the schema. With bounds, infinities
// are allowed; with put, the auto-increment placeholder is.
func (s *Schema) CheckKey(key []plainbuffer.Cell, bounds, put bool) error {
	if err := checkKeySize(key, max(maxKeyColumns, len(s.Key))); err != nil {
		return err
	}
	if err := CheckKey(key, bounds); err != nil {
		return err
	}
	if len(key) != len(s.Key) {
		return wire.Errorf(wire.CodeInvalidPK, "Validate PK size fail. Input: %d, Meta: %d.", len(key), len(s.Key))
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
			return wire.Errorf(wire.CodeInvalidPK, "Validate PK type fail. Input: %s, Meta: %s.", kindNames[kind], kindNames[want.Kind])
		}
	}
	return nil
}

// checkCells verifies the attribute columns of a write.
func (s *Schema) checkCells(cells []plainbuffer.Cell, update bool, nowMillis int64) error {
	if err := CheckCells(cells, update); err != nil {
		return err
	}
	for i := range cells {
		c := &cells[i]
		for j := range s.Key {
			if s.Key[j].Name == c.Name {
				return DuplicatedName(c.Name)
			}
		}
		if !c.HasTimestamp || c.Op == plainbuffer.DeleteOneVersion {
			continue
		}
		// The service refuses versions that would expire at once.
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

// Live drops cells that have expired or exceed the number of versions, and
// reports whether the row still exists: a row disappears with its last cell,
// but a row that was written without columns stays.
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
