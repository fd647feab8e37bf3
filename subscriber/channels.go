package subscriber

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// channels are the channels of one subscription: those that it has, and what is kept of those
// that ended. Safe for concurrent use.
//
// Invariants:
//   - A channel on its way from one of its runs to the next is in runs or in left.
//   - What a run has counted is in its own counts while it is in runs, and then in tally.
type channels struct {
	shared

	mu        sync.Mutex
	runs      map[*channelRun]struct{}
	left      map[string]leftChannel // channels whose runs have ended, by id
	tally     tally                  // of runs that have ended
	connected time.Time              // when a client was connected last
}

// open returns the run of a channel, which has not begun.
func (c *channels) open(a assignment) *channelRun {
	r := newChannelRun(&c.shared, a)
	r.metrics.counts.inc(countOpened)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.comesBack(r.id, r.metrics)
	if c.runs == nil {
		c.runs = make(map[*channelRun]struct{})
	}
	c.runs[r] = struct{}{}
	return r
}

// ended takes a run out, and keeps its counts.
func (c *channels) ended(r *channelRun, end runEnd) {
	switch end {
	case endTerminated:
		r.metrics.counts.inc(countFinished)
	case endClosed:
		r.metrics.counts.inc(countClosed)
		if !c.observer.isStopping() && !r.metrics.reopening.Load() {
			r.metrics.counts.inc(countRebalances)
		}
	default:
		r.metrics.counts.inc(countLost)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.runs, r)
	c.leaves(r.id, r.metrics, end)
	c.tally.addCounts(&r.metrics.counts)
}

// all returns the channels that the subscription has.
func (c *channels) all() []*channelRun {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.runs))
}

// outcomes returns those of all channels.
func (c *channels) outcomes() []*outcomes {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*outcomes, 0, len(c.runs))
	for r := range c.runs {
		all = append(all, r.outcomes)
	}
	return all
}

// none reports whether the subscription has no channel.
func (c *channels) none() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.runs) == 0
}

// sums adds up everything that was counted.
func (c *channels) sums() tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tally
	for r := range c.runs {
		t.addCounts(&r.metrics.counts)
	}
	return t
}

// clientConnected notes that the service has admitted a client.
func (c *channels) clientConnected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connected = time.Now()
}

// allAndLeft returns the channels that are read and, from the same moment, those that
// ended and may come back.
func (c *channels) allAndLeft() (runs []*channelRun, left map[string]leftChannel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.runs)), maps.Clone(c.left)
}
