package ack

import (
	"context"
	"errors"
)

// ErrCalledBack is the cancellation cause (context.Cause, with errors.Is) of a
// message that was taken back because an earlier message with the same ordering
// key failed. The message is delivered again, in order, behind the one that
// failed; whatever its handler returns is ignored.
var ErrCalledBack = errors.New("ack: called back: an earlier message with the same ordering key failed")

// Delivery is one delivery of one record, as a message's handler sees it. A
// subscriber that promises order per key puts it into the message's context
// (NewContext); whoever lets messages wait for each other, such as a batching
// middleware, takes it from there (FromContext).
//
// All methods may be called from any goroutine, any number of times, and never
// block. Once the message is acked, nacked, called back or fenced they change
// nothing.
type Delivery interface {
	// Key is the ordering key: deliveries with equal keys are in order. It is
	// empty when the subscriber promises no order for this message.
	Key() string

	// HandOff says: this message waits in a batch that keeps the order of its
	// key. The next message of the key may be delivered at any time from here
	// on, so the message must have its place in the batch before. A message
	// without a key says it too: Hurry depends on knowing who waits.
	HandOff()

	// Begin says: the batch that this message waits in runs. The message stays
	// handed off, but no longer waits for others to join it.
	Begin()

	// CallBack says: this message failed. Every later message of its key that
	// was delivered is taken back: its context is cancelled with a cause that
	// wraps both ErrCalledBack and cause, its outcome is ignored, and it comes
	// again once this message is settled and the handlers of all that were taken
	// back have ended. CallBack must be called before the error is returned, so
	// that the order holds whatever an outer middleware makes of the error. This
	// message's own ack or nack still counts.
	CallBack(cause error)

	// Hurry is closed when waiting for more messages is of no use: the
	// subscriber drains, or everything that it may have in flight waits
	// already. Whoever holds the message back should let it go at once.
	//
	// Ask when the message begins to wait. A channel that was got earlier may
	// have been closed for a reason that is over; one that is open will be
	// closed by the next reason, but a later call may return another.
	Hurry() <-chan struct{}
}

type deliveryKey struct{}

// DeliveryKey is the context key under which FromContext looks. A context type
// of one's own may answer it in its Value method instead of using NewContext.
// It must not be changed.
var DeliveryKey any = deliveryKey{}

// NewContext returns a context that carries d.
func NewContext(ctx context.Context, d Delivery) context.Context {
	return context.WithValue(ctx, deliveryKey{}, d)
}

// FromContext returns the delivery that ctx carries, if any.
func FromContext(ctx context.Context) (Delivery, bool) {
	d, ok := ctx.Value(deliveryKey{}).(Delivery)
	return d, ok
}

// Ender is a Delivery that tells when it is over. A Delivery may implement it;
// without it a batcher goes by the message's context, which a middleware may
// have ended earlier.
type Ender interface {
	// Done is closed when the delivery is over: its message was acked, nacked,
	// called back or fenced, or the time to drain has run out. What is taken back
	// because of a nack has ended before.
	Done() <-chan struct{}

	// WillWait says that the caller is about to wait for Done, and that few
	// contexts will be derived of the message's from here on. It may make
	// waiting cheaper.
	WillWait()
}

// Drainer is a Delivery that tells when its subscriber drains. A Delivery may
// implement it. Hurry alone does not tell: it has other reasons as well.
type Drainer interface {
	// Draining is closed when nothing more is delivered.
	Draining() <-chan struct{}
}

// Parker is a Delivery that tells a handler that works from one that waits. A
// Delivery may implement it, to raise no alarm about a message that waits for a
// free slot or for the end of an outage.
type Parker interface {
	// Park says that the message waits for something other than its handler.
	Park()

	// Resume says that the handler works on the message from this moment on.
	Resume()
}
