package subscriber

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

// handleAside calls a handler in a goroutine of its own, which may have begun late: after
// the process was suspended, say.
func (h *toHandler) handleAside(d *delivery, msg *message.Message) {
	defer func() {
		if !d.deferred() {
			h.pace.returned()
		}
	}()
	if h.isOver(time.Now()) {
		return
	}
	h.handle(d, msg, h.settle)
}

// handle calls the handler, and ends its message as a message.Router does. It calls settle
// unless the message is deferred.
func (h *toHandler) handle(d *delivery, msg *message.Message, settle func(*delivery, error)) {
	err := errHandlerExited
	d.msg = msg
	h.calls.begin()
	defer func() {
		if d.deferred() {
			return
		}
		defer h.calls.end(1)
		settle(d, h.conclude(d, msg, err))
	}()
	err = h.call(msg)
}

// errHandlerExited is the failure of a handler that ended its goroutine.
var errHandlerExited = errors.New("handler exited without returning (runtime.Goexit)")

// conclude acks or nacks a message as its handler returned, and returns the
// failure. An outcome that the handler has set itself stays. A handler whose message
// was called back or fenced meanwhile has not failed, whatever it returns; while the
// message's context is alive any error is a failure, one of a cancelled call, too.
func (h *toHandler) conclude(d *delivery, msg *message.Message, err error) (failure error) {
	if err != nil && !d.over() {
		h.handlerFailed(d, msg.UUID, err)
	}
	switch {
	case err == nil && !msg.Ack():
		failure = d.failure()
		h.messageNacked(d, msg.UUID, failure)
		return failure
	case err != nil && !msg.Nack():
		return nil
	}
	return err
}

// call calls the handler, which is the user's: it may panic.
func (h *toHandler) call(msg *message.Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = ack.NewPanicError("handler", v)
		}
	}()
	return h.dest.handler(msg)
}

// strayCheck is the pause between two checks whether strays have returned.
const strayCheck = 100 * time.Millisecond

// awaitStrays waits while there are too many strays to call another handler, or until
// nothing is delivered any more.
func (h *toHandler) awaitStrays() {
	var said time.Time
	for h.dest.strays.Load() >= int64(h.cfg.MaxInFlight) && !closed(h.draining) && h.ctx.Err() == nil {
		if now := time.Now(); now.Sub(said) >= logInterval {
			said = now
			h.logger.Error("Handlers of lost channels do not return; no others are called before some of them do", errStrays, watermill.LogFields{"handlers": h.dest.strays.Load()})
		}
		timer := time.NewTimer(strayCheck)
		select {
		case <-timer.C:
		case <-h.draining:
		case <-h.ctx.Done():
		}
		timer.Stop()
	}
}

var errStrays = errors.New("they still run although the contexts of their messages have ended, and there are MaxInFlight of them")

// strayCount counts the calls of one channel's handler (of Handle) that have not
// returned, and the deferred messages that are not settled. Calls that still run when the channel is over are strays: their handler ignores
// its message's context. Each lost session may leave as many behind as fit into the
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

// end undoes begin for n calls.
func (c *strayCount) end(n int) {
	if c.calls.Add(int64(-n)) >= channelIsOver {
		c.strays.Add(int64(-n))
	}
}

// channelOver turns the calls that have not returned into strays.
func (c *strayCount) channelOver() {
	c.strays.Add(c.calls.Add(channelIsOver) - channelIsOver)
}
