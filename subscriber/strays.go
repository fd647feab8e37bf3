package subscriber

import (
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill"
)

// A stray is a call of a handler (of Handle) that goes on although its channel is over:
// the handler does not heed its message's context. Each lost session may leave as many
// behind as fit into the window, so they are counted, and while there are MaxInFlight
// of them no further handler is called (law L6).

// runOver is added to channelRun.calls when the run is over.
const runOver = 1 << 32

// strayLook is the pause between two looks whether strays have returned.
const strayLook = 100 * time.Millisecond

// callBegins counts a call of the handler.
func (r *channelRun) callBegins() {
	if r.calls.Add(1) > runOver { // the run ended a moment ago
		r.sub.strays.Add(1)
	}
}

// callEnds undoes callBegins.
func (r *channelRun) callEnds() {
	if r.calls.Add(-1) >= runOver {
		r.sub.strays.Add(-1)
	}
}

// countStrays makes strays of the calls that go on at the end of the run.
func (r *channelRun) countStrays() {
	r.sub.strays.Add(r.calls.Add(runOver) - runOver)
}

// awaitStrays waits while there are too many strays to call another handler, or until
// nothing is delivered any more.
func (r *channelRun) awaitStrays() {
	var said time.Time
	for r.sub.strays.Load() >= int64(r.sub.cfg.MaxInFlight) && !closed(r.draining) && r.ctx.Err() == nil {
		if now := time.Now(); now.Sub(said) >= logInterval {
			said = now
			r.logger.Error("Handlers of lost channels do not return; no others are called before some of them do", errStrays, watermill.LogFields{"handlers": r.sub.strays.Load()})
		}
		timer := time.NewTimer(strayLook)
		select {
		case <-timer.C:
		case <-r.draining:
		case <-r.ctx.Done():
		}
		timer.Stop()
	}
}

var errStrays = errors.New("they go on although the contexts of their messages have ended, and there are MaxInFlight of them")
