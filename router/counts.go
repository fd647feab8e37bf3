package router

import (
	"sync"
	"sync/atomic"
	"time"
)

// counts remembers how often messages have failed, from their first failure to
// their success.
//
// A message may leave without a word, when its channel goes to another client
// while it waits for its next attempt. Entries that were not touched for long
// are therefore dropped now and then; if that hits a message which only waited long, it gets its
// attempts once more. So the map holds at most twice the messages that failed
// within keep, or minSweep.
type counts struct {
	keep time.Duration
	some atomic.Bool // whether there are entries: messages that succeed look here first, which costs them no lock

	mu      sync.Mutex // guards what follows
	entries map[string]failures
	sweepAt int // how many entries there may be before the next sweep
}

type failures struct {
	n    int
	last time.Time
}

// minSweep is how many entries are not worth a sweep.
const minSweep = 1024

// newCounts returns counts for messages that come again after longest at most,
// when nothing holds them up.
func newCounts(longest time.Duration) *counts {
	return &counts{keep: 10*longest + 10*time.Minute, entries: make(map[string]failures), sweepAt: minSweep}
}

// add counts one more failure of id and returns how many there were.
func (c *counts) add(id string, now time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.entries[id]
	f.n, f.last = f.n+1, now
	c.entries[id] = f
	c.some.Store(true)
	if len(c.entries) >= c.sweepAt {
		for id, f := range c.entries {
			if now.Sub(f.last) > c.keep {
				delete(c.entries, id)
			}
		}
		c.sweepAt = max(minSweep, 2*len(c.entries))
	}
	return f.n
}

// forget ends the count of id. One that id's own earlier failure began is seen:
// the attempts of a message follow each other.
func (c *counts) forget(id string) {
	if !c.some.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, id)
	c.some.Store(len(c.entries) > 0)
}
