package subscriber

import "time"

// comesBackMargin and HeartbeatInterval are how long a channel that its client has
// given back, or lost, may take to come back to a client that is connected: the
// answer to the next heartbeat hands it out. After that another client has it.
const comesBackMargin = 10 * time.Second

// leaves keeps what the next run of a channel, and Status, have to know of a run that ends. The
// caller holds mu.
func (c *channels) leaves(id string, m *channelMetrics, end runEnd) {
	failing := m.reopening.Load()
	delete(c.left, id)
	if end == endTerminated || end == endClosed && !failing {
		return // it is at its end, or another client's
	}
	l := leftChannel{at: time.Now(), base: m.base.Load(), position: m.fenced.Load(), since: m.since().UnixNano()}
	if calls := &m.calls; failing && calls.read.Load() != 0 {
		l.failingSince, l.failing = calls.read.Load(), calls.readErr.Load()
	}
	if c.left == nil {
		c.left = make(map[string]leftChannel)
	}
	c.left[id] = l
}

// comesBack gives a run what the run before has left. The caller holds mu.
func (c *channels) comesBack(id string, m *channelMetrics) {
	l, ok := c.left[id]
	if !ok {
		return
	}
	delete(c.left, id)
	m.before = l
	if l.failing != nil {
		m.calls.readErr.Store(l.failing)
		m.calls.read.Store(l.failingSince)
	}
}

// expected removes from left the channels that are not expected back. While a client is
// connected, those that stay away for long are not: another client has them.
func (c *channels) expected(left map[string]leftChannel, now time.Time, connected bool) {
	if !connected {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, l := range left {
		from := l.at
		if c.connected.After(from) {
			from = c.connected
		}
		if now.Sub(from) <= c.cfg.HeartbeatInterval+comesBackMargin {
			continue
		}
		delete(left, id)
		if c.left[id].at.Equal(l.at) {
			delete(c.left, id)
		}
	}
}
