package store

import (
	"math"
	"slices"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// Split divides the partition with the most rows in two, at its middle
// partition key. Its shard is closed and two children continue.
func (s *Store) Split(table string) error {
	t, err := s.Table(table)
	if err != nil {
		return err
	}
	return t.reshape(t.split)
}

// SplitAt divides partitions at the given partition keys, in order. If a key
// does not have the table's type or begins a partition already, it does nothing
// and returns an error about that key.
func (s *Store) SplitAt(table string, keys ...plainbuffer.Value) error {
	t, err := s.Table(table)
	if err != nil {
		return err
	}
	return t.reshape(func() error {
		slices.SortFunc(keys, plainbuffer.Value.Compare)
		for i, key := range keys {
			if key.Kind() != t.schema.Key[0].Kind {
				return wire.Invalid("A partition of table '%s' can't begin at a value of type %s: the partition key is %s.", table, kindNames[key.Kind()], kindNames[t.schema.Key[0].Kind])
			}
			if low := t.partitions[t.findValue(key)].low; low != nil && low.Equal(key) || i > 0 && key.Equal(keys[i-1]) {
				return wire.Invalid("A partition of table '%s' begins at key %d of the list already.", table, i)
			}
		}
		for _, key := range keys {
			t.cut(t.findValue(key), key)
		}
		return nil
	})
}

// findValue returns the index of the partition that holds a partition key.
// t.mu is held.
func (t *Table) findValue(key plainbuffer.Value) int {
	return t.find(plainbuffer.AppendOrderedKey(nil, []plainbuffer.Cell{{Value: key}}))
}

// Merge joins the two neighbouring partitions that have the fewest rows
// together. Their shards are closed and one child continues.
func (s *Store) Merge(table string) error {
	t, err := s.Table(table)
	if err != nil {
		return err
	}
	return t.reshape(t.merge)
}

// reshape changes partitions and returns when the change is durable.
func (t *Table) reshape(change func() error) error {
	if err := t.store.commits.revive(); err != nil {
		return err
	}
	t.mu.Lock()
	if err := t.writable(); err != nil {
		t.mu.Unlock()
		return err
	}
	err := errIndexTable(t)
	if t.indexOf == nil {
		err = change()
	}
	if err != nil {
		t.mu.Unlock()
		return err
	}
	round := t.store.commits.enqueue([]mutation{t.snapshot(false)}, nil)
	t.mu.Unlock()
	err = t.store.commits.wait(round)
	t.store.notify(t.id, false)
	return err
}

// split divides a partition. t.mu is held for writing, which excludes every
// other user of the partitions.
func (t *Table) split() error {
	n := 0
	for i, p := range t.partitions {
		if p.rows.count > t.partitions[n].rows.count {
			n = i
		}
	}
	left := t.partitions[n]
	var high *plainbuffer.Value
	if n+1 < len(t.partitions) {
		high = t.partitions[n+1].low
	}
	cut, ok := t.middleKey(&left.rows)
	if !ok {
		cut, ok = between(left.low, high, t.schema.Key[0].Kind)
	}
	if !ok {
		return wire.Invalid("The largest partition of table '%s' holds one partition key only and can't be split.", t.schema.Name)
	}
	t.cut(n, cut)
	return nil
}

// cut divides partition n at a partition key inside it. t.mu is held for
// writing.
func (t *Table) cut(n int, key plainbuffer.Value) {
	left, right := t.partitions[n], newPartition(&key)
	right.rows = *left.rows.cut(right.lowKey)
	if parent := left.shard; parent != nil {
		after := t.closeShard(parent)
		left.shard = t.newShard(parent.epoch+1, after, parent)
		right.shard = t.newShard(parent.epoch+1, after, parent)
	}
	t.partitions = append(t.partitions, nil)
	copy(t.partitions[n+2:], t.partitions[n+1:])
	t.partitions[n+1] = right
}

// merge joins two partitions. t.mu is held for writing.
func (t *Table) merge() error {
	if len(t.partitions) < 2 {
		return wire.Invalid("Table '%s' has one partition only.", t.schema.Name)
	}
	n := 0
	size := func(i int) int { return t.partitions[i].rows.count + t.partitions[i+1].rows.count }
	for i := range len(t.partitions) - 1 {
		if size(i) < size(n) {
			n = i
		}
	}
	left, right := t.partitions[n], t.partitions[n+1]
	left.rows.join(&right.rows)
	if a, b := left.shard, right.shard; a != nil {
		after := max(t.closeShard(a), t.closeShard(b))
		left.shard = t.newShard(max(a.epoch, b.epoch)+1, after, a, b)
	}
	t.partitions = append(t.partitions[:n+1], t.partitions[n+2:]...)
	return nil
}

// closeShard ends a shard's log and returns the time after which its children's
// records must be.
func (t *Table) closeShard(s *shard) (lastTime int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.closedAt = t.store.now().UnixMicro()
	s.closedAge = t.store.aging.Now().UnixMicro()
	return s.lastTime
}

// middleKey returns a partition key that is greater than those of about half of
// the rows. ok is false if all rows have the same one.
func (t *Table) middleKey(r *rows) (cut plainbuffer.Value, ok bool) {
	if r.count < 2 {
		return cut, false
	}
	at, skip := place{}, r.count/2
	for skip >= len(r.leaves[at.leaf].offs) {
		skip -= len(r.leaves[at.leaf].offs)
		at.leaf++
	}
	at.entry = skip
	first, _ := t.partitionKey(r, place{})
	middle, ok := t.partitionKey(r, at)
	if !ok || middle.Compare(first) > 0 {
		return middle, ok
	}
	// The first half is a single partition key: cut after it.
	bound := plainbuffer.AppendOrderedKey(nil, []plainbuffer.Cell{{Value: first}, {Value: plainbuffer.Special(plainbuffer.InfMax)}})
	if len(t.schema.Key) == 1 {
		return t.partitionKey(r, r.next(place{}))
	}
	return t.partitionKey(r, r.seek(bound))
}

// partitionKey returns the first primary key column of the row at p.
func (t *Table) partitionKey(r *rows, p place) (v plainbuffer.Value, ok bool) {
	_, b, ok := r.at(p)
	if !ok {
		return v, false
	}
	var row plainbuffer.Row
	if _, err := plainbuffer.DecodeRow(b, &row); err != nil {
		return v, false
	}
	return row.PrimaryKey[0].Value, true
}

// between returns a partition key inside (low, high), for a partition without
// enough rows to choose from. A nil bound is open.
func between(low, high *plainbuffer.Value, kind plainbuffer.Kind) (v plainbuffer.Value, ok bool) {
	if kind == plainbuffer.Integer {
		lo, hi := int64(math.MinInt64), int64(math.MaxInt64)
		if low != nil {
			lo = low.Integer()
		}
		if high != nil {
			hi = high.Integer()
		}
		mid := lo/2 + hi/2 + (lo%2+hi%2)/2
		return plainbuffer.IntegerValue(mid), mid > lo
	}
	prefix := ""
	if low != nil {
		prefix = low.Str()
	}
	for _, next := range []string{"m", "@", "0", "!"} {
		v = plainbuffer.StringValue(prefix + next)
		if kind == plainbuffer.Binary {
			v = plainbuffer.BinaryValue([]byte(prefix + next))
		}
		if high == nil || v.Compare(*high) < 0 {
			return v, len(prefix) < maxKeyValue
		}
	}
	return v, false
}
