package store

import (
	"bytes"
	"slices"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// IndexMeta describes a secondary index: a table whose rows are derived from
// another table's.
type IndexMeta struct {
	Name    string
	Key     []string // index columns: key columns and predefined columns of the table
	Defined []string // further predefined columns of the table that the index contains
	Local   bool
	Sync    bool // as the request said; indexes are always up to date
}

// index is a secondary index of a table.
//
// Invariants:
//   - its rows are a function of the table's stored rows, except for rows that
//     existed before an index without base data was created;
//   - a row of the table has at most one row in the index, whose key contains
//     the whole key of the table's row, so the lock of the row's partition
//     orders changes of both;
//   - a change of the table's rows holds the lock of the index's partition
//     until the change is queued, so that no reader of the index sees what a
//     crash can take back.
type index struct {
	meta  IndexMeta
	table *Table // holds the index's rows, in one partition
	key   []keySource
	attrs map[string]plainbuffer.Kind
}

// keySource says where a key column of an index comes from.
type keySource struct {
	name string
	kind plainbuffer.Kind
	at   int // position in the table's key; -1: a predefined column
}

func (ix *index) partition() *partition { return ix.table.partitions[0] }

// newIndex returns an index over a table's schema, which has been checked.
func newIndex(meta IndexMeta, base *Schema, table *Table) *index {
	ix := &index{meta: meta, table: table, attrs: make(map[string]plainbuffer.Kind)}
	for _, name := range meta.Key {
		ix.key = append(ix.key, sourceOf(name, base))
	}
	for i, c := range base.Key {
		if !slices.Contains(meta.Key, c.Name) {
			ix.key = append(ix.key, keySource{c.Name, c.Kind, i})
		}
	}
	for _, name := range meta.Defined {
		ix.attrs[name] = sourceOf(name, base).kind
	}
	return ix
}

// sourceOf returns the column with that name, or Null if there is none.
func sourceOf(name string, base *Schema) keySource {
	for i, c := range base.Key {
		if c.Name == name {
			return keySource{name, c.Kind, i}
		}
	}
	for _, c := range base.Defined {
		if c.Name == name {
			return keySource{name, definedKinds[c.Type], -1}
		}
	}
	return keySource{name, plainbuffer.Null, -1}
}

// schema returns the description of the index's table.
func (ix *index) schema(base *Schema) Schema {
	s := Schema{Name: ix.meta.Name, Options: base.Options}
	for _, k := range ix.key {
		s.Key = append(s.Key, KeyColumn{Name: k.name, Kind: k.kind})
	}
	for _, c := range base.Defined {
		if _, ok := ix.attrs[c.Name]; ok {
			s.Defined = append(s.Defined, c)
		}
	}
	return s
}

// entry returns the index's row for a row of the table, and whether there is
// one. A row is not in the index if it lacks an index column, or if that column
// has another type or a longer value than a key may have.
//
// Cells of the index's row have the versions of the table's cells. One
// additional cell, named like the first key column, has the version by which
// the row expires: the oldest of the index columns, or the newest of all cells
// if the index's key has no predefined column.
func (ix *index) entry(base *plainbuffer.Row) (row plainbuffer.Row, ok bool) {
	expires := plainbuffer.Cell{Name: ix.key[0].name, HasTimestamp: true, HasValue: true, Value: plainbuffer.BooleanValue(true)}
	dated := false // expires holds the version of an index column
	for _, k := range ix.key {
		cell := plainbuffer.Cell{Name: k.name, HasValue: true}
		if k.at >= 0 {
			cell.Value = base.PrimaryKey[k.at].Value
		} else {
			i := slices.IndexFunc(base.Cells, func(c plainbuffer.Cell) bool { return c.Name == k.name })
			if i < 0 || base.Cells[i].Value.Kind() != k.kind || len(base.Cells[i].Value.Str()) > maxKeyValue {
				return row, false
			}
			cell.Value = base.Cells[i].Value
			if ts := base.Cells[i].Timestamp; !dated || ts < expires.Timestamp {
				expires.Timestamp, dated = ts, true
			}
		}
		row.PrimaryKey = append(row.PrimaryKey, cell)
	}
	for _, c := range base.Cells {
		if !dated {
			expires.Timestamp = max(expires.Timestamp, c.Timestamp)
		}
		if kind, wanted := ix.attrs[c.Name]; wanted && kind == c.Value.Kind() {
			row.Cells = append(row.Cells, c)
		}
	}
	if len(base.Cells) > 0 {
		row.Cells = append(row.Cells, expires)
	}
	return row, true
}

// live is Options.Live for a row of an index: it also removes the cell that
// says when the row expires.
func (t *Table) live(row *plainbuffer.Row, nowMillis int64) bool {
	options := &t.schema.Options
	alive := true
	row.Cells = slices.DeleteFunc(row.Cells, func(c plainbuffer.Cell) bool {
		if c.Name != t.schema.Key[0].Name {
			return false
		}
		alive = options.TTL < 0 || c.Timestamp >= nowMillis-1000*int64(options.TTL)
		return true
	})
	options.Live(row, nowMillis)
	return alive
}

// indexRow is a row of an index in encoded form.
type indexRow struct{ key, row []byte }

// encode returns the index's row for a row of the table, or nil if there is
// none.
func (ix *index) encode(base *plainbuffer.Row) *indexRow {
	if base == nil {
		return nil
	}
	row, ok := ix.entry(base)
	if !ok {
		return nil
	}
	slices.SortStableFunc(row.Cells, byVersion)
	return &indexRow{plainbuffer.AppendOrderedKey(nil, row.PrimaryKey), plainbuffer.AppendRow(nil, &row)}
}

// checkIndexed refuses a row of the table whose index columns are longer than a
// key may be.
func (t *Table) checkIndexed(row *plainbuffer.Row) error {
	for _, ix := range t.indexes {
		for _, k := range ix.key {
			for i := range row.Cells {
				c := &row.Cells[i]
				if k.at < 0 && c.Name == k.name && c.Value.Kind() == k.kind && len(c.Value.Str()) > maxKeyValue {
					return keyTooLong(c)
				}
			}
		}
	}
	return nil
}

// reindex updates the indexes after a change of a row. before and after are the
// row as stored before and after the change, nil if it does not exist. The
// partition and those of the indexes are locked (lock).
func (p *partition) reindex(t *Table, before, after []byte) error {
	if p.private || len(t.indexes) == 0 {
		return nil
	}
	old, err := t.decodeStored(before)
	if err != nil {
		return err
	}
	now, err := t.decodeStored(after)
	if err != nil {
		return err
	}
	for _, ix := range t.indexes {
		was, is := ix.encode(old), ix.encode(now)
		if was != nil && (is == nil || !bytes.Equal(was.key, is.key)) {
			p.changeIndex(ix, was.key, nil)
		}
		if is != nil {
			p.changeIndex(ix, is.key, is.row)
		}
	}
	return nil
}

// decodeStored decodes a row as it is stored, expired cells included; nil for
// none.
func (t *Table) decodeStored(b []byte) (*plainbuffer.Row, error) {
	if b == nil {
		return nil, nil
	}
	row := new(plainbuffer.Row)
	if _, err := plainbuffer.DecodeRow(b, row); err != nil {
		return nil, undecodable(t, err)
	}
	return row, nil
}

// changeIndex puts a row into an index, or deletes it if row is nil, and
// remembers the previous one.
func (p *partition) changeIndex(ix *index, key, row []byte) {
	rows := &ix.partition().rows
	before, had := rows.get(key)
	switch {
	case row == nil && !had, row != nil && had && bytes.Equal(before, row):
		return
	case row == nil:
		rows.delete(key)
		p.writer.pending = append(p.writer.pending, mutation{kind: deleteKey, bucket: ix.table.rowBucket, key: key})
	default:
		p.writer.pending = append(p.writer.pending, ix.put(key, row))
	}
	if !had {
		before = nil
	}
	p.writer.indexed = append(p.writer.indexed, indexChange{ix, rowBefore{key, before}})
}

// put puts a row into the index and returns the mutation that saves it.
func (ix *index) put(key, row []byte) mutation {
	rows := &ix.partition().rows
	count := rows.count
	key, row = rows.put(key, row)
	return mutation{kind: putKey, isNew: rows.count > count, bucket: ix.table.rowBucket, key: key, value: row}
}

// indexChange is a row of an index before a change.
type indexChange struct {
	ix     *index
	before rowBefore
}

// undoIndexes takes back all index changes since the last group of changes, the
// latest first.
func (p *partition) undoIndexes() {
	for i := len(p.writer.indexed) - 1; i >= 0; i-- {
		c := p.writer.indexed[i]
		c.before.restore(&c.ix.partition().rows)
	}
	p.writer.indexed = p.writer.indexed[:0]
}

// lock locks the partition and the indexes' partitions for changes of rows.
// t.mu is held, so the set of indexes stays the same until unlock.
func (p *partition) lock(t *Table) {
	p.mu.Lock()
	for _, ix := range t.indexes {
		ix.partition().mu.Lock()
	}
}

func (p *partition) unlock(t *Table) {
	for _, ix := range t.indexes {
		ix.partition().mu.Unlock()
	}
	p.mu.Unlock()
}
