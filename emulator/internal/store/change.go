package store

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/watermill-ots/watermill-ots/emulator/internal/filter"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// Action is what a change does to a row, numbered as in tunnel records.
type Action int

const (
	PutRow    Action = 1
	UpdateRow Action = 2
	DeleteRow Action = 3
)

// Existence is the row existence that a change expects, numbered as on the
// wire.
type Existence int

const (
	Ignore         Existence = 0
	ExpectExist    Existence = 1
	ExpectNotExist Existence = 2
)

// Change is one row of a write and, after Table.Apply, its outcome.
type Change struct {
	Action    Action
	Row       *plainbuffer.Row // as decoded; Apply fills in auto-increment values and timestamps
	Expect    Existence
	Condition *filter.Filter
	Return    []string // columns wanted in After

	Err   error              // *wire.Error; nil when the change was made
	After []plainbuffer.Cell // newest versions of the columns in Return

	key []byte       // ordered key
	tx  *Transaction // the transaction that makes the change; nil: none
}

// writer is the scratch memory for writes to one partition, whose lock guards
// it.
type writer struct {
	old, row plainbuffer.Row // row before, row after
	log      plainbuffer.Row // image in the log
	rowBytes []byte
	logBytes []byte
	origin   []byte
	record   []byte
	pending  []mutation
	indexed  []indexChange // by the current group of changes
}

// apply makes one change. p.mu is held; seq is the change's position in the
// log.
func (p *partition) apply(t *Table, c *Change, seq plainbuffer.Sequence, nowMillis int64) error {
	if err := t.store.transactions.check(t, c); err != nil {
		return err
	}
	w := &p.writer
	exists, err := p.loadOld(t, c, nowMillis)
	if err != nil {
		return err
	}
	if err := c.check(&w.old, exists); err != nil {
		return err
	}
	gone := false // whether the row no longer exists after the change
	w.log = plainbuffer.Row{PrimaryKey: c.Row.PrimaryKey, HasSequence: true, Sequence: seq}
	switch c.Action {
	case PutRow:
		for i := range c.Row.Cells {
			stamp(&c.Row.Cells[i], nowMillis)
		}
		w.row.Cells = order(append(w.row.Cells[:0], c.Row.Cells...))
	case UpdateRow:
		if !exists {
			w.old.Cells = w.old.Cells[:0]
		}
		puts, err := w.update(c, nowMillis)
		if err != nil {
			return err
		}
		// Deleting columns neither creates nor deletes a row.
		gone = !exists && !puts
		w.log.Cells = c.Row.Cells
	case DeleteRow:
		gone = true
		w.log.Delete = true
	}
	w.row.PrimaryKey = c.Row.PrimaryKey
	if !gone {
		t.schema.Options.Live(&w.row, nowMillis) // drops versions beyond the limit
		if c.Action == PutRow {
			w.log.Cells = w.row.Cells
		}
		c.After = newest(w.row.Cells, c.Return)
		w.rowBytes = plainbuffer.AppendRow(w.rowBytes[:0], &w.row)
		if len(w.rowBytes) > maxRow {
			return wire.Errorf(wire.CodeOutOfRowSizeLimit, "The row has %d bytes, more than %d.", len(w.rowBytes), maxRow)
		}
	}
	if err := p.index(t, c.key, gone); err != nil {
		return err
	}
	if t.stream.Enabled && p.shard != nil {
		p.appendLog(t, c.Action, exists, seq.Timestamp)
	}
	if gone {
		if p.rows.delete(c.key) {
			w.pending = append(w.pending, mutation{kind: deleteKey, bucket: t.rowBucket, key: c.key})
		}
		return nil
	}
	before := p.rows.count
	key, row := p.rows.put(c.key, w.rowBytes)
	w.pending = append(w.pending, mutation{kind: putKey, isNew: p.rows.count > before, bucket: t.rowBucket, key: key, value: row})
	return nil
}

// index updates the indexes with the change that the writer holds.
func (p *partition) index(t *Table, key []byte, gone bool) error {
	if len(t.indexes) == 0 {
		return nil
	}
	before, ok := p.rows.get(key)
	if !ok {
		before = nil
	}
	if gone {
		return p.reindex(t, before, nil)
	}
	if err := t.checkIndexed(&p.writer.row); err != nil {
		return err
	}
	return p.reindex(t, before, p.writer.rowBytes)
}

// loadOld decodes the row before the change if the change depends on it.
func (p *partition) loadOld(t *Table, c *Change, nowMillis int64) (exists bool, err error) {
	if c.Action != UpdateRow && c.Expect == Ignore && c.Condition == nil && len(t.stream.Origin) == 0 {
		return false, nil
	}
	return p.decode(t, c.key, &p.writer.old, nowMillis)
}

// check evaluates the change's conditions.
func (c *Change) check(old *plainbuffer.Row, exists bool) error {
	if c.Expect == ExpectExist && !exists || c.Expect == ExpectNotExist && exists {
		return wire.Errorf(wire.CodeConditionCheckFail, "Condition check failed.")
	}
	if !exists {
		old = nil
	}
	if !c.Condition.Match(old) {
		return wire.Errorf(wire.CodeConditionCheckFail, "Condition check failed.")
	}
	return nil
}

// update merges an UpdateRow into the old row's cells. Increments in c.Row
// become puts, since the log holds results. It reports whether there was a put.
func (w *writer) update(c *Change, nowMillis int64) (puts bool, err error) {
	cells := append(w.row.Cells[:0], w.old.Cells...)
	w.row.Cells = cells
	for i := range c.Row.Cells {
		cell := &c.Row.Cells[i]
		switch cell.Op {
		case plainbuffer.DeleteAllVersion:
			cells = slices.DeleteFunc(cells, func(o plainbuffer.Cell) bool { return o.Name == cell.Name })
		case plainbuffer.DeleteOneVersion:
			cells = slices.DeleteFunc(cells, func(o plainbuffer.Cell) bool {
				return o.Name == cell.Name && o.Timestamp == cell.Timestamp
			})
		case plainbuffer.Increment:
			if err := increment(cell, cells, nowMillis); err != nil {
				return false, err
			}
			fallthrough
		default:
			puts = true
			stamp(cell, nowMillis)
			cells = insert(cells, *cell)
		}
	}
	w.row.Cells = cells
	return puts, nil
}

// increment turns cell into a put of the sum. A missing column counts as zero.
func increment(cell *plainbuffer.Cell, cells []plainbuffer.Cell, nowMillis int64) error {
	i := slices.IndexFunc(cells, func(o plainbuffer.Cell) bool { return o.Name == cell.Name })
	sum := cell.Value.Integer()
	if i >= 0 {
		if cells[i].Value.Kind() != plainbuffer.Integer {
			return wire.Invalid("Column '%s' is not of type INTEGER and can't be incremented.", cell.Name)
		}
		n := cells[i].Value.Integer()
		if n > 0 && sum > math.MaxInt64-n || n < 0 && sum < math.MinInt64-n {
			return wire.Invalid("Incrementing column '%s' by %d overflows: its value is %d.", cell.Name, sum, n)
		}
		sum += n
		// The sum must be the newest version even if the clock stood still.
		nowMillis = max(nowMillis, cells[i].Timestamp)
	}
	cell.Op, cell.Value = plainbuffer.Put, plainbuffer.IntegerValue(sum)
	cell.Timestamp, cell.HasTimestamp = nowMillis, true
	return nil
}

// stamp gives a put without a version the server's time.
func stamp(c *plainbuffer.Cell, nowMillis int64) {
	if !c.HasTimestamp {
		c.HasTimestamp, c.Timestamp = true, nowMillis
	}
}

// byVersion orders cells by name, newest first.
func byVersion(a, b plainbuffer.Cell) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(b.Timestamp, a.Timestamp))
}

// order sorts cells by version; of equal versions the last one stays.
func order(cells []plainbuffer.Cell) []plainbuffer.Cell {
	slices.SortStableFunc(cells, byVersion)
	kept := cells[:0]
	for i := range cells {
		if n := len(kept); n > 0 && byVersion(kept[n-1], cells[i]) == 0 {
			kept[n-1] = cells[i]
			continue
		}
		kept = append(kept, cells[i])
	}
	return kept
}

// insert puts a cell into ordered cells and replaces an equal version.
func insert(cells []plainbuffer.Cell, cell plainbuffer.Cell) []plainbuffer.Cell {
	i, found := slices.BinarySearchFunc(cells, cell, byVersion)
	if found {
		cells[i] = cell
		return cells
	}
	return slices.Insert(cells, i, cell)
}

// newest returns the newest version of each named column that exists.
func newest(cells []plainbuffer.Cell, names []string) []plainbuffer.Cell {
	var found []plainbuffer.Cell
	for _, name := range names {
		if i := slices.IndexFunc(cells, func(c plainbuffer.Cell) bool { return c.Name == name }); i >= 0 {
			found = append(found, cells[i])
		}
	}
	return found
}

// appendLog adds the change to the shard's log.
func (p *partition) appendLog(t *Table, action Action, exists bool, micros int64) {
	w := &p.writer
	w.logBytes = plainbuffer.AppendRow(plainbuffer.AppendHeader(w.logBytes[:0]), &w.log)
	w.origin = w.origin[:0]
	if exists && len(t.stream.Origin) > 0 {
		w.origin = plainbuffer.AppendRow(plainbuffer.AppendHeader(w.origin), &plainbuffer.Row{
			PrimaryKey: w.log.PrimaryKey,
			Cells:      newest(w.old.Cells, t.stream.Origin),
		})
	}
	w.record = appendRecord(w.record[:0], action, w.logBytes, w.origin)
	s := p.shard
	s.mu.Lock()
	segments := len(s.segments)
	offset, kept := s.append(w.record, micros)
	grown := len(s.segments) > segments
	s.mu.Unlock()
	if grown { // often enough to bound a log that no consumer reads
		t.trim(s, s.agedAt-t.stream.Expiration.Microseconds())
	}
	w.pending = append(w.pending, mutation{kind: putRecord, bucket: s.bucket, offset: offset, micros: micros, value: kept})
}

// Tags of ReadRecordsResponse and Record on the wire.
const (
	tagRecords = 1<<3 | 2 // ReadRecordsResponse.records, a message
	tagAction  = 1 << 3   // Record.action_type, a varint
	tagRow     = 2<<3 | 2 // Record.record, bytes
	tagOrigin  = 3<<3 | 2 // Record.origin_record, bytes
)

// appendRecord appends a Record as field 1 of a ReadRecordsResponse. An empty
// origin is left out.
func appendRecord(dst []byte, action Action, row, origin []byte) []byte {
	size := 2 + 1 + protowire.SizeBytes(len(row))
	if len(origin) > 0 {
		size += 1 + protowire.SizeBytes(len(origin))
	}
	dst = append(dst, tagRecords)
	dst = protowire.AppendVarint(dst, uint64(size))
	dst = append(dst, tagAction, byte(action), tagRow)
	dst = protowire.AppendBytes(dst, row)
	if len(origin) > 0 {
		dst = append(dst, tagOrigin)
		dst = protowire.AppendBytes(dst, origin)
	}
	return dst
}
