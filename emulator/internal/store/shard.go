package store

import (
	"sort"
	"sync"
	"time"
)

// segmentBytes is the size at which a log segment is full. Expired records are
// freed by whole segments, and a page is copied from at most a few of them.
const segmentBytes = 1 << 20

// shard is the log of one partition from its creation to its split or merge.
//
// Invariants:
//   - offsets count records from 0 and never change;
//   - times grow strictly from one write to the next; records of one write
//     share a time;
//   - records at and after visible are not on disk yet and are not read;
//   - writing is the time of a write that has no records yet: a reader of the
//     tail must not report that all records up to that time are known;
//   - a closed shard gets no more records.
type shard struct {
	id      string
	parents []string
	epoch   int32
	bucket  string // on disk
	created time.Time

	mu        sync.RWMutex // guards the following
	segments  []*segment
	next      int64 // offset of the next record
	visible   int64 // readable up to here
	ages      []age // how far times are ahead of the aging clock
	agedAt    int64 // µs of the aging clock, of the last write
	lastTime  int64 // µs, of the last write; children start after it
	writing   int64 // µs, of the write that is being applied; 0 when there is none
	closed    bool
	closedAt  int64 // µs
	closedAge int64 // µs of the aging clock
	trimmed   int64 // offset of the oldest record kept
	trimmedAt int64 // µs, time of the newest record that was dropped
}

// segment is a run of consecutive records, as they will be served.
type segment struct {
	base  int64 // offset of its first record
	data  []byte
	ends  []uint32 // of each record in data
	times []int64  // µs, of each record
}

func (s *segment) end() int64 { return s.base + int64(len(s.ends)) }

// start returns where the i-th record begins in data.
func (s *segment) start(i int) int {
	if i == 0 {
		return 0
	}
	return int(s.ends[i-1])
}

// append adds a record and returns its offset and the bytes as kept.
// s.mu is held by the caller.
func (s *shard) append(record []byte, micros int64) (offset int64, kept []byte) {
	var seg *segment
	if n := len(s.segments); n > 0 {
		seg = s.segments[n-1]
	}
	if seg == nil || (len(seg.data) > 0 && len(seg.data)+len(record) > segmentBytes) {
		seg = &segment{base: s.next}
		s.segments = append(s.segments, seg)
	}
	from := len(seg.data)
	seg.data = append(seg.data, record...)
	seg.ends = append(seg.ends, uint32(len(seg.data)))
	seg.times = append(seg.times, micros)
	offset = s.next
	s.noteAge(offset, micros)
	s.next++
	s.lastTime = max(s.lastTime, micros)
	return offset, seg.data[from:len(seg.data):len(seg.data)]
}

// locate returns the segment that holds offset. s.mu is held.
func (s *shard) locate(offset int64) int {
	return sort.Search(len(s.segments), func(i int) bool { return s.segments[i].end() > offset })
}

// trim drops records that were written before the horizon (µs of the aging
// clock) and reports whether it dropped any. The offset of the oldest record is
// exact; memory is freed by segments.
func (s *shard) trim(horizon int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.trimmed
	for len(s.segments) > 0 {
		seg := s.segments[0]
		old := sort.Search(len(seg.times), func(i int) bool { return s.written(seg.base+int64(i), seg.times[i]) >= horizon })
		if first := seg.base + int64(old); first > s.trimmed {
			s.trimmed = first
			s.trimmedAt = seg.times[old-1]
		}
		if old < len(seg.times) {
			break
		}
		s.segments[0] = nil
		s.segments = s.segments[1:]
	}
	for len(s.ages) > 1 && s.ages[1].offset <= s.trimmed {
		s.ages = s.ages[1:]
	}
	return s.trimmed > before
}

// seek returns the offset of the first readable record at or after micros.
func (s *shard) seek(micros int64) (offset int64, truncated bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	truncated = s.trimmed > 0 && micros <= s.trimmedAt
	n := sort.Search(len(s.segments), func(i int) bool {
		times := s.segments[i].times
		return times[len(times)-1] >= micros
	})
	if n == len(s.segments) {
		return s.visible, truncated
	}
	seg := s.segments[n]
	i := sort.Search(len(seg.times), func(i int) bool { return seg.times[i] >= micros })
	return min(max(seg.base+int64(i), s.trimmed), s.visible), truncated
}

// stamp begins a write and returns the epoch and the time of its records.
func (s *shard) stamp(now time.Time, aged time.Time) (epoch int32, micros int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = max(now.UnixMicro(), s.lastTime+1)
	s.agedAt = aged.UnixMicro()
	return s.epoch, s.writing
}

// finished ends the write that stamp began, whether it added records or not.
func (s *shard) finished() {
	s.mu.Lock()
	s.writing = 0
	s.mu.Unlock()
}

// known returns the time before which no further record can become readable.
// s.mu is held by the caller.
func (s *shard) known(now time.Time) time.Time {
	if s.visible < s.next {
		if n := s.locate(s.visible); n < len(s.segments) {
			seg := s.segments[n]
			return time.UnixMicro(seg.times[s.visible-seg.base])
		}
	}
	if s.writing != 0 {
		return time.UnixMicro(s.writing)
	}
	return now
}

// tail returns the offset of the next record.
func (s *shard) tail() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.next
}

// publish makes records readable up to an offset.
func (s *shard) publish(upTo int64) {
	s.mu.Lock()
	s.visible = max(s.visible, upTo)
	s.mu.Unlock()
}
