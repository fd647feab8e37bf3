// Package aging provides the clock by which clients, records and shards expire.
package aging

import (
	"sync"
	"time"
)

// Clock follows another clock forward and never back. Deadlines and retentions
// are counted by it: when the service's clock is set back, what was due in an
// hour is still due in an hour, and when it jumps forward, everything due in
// between expires at once. It is safe for concurrent use.
type Clock struct {
	now func() time.Time

	mu   sync.Mutex // guards the following
	seen time.Time  // what now returned at the last reading
	at   time.Time
}

// New returns a clock that begins at now(). Time that passes between the last
// reading and a step back is lost, so call Now before setting the clock back.
func New(now func() time.Time) *Clock {
	t := now()
	return &Clock{now: now, seen: t, at: t}
}

// Now returns the clock's time, which is never before an earlier result.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.now()
	if d := t.Sub(c.seen); d > 0 {
		c.at = c.at.Add(d)
	}
	c.seen = t
	return c.at
}
