package store

import (
	"slices"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// DefinedColumn is a predefined column. It does not constrain writes.
type DefinedColumn struct {
	Name string
	Type int32 // DefinedColumnType on the wire
}

// definedKinds are the value kinds of predefined columns, by column type.
var definedKinds = map[int32]plainbuffer.Kind{
	1: plainbuffer.Integer, 2: plainbuffer.Double, 3: plainbuffer.Boolean, 4: plainbuffer.String, 7: plainbuffer.Binary,
}

// checkDefined refuses predefined columns that a table cannot have.
func (s *Schema) checkDefined() error {
	if len(s.Defined) > maxDefined {
		return wire.Invalid("The number of defined columns must be in range: [0, %d].", maxDefined)
	}
	names := make(map[string]bool)
	for _, c := range s.Key {
		names[c.Name] = true
	}
	for _, c := range s.Defined {
		if !namePattern.MatchString(c.Name) || names[c.Name] {
			return wire.Invalid("Invalid or duplicated defined column: '%s'.", c.Name)
		}
		if _, ok := definedKinds[c.Type]; !ok {
			return wire.Invalid("Defined column '%s' has the unknown type %d.", c.Name, c.Type)
		}
		names[c.Name] = true
	}
	return nil
}

// AddDefined adds predefined columns to the table: all of them, or none if one
// cannot be added.
func (t *Table) AddDefined(columns []DefinedColumn) error {
	return t.redefine(func(s *Schema) error {
		s.Defined = append(slices.Clone(s.Defined), columns...)
		return s.checkDefined()
	})
}

// DropDefined removes predefined columns from the table: all of them, or none
// if one does not exist or is part of an index. Values in rows under these
// names stay.
func (t *Table) DropDefined(names []string) error {
	return t.redefine(func(s *Schema) error {
		s.Defined = slices.Clone(s.Defined)
		for _, name := range names {
			i := slices.IndexFunc(s.Defined, func(c DefinedColumn) bool { return c.Name == name })
			if i < 0 {
				return wire.Invalid("Column does not exist: '%s'.", name)
			}
			for _, ix := range t.indexes {
				if slices.Contains(ix.meta.Key, name) || slices.Contains(ix.meta.Defined, name) {
					return wire.Invalid("Defined column '%s' is used by index '%s', which must be deleted first.", name, ix.meta.Name)
				}
			}
			s.Defined = slices.Delete(s.Defined, i, i+1)
		}
		return nil
	})
}

// redefine changes the table's description and returns when the change is
// durable. If change fails, the description stays as it is.
func (t *Table) redefine(change func(*Schema) error) error {
	if err := t.store.commits.revive(); err != nil {
		return err
	}
	t.mu.Lock()
	if err := t.writable(); err != nil {
		t.mu.Unlock()
		return err
	}
	if t.indexOf != nil {
		t.mu.Unlock()
		return errIndexTable(t)
	}
	next := t.schema
	if err := change(&next); err != nil {
		t.mu.Unlock()
		return err
	}
	t.schema = next
	round := t.store.commits.enqueue([]mutation{t.snapshot(false)}, nil)
	t.mu.Unlock()
	return t.store.commits.wait(round)
}
