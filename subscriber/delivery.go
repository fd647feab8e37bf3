package subscriber

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/ots"
)

// scope is what all deliveries of one channel share.
type scope struct {
	*ownership
	values  context.Context // of Subscribe's context, without its end
	typed   *atomic.Bool    // handlers ask for records
	offer   offer
	handler *toHandler // nil when messages go to the output
}

// offer is the message that waits for a receiver of the output. Cancelling the delivery, or
// the drain, recalls it.
type offer struct {
	current  atomic.Pointer[delivery]
	recalled chan struct{} // capacity 1: look whether current is still to be delivered
}

// recall tells the deliverer that the delivery which it offers has ended.
func (o *offer) recall(d *delivery) {
	if o.current.Load() == d {
		o.recheck()
	}
}

// recheck makes the deliverer check whether it must still deliver the offered message.
func (o *offer) recheck() {
	select {
	case o.recalled <- struct{}{}:
	default: // the deliverer has not seen an earlier call
	}
}

// delivery is one delivery of one record: the context of its message, and what
// a batching middleware may tell the subscriber.
//
// As a context it has the values of Subscribe's context, and ends with the
// delivery. What a cancellable context needs is made when it is asked for: most
// handlers never do.
//
// Invariants:
//   - ended is set once, under mu, and is the cause of the end.
//   - Once inner is there it ends when the delivery does, with the same cause.
//   - Done always returns the same channel: done, if WillWait came first, and else inner's.
//   - listener is set once, in the call of the handler, and hears of an end that is
//     no settlement.
type delivery struct {
	scope   *scope
	attempt ledger.Attempt
	msg     *message.Message // with Handle; else nil
	turn    uint64           // toHandler.turn in the leader's call of the handler; 0 in a goroutine of its own
	leads   bool             // the leader is still the leader when its handler defers the message
	uuid    string
	changed int64         // change time of the record, µs since 1970; 0 for base data
	at      time.Duration // when its turn came, since the subscription started

	record atomic.Pointer[ots.Record] // nil until it is asked for

	mu      sync.Mutex
	ended   error
	inner   context.Context // nil until it is needed
	end     context.CancelCauseFunc
	done    chan struct{} // nil unless WillWait was called before Done
	trouble *trouble      // nil when all goes well

	listener ack.Listener // nil unless the message is settled after its handler has returned
}

// trouble is what only a delivery needs that does not go well, or that waits
// outside of its handler. delivery.mu guards it.
type trouble struct {
	cause   error         // the cause given to the first CallBack
	alarms  int           // alarms raised because it took longer than StuckAfter
	parked  bool          // it waits for something other than its handler
	resumed time.Duration // when that ended, since the subscription started
}

// since is when the record's turn came: it is offered to the output.
func (d *delivery) since() time.Time { return d.scope.started.Add(d.at) }

// troubled needs mu.
func (d *delivery) troubled() *trouble {
	if d.trouble == nil {
		d.trouble = new(trouble)
	}
	return d.trouble
}

var (
	_ ack.Delivery    = (*delivery)(nil)
	_ ack.Ender       = (*delivery)(nil)
	_ ack.Drainer     = (*delivery)(nil)
	_ ack.Parker      = (*delivery)(nil)
	_ ack.Deferrer    = (*delivery)(nil)
	_ context.Context = (*delivery)(nil)
)

// Value answers the keys of the record and of the delivery. The others are the
// subscription's, but for one that package context asks for to find the
// cause of an end, or to tie a child to it: only a context of its own answers that.
func (d *delivery) Value(key any) any {
	switch key {
	case ots.RecordKey:
		if t := d.scope.typed; !t.Load() {
			t.Store(true)
		}
		return d.recordOf()
	case ack.DeliveryKey:
		return ack.Delivery(d)
	}
	if _, ok := key.(ack.MessageKey); ok {
		return nil // not in the subscription's context, where each search would cost an allocation
	}
	d.mu.Lock()
	inner := d.inner
	if inner == nil && d.ended != nil {
		inner = d.materialize()
	}
	d.mu.Unlock()
	if inner != nil {
		return inner.Value(key)
	}
	return d.scope.values.Value(key)
}

// recordOf returns the record, the same one each time.
func (d *delivery) recordOf() *ots.Record {
	if rec := d.record.Load(); rec != nil {
		return rec
	}
	p := d.attempt.Page().(*page)
	rec := p.record(d.attempt.Index())
	new(recordDecoder).decodeRow(p, d.attempt.Index(), rec)
	rec.Attempt, rec.UUID = d.attempt.Number(), d.uuid
	if !d.record.CompareAndSwap(nil, rec) { // another goroutine was faster
		return d.record.Load()
	}
	return rec
}

// materialize needs mu. It makes the cancellable context.
func (d *delivery) materialize() context.Context {
	if d.inner == nil {
		d.inner, d.end = context.WithCancelCause(d.scope.values)
		if d.ended != nil {
			d.end(d.ended)
		}
	}
	return d.inner
}

// Deadline implements context.Context: there is none.
func (*delivery) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

// Done implements context.Context.
func (d *delivery) Done() <-chan struct{} {
	d.scope.isOver(time.Now()) // or the context would seem to be alive after a suspension of the process
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done != nil {
		return d.done
	}
	return d.materialize().Done()
}

// WillWait makes Done a plain channel, if Done was not called yet. That is
// cheaper than a cancellable context, but package context needs a goroutine for
// each child that it ties to it.
func (d *delivery) WillWait() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done == nil && d.inner == nil && d.ended == nil {
		d.done = make(chan struct{})
	}
}

// Err implements context.Context.
func (d *delivery) Err() error {
	d.scope.isOver(time.Now()) // or the context would seem to be alive after a suspension of the process
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.inner != nil && d.done == nil: // not before Done is closed
		return d.inner.Err()
	case d.ended != nil:
		return context.Canceled
	}
	return nil
}

func (d *delivery) over() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ended != nil
}

// cancel ends the context. Only the first cause counts.
func (d *delivery) cancel(cause error) {
	d.mu.Lock()
	var told ack.Listener
	if d.ended == nil {
		d.ended = cause
		if d.done != nil {
			close(d.done)
		}
		if cause != ErrSettled {
			told = d.listener
		}
	}
	end, cause := d.end, d.ended
	d.mu.Unlock()
	if told != nil {
		told.DeliveryEnded()
	}
	if end != nil {
		end(cause) // outside of mu: it calls what waits for it
	}
	d.scope.offer.recall(d)
}
