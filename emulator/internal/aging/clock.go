// Package aging has the clock by which things expire.
package aging

import (
	"sync"
	"time"
)

// Clock follows another clock forward and never back. Deadlines and retentions
// are counted by it: when the service's clock is set back, what was due in an
// hour is still due in an hour, and what the clock skips forward is gone at
// once. It is safe for concurrent use.
type Clock struct {
	now func() time.Time

	mu   sync.Mutex // guards the following
	seen time.Time  // what now said at the last look
	at   time.Time
}

// New returns a clock that begins at what now says. Time that passes between
// the last look at the clock and a step back is lost, so who sets the clock back
// looks at it first.
func New(now func() time.Time) *Clock {
	t := now()
	return &Clock{now: now, seen: t, at: t}
}

// Now returns the clock's time, which is at or after every earlier answer.
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
