package subscriber

import "sync/atomic"

// strayCount counts the calls of one channel's handler (of Handle) that have not
// returned. Those that go on when the channel is over are strays: such a handler does not
// heed its message's context. Each lost session may leave as many behind as fit into the
// window, so the subscription counts them, and while there are MaxInFlight of them no
// further handler is called (law L6).
type strayCount struct {
	calls  atomic.Int64 // plus channelIsOver, once the channel is over
	strays *atomic.Int64
}

// channelIsOver is added to strayCount.calls when the channel is over.
const channelIsOver = 1 << 32

// begin counts a call of the handler.
func (c *strayCount) begin() {
	if c.calls.Add(1) > channelIsOver { // the channel ended a moment ago
		c.strays.Add(1)
	}
}

// end undoes begin.
func (c *strayCount) end() {
	if c.calls.Add(-1) >= channelIsOver {
		c.strays.Add(-1)
	}
}

// channelOver turns the calls that have not returned into strays.
func (c *strayCount) channelOver() {
	c.strays.Add(c.calls.Add(channelIsOver) - channelIsOver)
}
