package laws

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/ots"
)

// ledger holds what the common log and the checkpoints say, record by record.
// Its input arrives while the test runs, and it takes about 300 bytes per
// record, so that a run can have tens of millions.
type ledger struct {
	records     []record
	byUUID      map[string]int32 // index into records
	keys        map[string]*keyLedger
	channels    map[string]*channelLedger
	lines       int
	versions    int // number of pairs of key and version that were handled
	checkpoints int // number of checkpoints that were sampled
}

// record is what the log says about one record.
//
// Invariants:
//   - first and firstLine belong to the earliest delivery that was handled,
//     latestLine to the latest one.
//   - last and lastLine belong to the latest one that no zombie handled; zero
//     while there is none.
type record struct {
	sequence                        ots.Sequence
	version                         int32
	firstLine, lastLine, latestLine int32
	first, last                     int64 // µs since 1970
}

// keyLedger has a key's records and the versions that were handled.
type keyLedger struct {
	records  []int32
	versions []bool
}

// channelLedger has a channel's records and its checkpoints.
type channelLedger struct {
	records   []int32
	committed []committed // with growing counts
	ended     bool        // TERMINATED, with all of its records committed
}

// committed says how many of the channel's records were committed at a moment.
type committed struct {
	count int
	at    int64 // µs since 1970
}

func newLedger() *ledger {
	return &ledger{byUUID: make(map[string]int32), keys: make(map[string]*keyLedger), channels: make(map[string]*channelLedger)}
}

// add adds the log's next line.
func (l *ledger) add(h handled, zombie bool) {
	l.lines++
	line, at := int32(l.lines), h.at.UnixMicro()
	i, ok := l.byUUID[h.uuid]
	if !ok {
		i = int32(len(l.records))
		l.byUUID[h.uuid] = i
		l.records = append(l.records, record{sequence: h.sequence, version: int32(h.version), firstLine: line, first: at})
		key, channel := l.key(h.key), l.channel(h.channel)
		key.records = append(key.records, i)
		channel.records = append(channel.records, i)
		key.versions = append(key.versions, make([]bool, max(0, h.version+1-len(key.versions)))...)
		if !key.versions[h.version] {
			key.versions[h.version] = true
			l.versions++
		}
	}
	r := &l.records[i]
	r.first, r.latestLine = min(r.first, at), line
	if !zombie {
		r.last, r.lastLine = max(r.last, at), line
	}
}

// committed adds what the service said about a channel's checkpoint. Of several
// moments with the same count only the first is kept, which proves the most.
func (l *ledger) committed(channel string, count int, ended bool, at time.Time) {
	c := l.channel(channel)
	c.ended = ended
	if n := len(c.committed); count == 0 || n > 0 && count <= c.committed[n-1].count {
		return
	}
	l.checkpoints++
	c.committed = append(c.committed, committed{count, at.UnixMicro()})
}

// settled reports whether all records that were handled are committed, so that
// none is redelivered.
func (l *ledger) settled() bool {
	for _, c := range l.channels {
		if n := len(c.committed); !c.ended && len(c.records) > 0 && (n == 0 || c.committed[n-1].count < len(c.records)) {
			return false
		}
	}
	return true
}

func (l *ledger) key(name string) *keyLedger {
	k := l.keys[name]
	if k == nil {
		k = new(keyLedger)
		l.keys[name] = k
	}
	return k
}

func (l *ledger) channel(id string) *channelLedger {
	c := l.channels[id]
	if c == nil {
		c = new(channelLedger)
		l.channels[id] = c
	}
	return c
}

// check returns the first violation of a law that it finds.
func (l *ledger) check() error {
	for key, k := range l.keys {
		if err := checkStream(l.sorted(k.records)); err != nil {
			return fmt.Errorf("L3: key %s: %w", key, err)
		}
	}
	for id, c := range l.channels {
		if err := checkCheckpoints(l.sorted(c.records), c.committed); err != nil {
			return fmt.Errorf("channel %s: %w", id, err)
		}
	}
	return nil
}

// sorted returns the records in the order of the stream.
func (l *ledger) sorted(indexes []int32) []*record {
	records := make([]*record, len(indexes))
	for n, i := range indexes {
		records[n] = &l.records[i]
	}
	slices.SortFunc(records, func(a, b *record) int {
		switch {
		case a.sequence.Less(b.sequence):
			return -1
		case b.sequence.Less(a.sequence):
			return 1
		}
		return 0
	})
	return records
}

// checkStream checks L3 for a key's records in the order of the stream, which
// is that of the sequences: a record is handled first only after all earlier
// ones of its key, and their last handlings are in order too, whatever was
// redelivered in between. (Versions would not do: a write whose response is
// lost is repeated, and the first attempt may reach the table after the
// second.)
func checkStream(records []*record) error {
	var first, last int32
	for n, r := range records {
		if r.firstLine < first {
			return fmt.Errorf("record %d (version %d, %s) was first handled at line %d, one before it at line %d", n, r.version, r.sequence, r.firstLine, first)
		}
		first = r.firstLine
		// A suspected zombie may be the owner, so its lines can excuse others
		// but never count as violations.
		if r.latestLine < last {
			return fmt.Errorf("record %d (version %d, %s) was last handled at line %d, one before it at line %d", n, r.version, r.sequence, r.latestLine, last)
		}
		last = max(last, r.lastLine)
	}
	return nil
}

// checkCheckpoints compares a channel's records with its checkpoints: what was
// committed at a moment had been handled (L1) and was not redelivered later
// (L2).
func checkCheckpoints(records []*record, checkpoints []committed) error {
	var first, last *record // of records[:n], those with the latest handling
	n := 0
	for _, c := range checkpoints {
		if c.count > len(records) {
			return fmt.Errorf("L1: %d records are committed, %d were handled at all", c.count, len(records))
		}
		for ; n < c.count; n++ {
			r := records[n]
			if first == nil || r.first > first.first {
				first = r
			}
			if last == nil || r.last > last.last {
				last = r
			}
		}
		at := time.UnixMicro(c.at)
		if first.first > c.at {
			return fmt.Errorf("L1: %s was among %d committed records at %v, and first handled %v later", first.sequence, c.count, at, time.UnixMicro(first.first).Sub(at))
		}
		if last.last > c.at {
			return fmt.Errorf("L2: %s was among %d committed records at %v, and was redelivered %v later (line %d)", last.sequence, c.count, at, time.UnixMicro(last.last).Sub(at), last.lastLine)
		}
	}
	return nil
}

func TestLedger_finds_each_breach(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	line := func(ms, version int) handled { // version n of key k is the channel's n-th record
		return handled{at: at(ms), channel: "c", key: "k", version: version, uuid: fmt.Sprint(version), sequence: ots.Sequence{Timestamp: int64(version)}}
	}
	for _, tc := range []struct {
		name string
		fill func(*ledger)
		want string // in the error; empty: none
	}{
		{"in order, with a rest that is redelivered", func(l *ledger) {
			l.add(line(1, 1), false)
			l.add(line(2, 2), false)
			l.committed("c", 1, false, at(3))
			l.add(line(4, 2), false)
		}, ""},
		{"a zombie handles what was committed", func(l *ledger) {
			l.add(line(1, 1), false)
			l.committed("c", 1, false, at(2))
			l.add(line(3, 1), true)
		}, ""},
		{"a suspected zombie handles the rest of a key that is redelivered", func(l *ledger) {
			l.add(line(1, 1), false)
			l.add(line(2, 2), false)
			l.add(line(3, 1), false)
			l.add(line(4, 2), true)
		}, ""},
		{"committed, and handled later", func(l *ledger) {
			l.committed("c", 1, false, at(1))
			l.add(line(2, 1), false)
		}, "L1"},
		{"committed, and never handled", func(l *ledger) {
			l.add(line(1, 1), false)
			l.committed("c", 2, false, at(2))
		}, "L1"},
		{"handled, committed, and handled again", func(l *ledger) {
			l.add(line(1, 1), false)
			l.add(line(2, 2), false)
			l.committed("c", 2, false, at(3))
			l.add(line(4, 2), false)
		}, "L2"},
		{"the second of a key is handled before the first", func(l *ledger) {
			l.add(line(1, 2), false)
			l.add(line(2, 1), false)
		}, "L3"},
		{"the first of a key is handled once more, after the second", func(l *ledger) {
			l.add(line(1, 1), false)
			l.add(line(2, 2), false)
			l.add(line(3, 1), false)
		}, "L3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLedger()
			tc.fill(l)
			err := l.check()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("found %v, want %q", err, tc.want)
			}
		})
	}
}
