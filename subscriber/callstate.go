package subscriber

import (
	"sync/atomic"
	"time"

	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// answerLate is after how long a read without an answer counts as failing.
const answerLate = 5 * time.Second

// callState is what is known of the reads, checkpoints and lookups of one channel. Times are
// in nanoseconds since 1970, 0: none. Reads include the question for the checkpoint
// to begin with. Any goroutine may ask.
type callState struct {
	asked   atomic.Int64 // when the read under way was sent
	read    atomic.Int64 // when the first failed since the last success
	commit  atomic.Int64
	readErr atomic.Pointer[failedState]
	commErr atomic.Pointer[failedState]
	rows    atomic.Int64 // as read, of lookups
	rowsErr atomic.Pointer[failedState]
}

// failedState is the last failure of a kind of call.
type failedState struct {
	*Failure
	class class
}

// begins notes that a read is under way, until the function is called that it returns.
func (c *callState) begins(now time.Time) (ends func()) {
	c.asked.Store(now.UnixNano())
	return func() { c.asked.Store(0) }
}

// failed notes a failed call.
func (c *callState) failed(f *Failure, class class) {
	since, last := &c.read, &c.readErr
	switch f.Op {
	case "checkpoint":
		since, last = &c.commit, &c.commErr
	case opLookup:
		since, last = &c.rows, &c.rowsErr
	}
	last.Store(&failedState{f, class})
	since.CompareAndSwap(0, f.Time.UnixNano())
}

func (c *callState) readSucceeded()   { c.read.Store(0) }
func (c *callState) commitSucceeded() { c.commit.Store(0) }
func (c *callState) lookupSucceeded() { c.rows.Store(0) }

// failing returns since when reads and checkpoints fail; zero: they do not.
func (c *callState) failing(now time.Time) (reads, commits time.Time) {
	reads, commits = tunnelapi.SinceEpoch(c.read.Load()), tunnelapi.SinceEpoch(c.commit.Load())
	if asked := tunnelapi.SinceEpoch(c.asked.Load()); reads.IsZero() && !asked.IsZero() && now.Sub(asked) >= answerLate {
		reads = asked
	}
	return reads, commits
}

// alone reports whether the failure counts although other channels succeed: calls that
// are refused because there are too many may succeed next time.
func (f *failedState) alone() bool { return f.class != throttled }

// of returns the failure that belongs to a time since when calls fail.
func (f *failedState) of(since time.Time) (last *Failure, alone bool) {
	if f == nil || since.IsZero() || f.Time.Before(since) {
		return nil, !since.IsZero()
	}
	return f.Failure, f.alone()
}
