package batching

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

// item is one message on its way through the middleware. It is also the
// context that the message has meanwhile, so that one allocation carries both.
//
// Who may touch what:
//   - route, to, orderKey, weight, turn, ended and draining are written by the
//     message's goroutine before or while it joins, and only read after that;
//   - batch, parking, left and stopping are guarded by Batching.mu;
//   - settled and err belong to the goroutine that runs the batch, until the
//     batch's done channel is closed; then anyone may read them.
type item struct {
	context.Context // what the message had when it came
	route

	delivery   ack.Delivery // nil with a subscriber that gives none
	to         *batcher     // where it goes
	orderKey   string       // empty: no order
	weight     int64        // for MaxBytes
	batch      *openBatch   // that it joined; guarded by Batching.mu until that is done
	parking    *parking     // nil unless it had to wait before it joined
	turn       *turn        // nil without an ordering key
	ended      <-chan struct{}
	exact      bool            // ended comes from the delivery
	publishing bool            // of a Publisher: its context does not say whether it counts
	draining   <-chan struct{} // closed when its subscriber drains; nil if it does not tell

	// stage makes Begin follow HandOff. Both are called without a lock, by
	// different goroutines: HandOff by the message's own after it joined, Begin
	// by the one that runs the batch, which may come first. The one that comes second
	// calls Begin.
	stage atomic.Uint32

	left     bool  // it left its batch before that ran
	stopping bool  // its context has ended, but the subscriber may wait for the outcome; guarded as left is
	settled  bool  // its outcome is known
	err      error // the outcome
}

// Stages of an item.
const (
	stageJoined uint32 = iota
	stageHandedOff
	stageBegun
)

func newItem(msg *message.Message) *item {
	it := &item{Context: msg.Context()}
	if r := lookupRoute(msg); r != nil {
		it.route = *r // chosen by a middleware outside of this one
	}
	it.route.msg = msg
	it.delivery, _ = ack.FromContext(it.Context)
	return it
}

// Value implements context.Context: the item's route covers any route outside.
func (it *item) Value(key any) any {
	if _, ok := key.(routeKey); ok {
		return &it.route
	}
	return it.Context.Value(key)
}

// handOff lets the subscriber deliver the next message of the ordering key. It
// must be called after the item has joined: from then on whatever comes later
// for the key finds its place behind it. It returns the channel that hurries
// the item, nil if there is none.
func (it *item) handOff() (hurry <-chan struct{}) {
	if it.delivery == nil {
		return nil
	}
	// Before HandOff: that may be what makes the subscriber hurry all who wait,
	// with the channel of that moment.
	hurry = it.delivery.Hurry()
	it.delivery.HandOff()
	if !it.stage.CompareAndSwap(stageJoined, stageHandedOff) {
		it.delivery.Begin() // the batch began first and left this to us
	}
	return hurry
}

// begin tells the subscriber that the item's batch runs.
func (it *item) begin() {
	if it.delivery == nil {
		return
	}
	if !it.stage.CompareAndSwap(stageJoined, stageBegun) {
		it.delivery.Begin()
	}
}

// callBack has the later messages of the item's key taken back.
func (it *item) callBack(cause error) {
	if it.delivery != nil {
		it.delivery.CallBack(cause)
	}
}

// calledBack reports whether the message was taken back itself: it will come
// again, and nobody cares for its outcome.
func (it *item) calledBack() bool {
	return it.delivery != nil && it.Err() != nil && errors.Is(context.Cause(it.Context), ack.ErrCalledBack)
}

// gone reports whether the subscriber does not wait for the outcome any more:
// the message was called back or fenced, the time to drain is over, or, with a
// subscriber that gives no Delivery, it stops. Watermill's own subscribers end
// the contexts of their messages to stop, and no ack counts after that
// (docs/batching.md, Behind other subscribers), so a message that still waits
// is left for redelivery.
//
// A deadline only a middleware in between can have set. It ends the waiting, not
// the message.
func (it *item) gone() bool {
	return !it.publishing && errors.Is(it.Err(), context.Canceled)
}

// goneError is the outcome of a message that is gone and whose batch did not
// run. It wraps both the context's error and its cause.
func (it *item) goneError() error {
	if it.calledBack() {
		return errCalledBack
	}
	err, cause := it.Err(), context.Cause(it.Context)
	if errors.Is(cause, err) {
		return fmt.Errorf("batching: message ended before its batch began: %w", cause)
	}
	return fmt.Errorf("batching: message ended before its batch began: %w: %w", err, cause)
}

// outcome is what became of the item in its batch, which is done.
func (it *item) outcome() error {
	switch {
	case it.calledBack():
		return errCalledBack
	case it.left && it.gone():
		return it.goneError()
	case it.left:
		return errRevoked
	}
	return it.err
}

// listens finds out how to learn of the item's end. It is called when the
// processing step is over: few contexts are derived of the message's from then on.
func (it *item) listens() {
	if e, ok := it.delivery.(ack.Ender); ok {
		e.WillWait()
		it.ended, it.exact = e.Done(), true
	} else {
		it.ended = it.Done()
	}
	if d, ok := it.delivery.(ack.Drainer); ok {
		it.draining = d.Draining()
	}
}

// processedContext is a message's context after the processing step: it ends as
// it did before, but keeps the values that the step put in. A middleware within
// the step may have ended the context that it left in the message, as Watermill's
// Timeout does; that ends the step, not the message.
type processedContext struct {
	context.Context                 // when it ends
	values          context.Context // what it carries
}

func newProcessedContext(ctx, values context.Context) context.Context {
	// WithoutCancel hides the inner cancellation from context.Cause and from
	// contexts derived of this one, which find it through Value.
	return processedContext{Context: ctx, values: context.WithoutCancel(values)}
}

// Value implements context.Context.
func (c processedContext) Value(key any) any {
	if v := c.values.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}
