package store

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// indexRecord says what an index is derived from, as stored on disk.
type indexRecord struct {
	Table  string // id of the table
	Number int    // its place among the indexes of the table
	Meta   IndexMeta
}

// Index returns the description of the index that the table is, or false if it
// is not an index.
func (t *Table) Index() (meta IndexMeta, ok bool) {
	if t.indexOf == nil {
		return meta, false
	}
	return t.indexOf.Meta, true
}

// Indexes returns the descriptions of the table's secondary indexes, the oldest
// first.
func (t *Table) Indexes() []IndexMeta {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var metas []IndexMeta
	for _, ix := range t.indexes {
		metas = append(metas, ix.meta)
	}
	return metas
}

// checkSize refuses what cannot be an index of any table. The service checks
// this before it looks at the table.
func (m *IndexMeta) checkSize() error {
	switch {
	case len(m.Key) < 1 || len(m.Key) > maxIndexed:
		return wire.Invalid("The number of primary key columns must be in range: [1, %d] in index.", maxIndexed)
	case len(m.Defined) > maxIndexAttrs:
		return wire.Invalid("The number of attribute columns must be in range: [0, %d] in index.", maxIndexAttrs)
	}
	return CheckTableName(m.Name)
}

// check refuses an index that a table with this schema cannot have. The limits
// are those of
// https://www.alibabacloud.com/help/en/tablestore/secondary-index-limits.
func (m *IndexMeta) check(base *Schema) error {
	if err := m.checkSize(); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for i, name := range m.Key {
		source := sourceOf(name, base)
		switch source.kind {
		case plainbuffer.Integer, plainbuffer.String, plainbuffer.Binary:
		default:
			return wire.Invalid("Column '%s' of index '%s' is not a key column or a predefined column of type INTEGER, STRING or BINARY.", name, m.Name)
		}
		if i == 0 && source.at >= 0 && base.Key[source.at].AutoIncrement {
			return wire.Invalid("Column '%s' of index '%s' is auto increment and can't be the first.", name, m.Name)
		}
		if seen[name] {
			return wire.Invalid("Column '%s' of index '%s' is given twice.", name, m.Name)
		}
		seen[name] = true
	}
	for _, name := range m.Defined {
		if source := sourceOf(name, base); source.kind == plainbuffer.Null || source.at >= 0 || seen[name] {
			return wire.Invalid("Column '%s' of index '%s' is not a predefined column, or is given twice.", name, m.Name)
		}
		seen[name] = true
	}
	if m.Local && m.Key[0] != base.Key[0].Name {
		return wire.Invalid("The first column of the local index '%s' must be '%s', the first key column of the table.", m.Name, base.Key[0].Name)
	}
	return base.Options.checkIndexed()
}

// checkIndexed refuses options that a table with an index cannot have.
func (o *Options) checkIndexed() error {
	switch {
	case o.MaxVersions != 1:
		return wire.Invalid("A table with an index must have 1 as max versions, got %d.", o.MaxVersions)
	case o.TTL != -1 && o.AllowUpdate:
		return wire.Invalid("Don't support allow update operation on table with index and ttl")
	}
	return nil
}

// addIndex adds an index to the table, without rows. The table is not shared
// yet, or t.mu is held for writing.
func (t *Table) addIndex(meta IndexMeta) (*index, error) {
	if err := meta.check(&t.schema); err != nil {
		return nil, err
	}
	if len(t.indexes) >= maxIndexes {
		return nil, wire.Invalid("Number of index per table exceeds the quota:%d.", maxIndexes)
	}
	id := randomID()
	table := &Table{store: t.store, id: id, rowBucket: rowBucketPrefix + id, created: t.store.now(), partitions: []*partition{newPartition(nil)}}
	table.indexOf = &indexRecord{Table: t.id, Meta: meta}
	if n := len(t.indexes); n > 0 {
		table.indexOf.Number = t.indexes[n-1].table.indexOf.Number + 1
	}
	ix := newIndex(meta, &t.schema, table)
	table.schema = ix.schema(&t.schema)
	t.indexes = append(t.indexes, ix)
	return ix, nil
}

// linkIndexes connects tables that were just loaded with their indexes.
func linkIndexes(tables map[string]*Table) error {
	ids := byID(tables)
	for _, t := range tables {
		if t.indexOf == nil {
			continue
		}
		base := ids[t.indexOf.Table]
		if base == nil {
			return fmt.Errorf("the table of index %s is missing", t.schema.Name)
		}
		base.indexes = append(base.indexes, newIndex(t.indexOf.Meta, &base.schema, t))
	}
	for _, t := range tables {
		slices.SortFunc(t.indexes, func(a, b *index) int { return cmp.Compare(a.table.indexOf.Number, b.table.indexOf.Number) })
	}
	return nil
}

// CreateIndex adds an index to a table, optionally with rows for the existing
// ones, and returns when all of it is durable.
func (s *Store) CreateIndex(table string, meta IndexMeta, baseData bool) error {
	if err := meta.checkSize(); err != nil {
		return err
	}
	if err := s.commits.revive(); err != nil {
		return err
	}
	round, err := s.createIndex(table, meta, baseData)
	if err != nil {
		return err
	}
	return s.commits.wait(round)
}

func (s *Store) createIndex(table string, meta IndexMeta, baseData bool) (*round, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tables[table]
	if t == nil {
		return nil, errNoTable()
	}
	t.mu.Lock() // excludes all users of the rows
	defer t.mu.Unlock()
	if err := t.writable(); err != nil {
		return nil, err
	}
	if t.indexOf != nil {
		return nil, errIndexTable(t)
	}
	if err := s.vacant(meta.Name); err != nil {
		return nil, err
	}
	ix, err := t.addIndex(meta)
	if err != nil {
		return nil, err
	}
	pending := []mutation{ix.table.snapshot(true)}
	if baseData {
		rows, err := ix.fill(t)
		if err != nil {
			t.indexes = t.indexes[:len(t.indexes)-1]
			return nil, err
		}
		pending = append(pending, rows...)
	}
	s.tables[meta.Name], s.byID[ix.table.id] = ix.table, ix.table
	return s.commits.enqueue(pending, nil), nil
}

// add adds a new table with its indexes, or neither. s.mu is held.
func (s *Store) add(t *Table) error {
	all := []*Table{t}
	for _, ix := range t.indexes {
		all = append(all, ix.table)
	}
	for i, added := range all {
		if err := s.vacant(added.schema.Name); err != nil {
			for _, before := range all[:i] {
				delete(s.tables, before.schema.Name)
				delete(s.byID, before.id)
			}
			return err
		}
		s.tables[added.schema.Name], s.byID[added.id] = added, added
	}
	return nil
}

// vacant refuses a name that is taken, and a table beyond the limit. s.mu is
// held.
func (s *Store) vacant(name string) error {
	if s.tables[name] != nil {
		return wire.Errorf(wire.CodeObjectAlreadyExist, "Requested table already exists.")
	}
	if len(s.tables) >= maxTables {
		return wire.Errorf(wire.CodeQuotaExhausted, "Number of tables exceeds the quota:%d.", maxTables)
	}
	return nil
}

// fill adds the table's existing rows to the index. t.mu is held for writing.
func (ix *index) fill(t *Table) (pending []mutation, err error) {
	for _, p := range t.partitions {
		for at := (place{}); ; at = p.rows.next(at) {
			_, b, ok := p.rows.at(at)
			if !ok {
				break
			}
			row, err := t.decodeStored(b)
			if err != nil {
				return nil, err
			}
			if is := ix.encode(row); is != nil {
				pending = append(pending, ix.put(is.key, is.row))
			}
		}
	}
	return pending, nil
}

// DropIndex deletes an index of a table.
func (s *Store) DropIndex(table, name string) error {
	if err := s.commits.revive(); err != nil {
		return err
	}
	round, err := s.dropIndex(table, name)
	if err != nil {
		return err
	}
	return s.commits.wait(round)
}

func (s *Store) dropIndex(table, name string) (*round, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tables[table]
	if t == nil {
		return nil, errNoTable()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.writable(); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(t.indexes, func(ix *index) bool { return ix.meta.Name == name })
	if i < 0 {
		return nil, wire.Errorf(wire.CodeObjectNotExist, "Requested index does not exist.")
	}
	gone := s.forget(t.indexes[i])
	t.indexes = slices.Delete(slices.Clone(t.indexes), i, i+1)
	return s.commits.enqueue(gone, nil), nil
}

// forget drops an index's table and returns the mutations that remove it from
// disk. s.mu and the lock of the table that the index belongs to are held.
func (s *Store) forget(ix *index) []mutation {
	t := ix.table
	delete(s.tables, ix.meta.Name)
	delete(s.byID, t.id)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropped = true
	return []mutation{
		{kind: deleteKey, bucket: tableBucket, key: []byte(t.id)},
		{kind: dropBucket, bucket: t.rowBucket},
	}
}

// errIndexTable is the answer to an operation that only tables support.
func errIndexTable(t *Table) error {
	return wire.Invalid("Table '%s' is an index table, which is changed with the table that it belongs to.", t.schema.Name)
}

// updateIndexes copies the table's options to its indexes and returns the
// mutations that save them. t.mu is held for writing.
func (t *Table) updateIndexes() []mutation {
	var pending []mutation
	for _, ix := range t.indexes {
		ix.table.mu.Lock()
		ix.table.schema.Options = t.schema.Options
		pending = append(pending, ix.table.snapshot(false))
		ix.table.mu.Unlock()
	}
	return pending
}
