package subscriber

import (
	"sync/atomic"
	"time"
)

// toHandler is the deliverer that calls the handler of Handle. The leader is the goroutine
// that takes the records: as long as handlers are quick it calls them itself, since
// nothing is as cheap as a call (pace decides that). Other handlers get a goroutine each.
//
// A handler that is not quick must not hold up its channel, though. So another goroutine,
// the monitor, checks the leader now and then, and when the leader is still in the same
// call it starts another one; the old leader returns when its handler does.
//
// Invariants:
//   - turn is odd while the leader is in a call, until the handler defers its message. The goroutine that makes it even, by
//     compare-and-swap, decides which goroutine leads: the leader itself after the call, or the
//     monitor, which starts the next leader.
//   - ended is closed by the last leader, once.
type toHandler struct {
	*taker
	pace  *pace
	calls strayCount // of the handler that have not returned

	turn   atomic.Uint64
	asleep atomic.Bool // the monitor waits for wake
	wake   chan struct{}
	ended  chan struct{}
}

// monitorInterval is the pause between two checks of the leader. A handler that is slow
// holds its channel up for twice as long at most, and when handlers turn slow, two of them do so.
const monitorInterval = time.Millisecond

func newToHandler(t *taker) *toHandler {
	h := &toHandler{
		taker: t, pace: newPace(), calls: strayCount{strays: &t.dest.strays},
		wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	t.scope.handler = h
	return h
}

func (h *toHandler) start(done func()) {
	h.dest.handlers.Go(h.lead) // ends when the channel is fenced or drains, or when another one leads
	go func() {                // ends after the last leader
		defer done()
		h.monitor()
	}()
}

func (h *toHandler) over() { h.calls.channelOver() }

// lead hands records to their handlers, until nothing is delivered any more or
// another goroutine leads. When an Unmarshaler ends the goroutine (runtime.Goexit),
// another one leads; when a handler does that in its call, the monitor starts it.
func (h *toHandler) lead() {
	leads := true
	var calling *delivery // the one whose handler is being called
	defer func() {
		if leads || calling != nil && calling.leads { // it has deferred its message and exited
			h.dest.handlers.Go(h.lead) // as in start
		}
	}()
	acked := new(ackBatch)
	defer h.outcomes.check(acked, last)
	soon := func(d *delivery, failure error) {
		if failure != nil {
			h.settle(d, failure)
		} else if h.outcomes.noteAcked(d) {
			h.outcomes.check(acked, passing)
		}
	}
	now := time.Now() // read once a record
	for {
		h.awaitStrays()
		a, at, ok := h.next(acked, now)
		if !ok {
			leads = false
			close(h.ended)
			return
		}
		d, msg := h.messageOf(a, at)
		if msg == nil || !h.bind(d) {
			now = time.Now()
			continue
		}
		h.metrics.delivered(a)
		if !h.pace.inline() {
			h.dest.handlers.Go(func() { h.handleAside(d, msg) }) // ends with the handler
			now = time.Now()
			continue
		}
		d.turn = h.turn.Add(1)
		leads, calling = false, d // for sure
		h.wakeMonitor()
		h.handle(d, msg, soon)
		calling = nil
		if d.deferred() {
			if leads = d.leads; !leads {
				return
			}
			now = time.Now()
			continue
		}
		h.dest.scanner.added()
		if !h.turn.CompareAndSwap(d.turn, d.turn+1) {
			return
		}
		leads = true
		now = time.Now()
		h.pace.called(now.Sub(h.started) - d.at)
	}
}

// userReturned is called when a handler defers its message. What it does after that is quick,
// but may wait for a lock that other channels need, too, which is no reason for another leader.
func (h *toHandler) userReturned(d *delivery) {
	if d.turn == 0 {
		h.pace.returned()
		return
	}
	if d.leads = h.turn.CompareAndSwap(d.turn, d.turn+1); d.leads {
		h.pace.called(time.Since(h.started) - d.at)
	}
}

func (h *toHandler) wakeMonitor() {
	if h.asleep.Load() {
		select {
		case h.wake <- struct{}{}:
		default:
		}
	}
}

// monitor starts another leader when the leader stays in one call.
func (h *toHandler) monitor() {
	timer := time.NewTimer(monitorInterval)
	defer timer.Stop()
	var seen uint64
	for {
		select {
		case <-timer.C:
		case <-h.wake:
			h.asleep.Store(false)
			timer.Reset(monitorInterval)
			continue
		case <-h.ended:
			return
		}
		turn := h.turn.Load()
		switch {
		case turn != seen:
			seen = turn
		case turn%2 == 1:
			if h.turn.CompareAndSwap(turn, turn+1) {
				h.pace.stuck()
				h.dest.handlers.Go(h.lead) // as in start
			}
		default: // no calls since the last check: the next one wakes the monitor
			h.asleep.Store(true)
			if h.turn.Load() == turn {
				continue
			}
			h.asleep.Store(false)
		}
		timer.Reset(monitorInterval)
	}
}
