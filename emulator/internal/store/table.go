package store

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// Table is one table. Its methods are safe for concurrent use.
//
// Invariants:
//   - partitions cover the whole key space, ordered, without a gap;
//   - with a stream, each partition has exactly one open shard, and every
//     other shard is closed;
//   - shards are listed parents before children.
type Table struct {
	store     *Store
	id        string // differs from that of an earlier table of the same name
	rowBucket string
	created   time.Time
	indexOf   *indexRecord // what a secondary index is derived from; nil for other tables

	mu         sync.RWMutex // guards the following
	schema     Schema
	partitions []*partition
	stream     tunnels.StreamInfo
	indexes    []*index
	shards     []*shard
	shardCount int // shards ever created, for their ids

	adjusted  time.Time // when the reserved throughput was last updated; zero: never
	dropped   bool
	takenBack bool // another Table has replaced this one: the disk refused a write
	// versionsLowered says that rows may have more versions than the options
	// allow.
	versionsLowered bool

	autoMu   sync.Mutex // guards the following; taken with mu held for reading
	lastAuto int64      // largest auto-increment value assigned
	sentAuto int64      // the value that is on disk, or will be with the rows queued so far
}

// partition is a range of partition keys (values of the first primary key
// column) with its rows. All rows of a partition key are in the same partition.
type partition struct {
	low     *plainbuffer.Value // first partition key, nil for the lowest partition
	lowKey  []byte             // low as an ordered key
	private bool               // holds a transaction's copies of rows, which have no index

	mu     sync.RWMutex // guards the following
	rows   rows
	shard  *shard // nil without a stream
	writer writer
}

func newPartition(low *plainbuffer.Value) *partition {
	p := &partition{low: low}
	if low != nil {
		p.lowKey = plainbuffer.AppendOrderedKey(nil, []plainbuffer.Cell{{Value: *low}})
	}
	return p
}

// decode reads a row and drops expired cells from it. p.mu is held.
func (p *partition) decode(t *Table, key []byte, row *plainbuffer.Row, nowMillis int64) (exists bool, err error) {
	b, ok := p.rows.get(key)
	if !ok {
		return false, nil
	}
	return t.decodeRow(b, row, nowMillis)
}

func (t *Table) decodeRow(b []byte, row *plainbuffer.Row, nowMillis int64) (exists bool, err error) {
	if _, err := plainbuffer.DecodeRow(b, row); err != nil {
		return false, undecodable(t, err)
	}
	if t.indexOf != nil {
		return t.live(row, nowMillis), nil
	}
	return t.schema.Options.Live(row, nowMillis), nil
}

func undecodable(t *Table, err error) error {
	return wire.Errorf(wire.CodeInternalServerError, "decoding a stored row of table '%s': %v", t.schema.Name, err)
}

// find returns the index of the partition that holds key. t.mu is held.
func (t *Table) find(key []byte) int {
	n := sort.Search(len(t.partitions), func(i int) bool {
		return bytes.Compare(t.partitions[i].lowKey, key) > 0
	})
	return max(n-1, 0)
}

func randomID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// ID returns the table's id, which no other table has had, not even an earlier
// one with the same name.
func (t *Table) ID() string { return t.id }

// Created returns when the table was created.
func (t *Table) Created() time.Time { return t.created }

// Schema returns the table's description.
func (t *Table) Schema() Schema {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s := t.schema
	s.Key = slices.Clone(s.Key)
	s.Defined = slices.Clone(s.Defined)
	return s
}

// Stream returns the table's stream.
func (t *Table) Stream() tunnels.StreamInfo {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.stream
}

func errNoTable() error {
	return wire.Errorf(wire.CodeObjectNotExist, "Requested table does not exist.")
}

// Apply makes the changes and returns once all of them are durable. Changes of
// one partition are made in order and share a time in the log, where their row
// indexes distinguish them. Each change carries its own outcome; an error is
// returned only if nothing was done at all, or if the disk failed.
//
// If atomic is set, the changes have one partition key, and either all are made
// or none.
func (t *Table) Apply(changes []*Change, atomic bool) error {
	if err := t.store.commits.revive(); err != nil {
		return err
	}
	round, err := t.apply(changes, atomic)
	if lost := t.store.commits.wait(round); lost != nil {
		return lost
	}
	// A failed change also reveals the state of rows, which must not be taken
	// back afterwards.
	if err != nil || slices.ContainsFunc(changes, func(c *Change) bool { return c.Err != nil }) {
		if lost := t.store.commits.wait(t.store.commits.newest()); lost != nil {
			return lost
		}
	}
	return err
}

func (t *Table) apply(changes []*Change, atomic bool) (*round, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := t.writable(); err != nil {
		return nil, err
	}
	if t.indexOf != nil {
		return nil, wire.Invalid("Can't write index table directly.")
	}
	nowMillis := t.store.now().UnixMilli()
	groups := make(map[int][]*Change, 1)
	for _, c := range changes {
		if c.Err = t.prepare(c, nowMillis); c.Err == nil {
			n := t.find(c.key)
			groups[n] = append(groups[n], c)
		} else if atomic {
			return nil, c.Err
		}
	}
	if atomic {
		return t.applyAtomic(changes, groups, nowMillis)
	}
	var last *round
	for n, group := range groups {
		if r := t.partitions[n].applyLocked(t, group, nowMillis); r != nil {
			last = r // rounds are committed in order
		}
	}
	return last, nil
}

// prepare validates a change and fills in the values that the service assigns.
func (t *Table) prepare(c *Change, nowMillis int64) error {
	if err := t.schema.CheckKey(c.Row.PrimaryKey, false, c.Action != DeleteRow); err != nil {
		return err
	}
	if err := t.schema.checkCells(c.Row.Cells, c.Action == UpdateRow, nowMillis); err != nil {
		return err
	}
	switch c.Action {
	case UpdateRow:
		if !t.schema.Options.AllowUpdate {
			return wire.Invalid("Table '%s' does not allow updates.", t.schema.Name)
		}
		if len(c.Row.Cells) == 0 {
			return wire.Invalid("Invalid update row request: missing cells in request.")
		}
	case DeleteRow:
		if len(c.Row.Cells) > 0 {
			return wire.Invalid("Invalid delete row request: unexpected cells in request.")
		}
	}
	for i := range c.Row.PrimaryKey {
		if v := &c.Row.PrimaryKey[i].Value; v.Kind() == plainbuffer.AutoIncrement {
			if c.Expect != Ignore {
				return wire.Invalid("Invalid expect:%d when modify row with pk auto increment.", c.Expect)
			}
			if c.Condition != nil {
				return wire.Invalid("Can't set condition when modify row with pk auto increment.")
			}
			*v = plainbuffer.IntegerValue(t.nextAuto(nowMillis))
		}
	}
	c.key = plainbuffer.AppendOrderedKey(nil, c.Row.PrimaryKey)
	return nil
}

// nextAuto returns a number greater than all earlier ones, including those of
// deleted rows, even if the clock was set back. It follows the clock.
func (t *Table) nextAuto(nowMillis int64) int64 {
	t.autoMu.Lock()
	defer t.autoMu.Unlock()
	t.lastAuto = max(t.lastAuto+1, nowMillis*1000)
	return t.lastAuto
}

func (p *partition) applyLocked(t *Table, group []*Change, nowMillis int64) *round {
	p.lock(t)
	defer p.unlock(t)
	return p.applyGroup(t, group, nowMillis)
}

// applyGroup makes changes of one partition. p.mu is held.
func (p *partition) applyGroup(t *Table, group []*Change, nowMillis int64) *round {
	seq := p.nextSequence(t)
	for _, c := range group {
		if c.Err = p.apply(t, c, seq, nowMillis); c.Err == nil {
			seq.RowIndex++
		}
	}
	return p.finishGroup(t)
}

// finishGroup queues the group's mutations. p.mu is held.
func (p *partition) finishGroup(t *Table) *round {
	if p.shard != nil {
		p.shard.finished()
	}
	pending := p.writer.pending
	p.writer.pending, p.writer.indexed = pending[:0], p.writer.indexed[:0]
	return t.enqueue(pending, p.shard)
}

// nextSequence returns the position of the next write in the partition's log.
func (p *partition) nextSequence(t *Table) plainbuffer.Sequence {
	if p.shard == nil {
		return plainbuffer.Sequence{}
	}
	epoch, micros := p.shard.stamp(t.store.now(), t.store.aging.Now())
	return plainbuffer.Sequence{Epoch: epoch, Timestamp: micros}
}

// Get decodes the row with that primary key into row, whose views stay valid.
func (t *Table) Get(key []plainbuffer.Cell, row *plainbuffer.Row) (exists bool, err error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := t.usable(); err != nil {
		return false, err
	}
	if err := t.schema.CheckKey(key, false, false); err != nil {
		return false, err
	}
	ordered := plainbuffer.AppendOrderedKey(nil, key)
	p := t.partitions[t.find(ordered)]
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.decode(t, ordered, row, t.store.now().UnixMilli())
}

// Scan appends up to limit encoded rows to dst: those with start <= key < end
// in ascending order or, if backward is set, those with start >= key > end in
// descending order. Keys are ordered keys; a nil bound is open. next is the key
// at which to continue, inclusive, or nil at the end of the range. The rows'
// bytes stay valid and may contain expired cells (see Live).
func (t *Table) Scan(dst [][]byte, start, end []byte, backward bool, limit int) (found [][]byte, next []byte, err error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := t.usable(); err != nil {
		return nil, nil, err
	}
	n, step := 0, 1
	if start != nil {
		n = t.find(start)
	}
	if backward {
		step = -1
		if start == nil {
			n = len(t.partitions) - 1
		}
	}
	for ; n >= 0 && n < len(t.partitions); n += step {
		p := t.partitions[n]
		p.mu.RLock()
		dst, next = p.scan(dst, start, end, backward, limit)
		p.mu.RUnlock()
		if next != nil || (!backward && end != nil && n+1 < len(t.partitions) && bytes.Compare(t.partitions[n+1].lowKey, end) >= 0) {
			return dst, next, nil
		}
		start = nil // the next partition is read from its edge
	}
	return dst, nil, nil
}

func (p *partition) scan(dst [][]byte, start, end []byte, backward bool, limit int) (found [][]byte, next []byte) {
	at := p.rows.seek(start)
	move := p.rows.next
	if backward {
		move = p.rows.prev
		if start == nil {
			at = place{leaf: len(p.rows.leaves)}
		}
		if key, _, ok := p.rows.at(at); !ok || start == nil || bytes.Compare(key, start) > 0 {
			at = p.rows.prev(at)
		}
	}
	for {
		key, row, ok := p.rows.at(at)
		if !ok || end != nil && (!backward && bytes.Compare(key, end) >= 0 || backward && bytes.Compare(key, end) <= 0) {
			return dst, nil
		}
		if len(dst) >= limit {
			return dst, key
		}
		dst = append(dst, row)
		at = move(at)
	}
}

// Live decodes an encoded row from Scan and drops expired cells; exists reports
// whether anything is left.
func (t *Table) Live(b []byte, row *plainbuffer.Row) (exists bool, err error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.decodeRow(b, row, t.store.now().UnixMilli())
}

// Bounds returns the first primary key of each partition except the lowest, as
// PlainBuffers.
func (t *Table) Bounds() [][]byte {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var bounds [][]byte
	for _, p := range t.partitions[1:] {
		bounds = append(bounds, t.bound(*p.low))
	}
	return bounds
}

// SplitPoints returns primary keys, as PlainBuffers, that divide the table into
// parts of about size bytes, and at most limit of them unless limit is zero.
func (t *Table) SplitPoints(size int64, limit int) ([][]byte, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := t.usable(); err != nil {
		return nil, err
	}
	var points [][]byte
	var row plainbuffer.Row
	sum := int64(0)
	for _, p := range t.partitions {
		p.mu.RLock()
		for at := (place{}); ; at = p.rows.next(at) {
			_, b, ok := p.rows.at(at)
			if !ok || limit > 0 && len(points) >= limit {
				break
			}
			// A row belongs to the part that holds more of its bytes.
			if sum == 0 || sum+int64(len(b)/2) <= size {
				sum += int64(len(b))
				continue
			}
			if _, err := plainbuffer.DecodeRow(b, &row); err != nil {
				p.mu.RUnlock()
				return nil, undecodable(t, err)
			}
			points = append(points, plainbuffer.AppendPrimaryKey(nil, row.PrimaryKey))
			sum = int64(len(b))
		}
		p.mu.RUnlock()
	}
	return points, nil
}
