package subscriber

import (
	"sync"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
)

// runs is a session, as its conns know it.
type runs interface {
	// open starts a run for c, whose mu the caller holds. Nil: the session starts none any more.
	open(c *conn) *channelRun
	// dismiss is called, with c.mu, when the run of c has ended.
	dismiss(c *conn)
}

// reporter takes the statuses that conns report: the SDK's state machine.
type reporter interface {
	UpdateStatus(*tunnel.ChannelStatus)
}

// conn is a channel as the SDK's state machine sees it: it takes the statuses
// that the service sends and reports ours.
//
// Invariants:
//   - version only grows; a status with an older one is ignored. A report of ours has version+1.
//   - At most one run is active, and the session knows c exactly while there is one, so that
//     stop ends it. mu is taken before the session's. Closed is true while there is none, so that the
//     state machine drops the conn with its report; a later OPEN starts a new run
//     in a new conn.
//   - Once dropped no run starts: the state machine forgot the conn, and notices still
//     under way (it sends them from goroutines of their own) are out of date.
type conn struct {
	session  runs
	id       string
	clientID string
	state    reporter

	mu      sync.Mutex
	version int64
	run     *channelRun
	dropped bool
}

// NotifyStatus implements tunnel.ChannelConn. The SDK calls it from a goroutine of its own for each
// channel after each heartbeat, in no order.
func (c *conn) NotifyStatus(st *tunnel.ChannelStatus) {
	c.mu.Lock()
	if c.dropped || st.Version < c.version {
		c.mu.Unlock()
		return
	}
	c.version = st.Version
	active := c.run
	switch st.Status {
	case protocol.ChannelStatus_OPEN:
		if active == nil {
			c.run = c.session.open(c)
		}
		c.mu.Unlock()
	case protocol.ChannelStatus_CLOSING:
		if active != nil {
			c.mu.Unlock()
			active.drain()
			return
		}
		report := c.report(protocol.ChannelStatus_CLOSE)
		c.mu.Unlock()
		c.state.UpdateStatus(report)
	default: // CLOSE, TERMINATED: the channel is another client's, or at its end
		c.mu.Unlock()
		c.fence()
	}
}

// report makes the next status report. The caller holds mu.
func (c *conn) report(status protocol.ChannelStatus) *tunnel.ChannelStatus {
	c.version++
	return &tunnel.ChannelStatus{ChannelId: c.id, Version: c.version, Status: status}
}

// Closed implements tunnel.ChannelConn. The state machine asks only when it drops
// a channel from its table if it is closed, or calls Close if it is not.
func (c *conn) Closed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run == nil {
		c.dropped = true
	}
	return c.run == nil
}

// Close implements tunnel.ChannelConn: the service does not list the channel
// any more, or the session is over.
func (c *conn) Close() {
	c.mu.Lock()
	c.dropped = true
	c.mu.Unlock()
	c.fence()
}

func (c *conn) fence() {
	if r := c.active(); r != nil {
		r.fence(ErrChannelLost)
	}
}

func (c *conn) drain() {
	if r := c.active(); r != nil {
		r.drain()
	}
}

func (c *conn) active() *channelRun {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.run
}

// ended is called by the goroutine of the run as its last act.
func (c *conn) ended(end runEnd) {
	c.mu.Lock()
	c.run = nil
	c.session.dismiss(c)
	var report *tunnel.ChannelStatus
	switch end {
	case endTerminated:
		report = c.report(protocol.ChannelStatus_TERMINATED)
	case endClosed:
		report = c.report(protocol.ChannelStatus_CLOSE)
	}
	c.mu.Unlock()
	if report != nil {
		c.state.UpdateStatus(report)
	}
}
