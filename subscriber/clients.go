package subscriber

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// clients are the tunnel clients of a subscription, WorkerSize of them. Safe for concurrent use.
//
// Invariant: what a session has counted is in its own counts while it is in slots, and then in tally.
type clients struct {
	mu    sync.Mutex
	slots []clientSlot // by worker
	tally tally        // of sessions that have ended
}

// clientSlot is one of the tunnel clients. It has one session at a time.
type clientSlot struct {
	session   *session // nil between sessions
	sessions  int      // begun so far
	lastError *Failure
	lastBeat  time.Time // when the last answered heartbeat of earlier sessions was sent
	lastID    string    // of the client of the session before, at the service
}

// clientName names a tunnel client among those whose calls fail.
func clientName(n int) string { return fmt.Sprintf("worker %d", n) }

// sessionBegins notes the session of client n. of is the number of clients.
func (c *clients) sessionBegins(n, of int, s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slots == nil {
		c.slots = make([]clientSlot, of)
	}
	if c.slots[n].sessions > 0 {
		c.tally[countReconnects]++
	}
	c.slots[n].session = s
	c.slots[n].sessions++
}

// sessionEnds notes that the session of client n is over, and keeps its counts. f is why, nil
// when it was to end.
func (c *clients) sessionEnds(n int, f *Failure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	slot := &c.slots[n]
	t := slot.session.transport
	c.tally.addCounts(&t.counts)
	t.mu.Lock()
	if ok := t.beat.ok; !ok.IsZero() {
		slot.lastBeat = ok
	}
	if t.clientID != "" {
		slot.lastID = t.clientID
	}
	t.mu.Unlock()
	slot.session = nil
	if f != nil {
		slot.lastError = f
	}
}

// lastIDs returns the ids that the clients had in their last sessions, which have ended.
func (c *clients) lastIDs() map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make(map[string]bool, len(c.slots))
	for _, slot := range c.slots {
		ids[slot.lastID] = true
	}
	return ids
}

// heartbeatNow has all clients send a heartbeat.
func (c *clients) heartbeatNow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, slot := range c.slots {
		if slot.session != nil {
			slot.session.heartbeat()
		}
	}
}

// sums adds up everything that was counted.
func (c *clients) sums() tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tally
	for _, slot := range c.slots {
		if slot.session != nil {
			t.addCounts(&slot.session.transport.counts)
		}
	}
	return t
}

// status returns the status of each client.
func (c *clients) status() []ClientStatus {
	c.mu.Lock()
	slots := slices.Clone(c.slots)
	c.mu.Unlock()
	all := make([]ClientStatus, len(slots))
	for n, slot := range slots {
		all[n] = slot.status(n)
	}
	return all
}

func (c clientSlot) status(n int) ClientStatus {
	st := ClientStatus{Worker: n, Reconnects: max(0, c.sessions-1), LastError: c.lastError, LastHeartbeat: c.lastBeat}
	if c.session == nil {
		return st
	}
	t := c.session.transport
	t.mu.Lock()
	defer t.mu.Unlock()
	st.ClientID, st.FailingHeartbeats = t.clientID, t.beat.failures
	if !t.beat.ok.IsZero() {
		st.LastHeartbeat = t.beat.ok
	}
	if st.FailingHeartbeats > 0 {
		st.FailingSince = t.beat.failing
	}
	if f := c.session.lastFailure.Load(); f != nil {
		st.LastError = f
	}
	st.Connected = t.clientID != "" && !t.released && !t.lease.over(time.Now())
	return st
}
