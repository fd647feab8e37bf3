package subscriber

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// lease is the time for which a tunnel client may count on its channels: until the
// last answered heartbeat is a timeout old. The service gives the channels away a
// little later. Safe for concurrent use.
//
// Two clocks count, and the one that is farther decides: a process that is
// suspended with its machine may find that its monotonic clock stood still, and the
// wall clock may be set back. A wall clock that is set forward ends the lease too
// early, which costs redeliveries and nothing else.
//
// Invariant: over stays true once renew is not called any more.
type lease struct {
	start time.Time    // what mono counts from
	mono  atomic.Int64 // end of the lease, in nanoseconds since start; 0: none was given yet
	wall  atomic.Int64 // the same in nanoseconds since 1970

	began chan struct{} // closed by the first renew
	first sync.Once
}

func newLease() *lease { return &lease{start: time.Now(), began: make(chan struct{})} }

// renew sets the end of the lease: timeout after sent.
func (l *lease) renew(sent time.Time, timeout time.Duration) {
	l.wall.Store(sent.Add(timeout).UnixNano())
	l.mono.Store(max(1, int64(sent.Sub(l.start)+timeout)))
	l.first.Do(func() { close(l.began) })
}

// left returns how long the lease still lasts; it is over at 0 and below. Before
// the first renew there is no lease that could be over.
func (l *lease) left(now time.Time) time.Duration {
	mono := l.mono.Load()
	if mono == 0 {
		return time.Hour
	}
	return min(time.Duration(mono)-now.Sub(l.start), time.Duration(l.wall.Load()-now.UnixNano()))
}

func (l *lease) over(now time.Time) bool { return l.left(now) <= 0 }

// wait waits for the end of the lease. It is false when ctx ends before.
func (l *lease) wait(ctx context.Context) bool {
	select {
	case <-l.began:
	case <-ctx.Done():
		return false
	}
	for {
		left := l.left(time.Now())
		if left <= 0 {
			return true
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C: // it may have been renewed meanwhile
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}
