package store

import (
	"encoding/binary"
	"slices"
	"sort"
	"strings"
)

// Times in the log follow the service's clock, which tests set forward and
// back; within a shard they only grow. How long a record is kept follows the
// aging clock, which never steps back. ages record how far the two clocks were
// apart.

// age is a run of records, starting at offset, whose times are ahead (µs) of
// the aging clock at which they were written.
type age struct{ offset, ahead int64 }

// ageSlack is how much (µs) a record's difference may deviate from its run's.
const ageSlack = 1_000_000

// noteAge begins a run at the record at offset if it does not belong to the
// last run. s.mu is held.
func (s *shard) noteAge(offset, micros int64) {
	ahead := micros - s.agedAt
	if n := len(s.ages); n > 0 && max(ahead-s.ages[n-1].ahead, s.ages[n-1].ahead-ahead) <= ageSlack {
		return
	}
	s.ages = append(s.ages, age{offset, ahead})
}

// written returns when (µs of the aging clock) the record at offset, which has
// the time micros, was written. s.mu is held.
func (s *shard) written(offset, micros int64) int64 {
	n := sort.Search(len(s.ages), func(i int) bool { return s.ages[i].offset > offset })
	if n == 0 {
		return micros
	}
	return micros - s.ages[n-1].ahead
}

// guessAges estimates the ages of a shard that was just loaded, since ages are
// not saved. Records with times ahead of now (µs of the aging clock) were
// written before it, so they are treated as if the newest had just been
// written. The shard is not shared yet.
func (s *shard) guessAges(now int64) {
	s.closedAge = min(s.closedAt, now)
	for _, seg := range s.segments {
		i := sort.Search(len(seg.times), func(i int) bool { return seg.times[i] > now })
		if i == len(seg.times) {
			continue
		}
		last := s.segments[len(s.segments)-1].times
		s.ages = append(s.ages, age{seg.base + int64(i), last[len(last)-1] - now})
		return
	}
}

// keepAges copies the ages of the same table's shards from before. before's
// lock is held, and t is not shared yet.
func (t *Table) keepAges(before *Table) {
	known := make(map[string]*shard, len(before.shards))
	for _, s := range before.shards {
		known[s.id] = s
	}
	for _, s := range t.shards {
		old := known[s.id]
		if old == nil {
			continue
		}
		old.mu.RLock()
		s.ages = append([]age(nil), old.ages...)
		if s.closed {
			s.closedAge = old.closedAge
		}
		old.mu.RUnlock()
		for n := len(s.ages); n > 0 && s.ages[n-1].offset >= s.next; n-- {
			s.ages = s.ages[:n-1]
		}
	}
}

// promise ensures that no record below limit (µs) will be added any more, even
// if the clock is set back. It returns false while such a record may be being
// written.
func (s *shard) promise(limit int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writing != 0 && s.writing < limit {
		return false
	}
	s.lastTime = max(s.lastTime, limit-1)
	return true
}

// autoPrefix is the prefix of the state's keys for the largest auto-increment
// value of each table that has one, followed by the table's id.
const autoPrefix = "auto/"

// enqueue queues changes of a table's rows together with its largest
// auto-increment value.
func (t *Table) enqueue(pending []mutation, s *shard) *round {
	if !t.numbers() {
		return t.store.commits.enqueue(pending, s)
	}
	t.autoMu.Lock()
	defer t.autoMu.Unlock()
	if len(pending) > 0 && t.lastAuto > t.sentAuto {
		t.sentAuto = t.lastAuto
		pending = append(pending, mutation{
			kind: putKey, bucket: stateBucket, key: []byte(autoPrefix + t.id),
			value: binary.BigEndian.AppendUint64(nil, uint64(t.lastAuto)),
		})
	}
	return t.store.commits.enqueue(pending, s)
}

// takeAutos moves auto-increment values from the state to their tables. Values
// without a table belong to one that an earlier version deleted.
func (c *contents) takeAutos() {
	tables := byID(c.tables)
	for key, value := range c.state {
		id, ok := strings.CutPrefix(key, autoPrefix)
		if !ok {
			continue
		}
		delete(c.state, key)
		if t := tables[id]; t != nil && len(value) == 8 {
			t.sentAuto = int64(binary.BigEndian.Uint64(value))
			t.lastAuto = max(t.lastAuto, t.sentAuto)
		}
	}
}

// dropAuto returns the mutation that removes the table's auto-increment value.
func (t *Table) dropAuto() []mutation {
	if !t.numbers() {
		return nil
	}
	return []mutation{{kind: deleteKey, bucket: stateBucket, key: []byte(autoPrefix + t.id)}}
}

// numbers reports whether the table has an auto-increment column.
func (t *Table) numbers() bool {
	return slices.ContainsFunc(t.schema.Key, func(c KeyColumn) bool { return c.AutoIncrement })
}
