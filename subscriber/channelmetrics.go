package subscriber

import (
	"cmp"
	"sync/atomic"
	"time"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// leftChannel is what is kept of a channel when its run ends, for the run that opens
// it again and for Status in between. Times are in nanoseconds since 1970, 0: none.
type leftChannel struct {
	at       time.Time // when the run ended; zero: there was none
	base     bool
	position int64 // up to where all changes are acked, as far as is known
	since    int64 // when the first of the runs that had no position was opened

	failingSince int64        // when the first read without a success since was made
	failing      *failedState // nil: the channel could be read
}

// from is the time from which the lag of the channel counts.
func (l leftChannel) from() time.Time { return tunnelapi.SinceEpoch(cmp.Or(l.position, l.since)) }

// channelMetrics is what Status shows of one channel besides its tracker. The channel's parts
// write it as they work, any goroutine may read it. Times are in nanoseconds since
// 1970, 0: never.
type channelMetrics struct {
	observer *observer
	counts   counts
	calls    callState

	opened    time.Time
	before    leftChannel  // what the channel's earlier run has left
	begun     atomic.Bool  // the checkpoint is known
	base      atomic.Bool  // valid once begun
	newest    atomic.Int64 // change time of the newest record read
	caughtUp  atomic.Int64 // when the last read was sent that said that there was no more
	poll      atomic.Int64 // the pause after the last read
	committed atomic.Int64 // when the stored checkpoint was last known to be up to date
	blocked   atomic.Bool  // the reader waits for the window
	reopening atomic.Bool  // the service refused the channel's calls; it pauses
	lastError atomic.Pointer[Failure]
	fenced    atomic.Int64 // position at which its messages were given up; afterwards nothing is in flight
}

// begins notes that the checkpoint is known.
func (m *channelMetrics) begins(base bool) {
	m.base.Store(base)
	m.committed.Store(time.Now().UnixNano())
	m.begun.Store(true)
}

// pageRead counts a page, which pause follows. It is called before the tracker has the
// page: what is delivered was counted as read.
func (m *channelMetrics) pageRead(p *page, pause time.Duration) {
	m.counts.add(countRecords, len(p.rows))
	m.counts.add(countBytes, p.size)
	switch {
	case len(p.rows) == 0:
		m.counts.inc(countReadsEmpty)
	case pause == 0:
		m.counts.inc(countReadsFull)
	default:
		m.counts.inc(countReadsPartial)
	}
}

// readUpTo notes how far a page takes the channel, once the tracker has it.
func (m *channelMetrics) readUpTo(p *page, pause time.Duration, more bool) {
	m.poll.Store(int64(pause))
	m.calls.readSucceeded()
	if p.newest != 0 {
		m.newest.Store(time.UnixMicro(p.newest).UnixNano())
	}
	if !more {
		m.caughtUp.Store(p.asked.UnixNano())
	}
}

// delivered counts a message that was taken from the output, or whose handler is called.
func (m *channelMetrics) delivered(a ledger.Attempt) {
	if a.Number() > 1 {
		m.counts.inc(countRedelivered)
	} else {
		m.counts.inc(countFirstDelivered)
	}
}

// callFailed counts a failed call. The caller has seen that the channel was not
// fenced when the call failed.
func (m *channelMetrics) callFailed(op string, err error) {
	f := m.observer.calls.note(op, err)
	m.lastError.Store(f)
	m.calls.failed(f, tunnelapi.Classify(err))
	switch f.Op {
	case "readrecords":
		m.counts.inc(countReadsFailed)
	case "checkpoint", "getcheckpoint":
		m.counts.inc(countCheckpointsFailed)
	}
}

// since is when the channel was opened, by the first of the runs that had no position.
func (m *channelMetrics) since() time.Time {
	if m.before.since != 0 {
		return tunnelapi.SinceEpoch(m.before.since)
	}
	return m.opened
}

// position returns the time up to which all changes are acked, in nanoseconds since
// 1970 and as far as is known, and what the tracker holds. It is 0 for base data and
// while nothing is known.
func (m *channelMetrics) position(tracker *ledger.Tracker) (position int64, held ledger.Stats) {
	// The newest record read is loaded before the tracker is asked: then a record
	// that the tracker does not have any more is settled, not on its way to it.
	position = max(m.newest.Load(), m.caughtUp.Load(), m.before.position)
	held = tracker.Stats()
	switch p, ok := held.Oldest.Page.(*page); {
	case m.base.Load():
		return 0, held
	case m.fenced.Load() != 0:
		position = m.fenced.Load()
	case ok:
		position = time.UnixMicro(p.record(held.Oldest.Index).Sequence.Timestamp).UnixNano()
	}
	return position, held
}
