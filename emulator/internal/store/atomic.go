package store

import (
	"strconv"
	"strings"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// applyAtomic makes all changes or none: it makes them in order, and if one
// fails, for whatever reason, undoes those before it. t.mu is held.
func (t *Table) applyAtomic(changes []*Change, groups map[int][]*Change, nowMillis int64) (*round, error) {
	for _, c := range changes {
		first, other := changes[0].Row.PrimaryKey[0].Value, c.Row.PrimaryKey[0].Value
		if !other.Equal(first) {
			return nil, wire.Errorf(wire.CodeDataOutOfRange, "Data out of scope of atomic. Atomic PartKey:%s. Data PartKey:%s", keyText(first), keyText(other))
		}
	}
	for n, group := range groups { // only one: a partition key lies in one partition
		p := t.partitions[n]
		p.lock(t)
		defer p.unlock(t)
		return p.applyAll(t, group, nowMillis)
	}
	return nil, nil
}

// keyText formats a primary key value for messages.
func keyText(v plainbuffer.Value) string {
	if v.Kind() == plainbuffer.Integer {
		return strconv.FormatInt(v.Integer(), 10)
	}
	return strings.ToValidUTF8(v.Str(), "?")
}

// applyAll makes all changes, or returns the error of the first that fails.
// p.mu is held, so no reader sees changes that are undone.
func (p *partition) applyAll(t *Table, group []*Change, nowMillis int64) (*round, error) {
	seq := p.nextSequence(t)
	var undo undo
	undo.begin(p)
	for _, c := range group {
		undo.remember(p, c.key)
		if c.Err = p.apply(t, c, seq, nowMillis); c.Err != nil {
			undo.all(p)
			return nil, c.Err
		}
		seq.RowIndex++
	}
	return p.finishGroup(t), nil
}

// undo takes back changes of one partition, whose lock is held since begin.
type undo struct {
	rows []rowBefore
	log  logMark
}

// rowBefore is a row as it was before a change; a nil row did not exist.
type rowBefore struct{ key, row []byte }

func (b *rowBefore) restore(rows *rows) {
	if b.row == nil {
		rows.delete(b.key)
		return
	}
	rows.put(b.key, b.row)
}

func (u *undo) begin(p *partition) {
	if p.shard != nil {
		u.log = p.shard.mark()
	}
}

// remember saves the row's current value. Rows are never changed in place.
func (u *undo) remember(p *partition, key []byte) {
	row, ok := p.rows.get(key)
	if !ok {
		row = nil
	}
	u.rows = append(u.rows, rowBefore{key, row})
}

// all restores rows and log, the latest change first.
func (u *undo) all(p *partition) {
	for i := len(u.rows) - 1; i >= 0; i-- {
		u.rows[i].restore(&p.rows)
	}
	p.undoIndexes()
	if p.shard != nil {
		p.shard.rewind(u.log)
		p.shard.finished()
	}
	p.writer.pending = p.writer.pending[:0]
}

// logMark marks the end of a shard's log at some moment.
type logMark struct{ next, lastTime int64 }

func (s *shard) mark() logMark {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return logMark{s.next, s.lastTime}
}

// rewind removes the records after the mark. None of them may be readable yet.
func (s *shard) rewind(m logMark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := len(s.segments) - 1; n >= 0 && s.segments[n].end() > m.next; n-- {
		seg := s.segments[n]
		keep := max(m.next-seg.base, 0)
		if keep == 0 {
			s.segments = s.segments[:n]
			continue
		}
		// A copy, since readers may hold views of the data after the records
		// kept.
		kept := &segment{base: seg.base, ends: seg.ends[:keep:keep], times: seg.times[:keep:keep]}
		kept.data = seg.data[:seg.ends[keep-1]:seg.ends[keep-1]]
		s.segments[n] = kept
	}
	s.next, s.lastTime = m.next, m.lastTime
	for n := len(s.ages); n > 0 && s.ages[n-1].offset >= m.next; n-- {
		s.ages = s.ages[:n-1]
	}
}
