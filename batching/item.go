package batching

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

// item is one message in the middleware. It is also the message's context while the
// processing step runs, so that one allocation carries both.
//
// Access to the fields:
//   - route, to, orderKey, weight, turn, ended and draining are written by the
//     message's goroutine before or while it joins, and only read after that;
//   - batch, parking, left and stopping are guarded by Batching.mu;
//   - settled and err belong to the goroutine that runs the batch, until the batch's
//     done channel is closed; after that every goroutine may read them.
type item struct {
	context.Context // the context that the message arrived with
	route

	delivery   ack.Delivery // nil if the subscriber does not provide one
	to         *batcher     // the message's batcher
	orderKey   string       // empty: no order
	weight     int64        // for MaxBytes
	batch      *openBatch   // the batch that it joined; guarded by Batching.mu until the batch is done
	parking    *parking     // nil unless it had to wait before it joined
	turn       *turn        // nil without an ordering key
	ended      <-chan struct{}
	exact      bool            // ended comes from the delivery
	publishing bool            // in a Publisher: the outcome counts even if the context has ended
	draining   <-chan struct{} // closed when its subscriber drains; nil if the delivery is not an ack.Drainer

	// stage makes Begin follow HandOff. Both are called without a lock, by
	// different goroutines: HandOff by the message's own after it joined, Begin
	// by the one that runs the batch, which may be first. The second of the two
	// goroutines calls Begin.
	stage atomic.Uint32

	deferred *deferred // nil if the message's goroutine waits
	told     bool      // DeliveryEnded reports the end; written before it joins

	left     bool  // it left its batch before the batch ran
	stopping bool  // its context has ended, but the subscriber may wait for the outcome; guarded like left
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

// Value implements context.Context: the item's route hides any route outside.
func (it *item) Value(key any) any {
	if _, ok := key.(routeKey); ok {
		return &it.route
	}
	return it.Context.Value(key)
}

// handOff lets the subscriber deliver the next message of the ordering key. It must
// be called after the item has joined, so that later messages of the key get their
// places behind it.
func (it *item) handOff() {
	it.delivery.HandOff()
	if !it.stage.CompareAndSwap(stageJoined, stageHandedOff) {
		it.delivery.Begin() // the batch began before HandOff and left this call to us
	}
}

// begin reports to the subscriber that the item's batch runs.
func (it *item) begin() {
	if it.delivery != nil && !it.stage.CompareAndSwap(stageJoined, stageBegun) {
		it.delivery.Begin()
	}
}

// callBack has the later messages of the item's key taken back.
func (it *item) callBack(cause error) {
	if it.delivery != nil {
		it.delivery.CallBack(cause)
	}
}

// calledBack reports whether this message was taken back: it will be redelivered,
// and its outcome is ignored.
func (it *item) calledBack() bool {
	return it.delivery != nil && it.hasEnded() && errors.Is(context.Cause(it.Context), ack.ErrCalledBack)
}

// hasEnded reports whether the item's context has ended. That of a delivery that reports
// its end need not be asked, which costs more than the rest of a message's outcome.
func (it *item) hasEnded() bool {
	if it.told {
		return it.deferred.over.Load()
	}
	return it.Err() != nil
}

// gone reports whether the subscriber no longer waits for the outcome: the message
// was called back or fenced, the drain timed out, or a subscriber without Deliveries
// stops. Watermill's own subscribers cancel the contexts of their messages when they
// stop, and acks do not count after that (docs/batching.md, Behind other
// subscribers), so a message that still waits is left for redelivery.
//
// An exceeded deadline does not count: only a middleware in between can have set it.
// It ends the waiting, not the message.
func (it *item) gone() bool {
	return !it.publishing && errors.Is(it.Err(), context.Canceled)
}

// goneError returns the outcome of a message that is gone and whose batch did not
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

// outcome returns the outcome of the item, whose batch is done.
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

// listens sets ended and draining. It is called after the processing step: few
// contexts are derived from the message's context after that (see ack.Ender).
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

// processedContext is a message's context after the processing step: it ends with
// the original context, but has the values that the step added. A middleware inside
// the step may have cancelled the context that it left in the message, as Watermill's
// Timeout does; that ends the step, not the message.
type processedContext struct {
	context.Context                 // when it ends
	values          context.Context // what it carries
}

func newProcessedContext(ctx, values context.Context) context.Context {
	// WithoutCancel hides the inner cancellation from context.Cause and from derived
	// contexts, which would find it through Value.
	return processedContext{Context: ctx, values: context.WithoutCancel(values)}
}

// Value implements context.Context.
func (c processedContext) Value(key any) any {
	if v := c.values.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}
