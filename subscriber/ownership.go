package subscriber

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
)

// client is the session of the tunnel client that owns a channel, as the channel knows it.
type client interface {
	// expire ends the session at once, which fences all of its channels: its lease is over.
	expire()
	// heartbeat has the next tick send a heartbeat: the service may see the client differently.
	heartbeat()
}

// ownership is one ownership of a channel: whether the channel is still ours, and what is
// in flight meanwhile. All parts of a channel share it.
//
// It ends in two steps. drain closes draining: nothing more is read or delivered, and
// what is in flight may still be settled and committed. fence ends it for good.
//
// Invariants:
//   - When ctx ends the tracker is fenced: nothing is in flight, delivered or committed any more.
//   - No handler is called, no message is offered and nothing is committed once the lease is over:
//     each of them looks at the clock itself (isOver), because the session's timer may be late
//     when the process was suspended.
type ownership struct {
	*channelInfo
	metrics  *channelMetrics
	observer *observer
	tracker  *ledger.Tracker

	client client
	lease  *lease // of the client
	reopen *reopenings

	ctx    context.Context // ends, with the cause, when the channel is fenced or its run is over
	cancel context.CancelCauseFunc

	draining  chan struct{} // closed by drain
	drainOnce sync.Once

	refusedOnce sync.Once

	// takingBack serializes taking back: the tracker takes back or fences records, and then
	// their contexts end. A goroutine that holds it and finds that the tracker took its
	// records back earlier can rely on their contexts having ended. No user code runs under it.
	takingBack sync.Mutex
}

// drain ends reading and delivering. It reports whether this call began that. What is
// in flight may be settled until CloseTimeout, and the last commit takes its
// time: a call that gets no answer is given up then.
func (o *ownership) drain() (begun bool) {
	o.drainOnce.Do(func() {
		begun = true
		o.metrics.counts.inc(countDrains)
		close(o.draining)
		late := time.AfterFunc(o.cfg.CloseTimeout+lastCommitTimeout, func() { o.fence(errDrainOver) })
		context.AfterFunc(o.ctx, func() { late.Stop() })
	})
	return begun
}

// fence ends the ownership so that nothing its parts do counts any more: another client may
// own the channel. The contexts of messages in flight end with the cause.
func (o *ownership) fence(cause error) {
	o.giveUp(cause)
	o.cancel(cause)
}

// giveUp ends the messages in flight: their outcomes do not count any more.
func (o *ownership) giveUp(cause error) {
	if position, _ := o.metrics.position(o.tracker); position != 0 { // before the tracker forgets what is in flight
		o.metrics.fenced.CompareAndSwap(0, position)
	}
	o.takingBack.Lock()
	live := o.tracker.Fence()
	endAll(live, cause)
	o.takingBack.Unlock()
	o.metrics.counts.add(countAbandoned, len(live))
	o.observer.heldBack(len(live))
}

// isOver reports whether the lease is over, so that another client may own the channel
// already. Then it ends the session.
func (o *ownership) isOver(now time.Time) bool {
	if o.lease == nil || !o.lease.over(now) {
		return false
	}
	o.client.expire()
	return true
}

// refused is called when the service says that the channel or the client is not ours. It
// fences the channel, and a heartbeat finds out which of them it is. If the service then
// hands the channel out to this client all the same, it is opened again after a pause.
func (o *ownership) refused(op string, err error) {
	o.refusedOnce.Do(func() { o.reopen.refused(o.id, op) }) // the reader and the committer may both find it out
	o.logger.Info("Channel lost", watermill.LogFields{"err": err.Error()})
	o.fence(ErrChannelLost)
	o.client.heartbeat()
}

// endAll ends the contexts of deliveries, which the tracker gave in order, the last one
// first (law L3): a message that leaves its batch lets the batch behind it run, and by
// then those of its key that come later must have ended, too.
func endAll(deliveries []any, cause error) {
	for _, d := range slices.Backward(deliveries) {
		d.(interface{ cancel(cause error) }).cancel(cause)
	}
}
