package ack

import (
	"context"
	"errors"
)

// ErrCalledBack is the cancellation cause (context.Cause, with errors.Is) of a
// message that was taken back because an earlier message with the same ordering
// key failed. The message is redelivered, in order, after the one that failed.
// What its handler returns is ignored.
var ErrCalledBack = errors.New("ack: called back: an earlier message with the same ordering key failed")

// Delivery is one delivery of one record, as a message's handler sees it. A
// subscriber that promises order per key puts it into the message's context
// (NewContext). A middleware that holds messages back until others arrive, such
// as batching, reads it from there (FromContext).
//
// All methods may be called from any goroutine, any number of times, and never
// block. Once the message is acked, nacked, called back or fenced they have no
// effect.
type Delivery interface {
	// Key is the ordering key: deliveries with equal keys are in order. It is
	// empty when the subscriber promises no order for this message.
	Key() string

	// HandOff reports that this message waits in a batch that keeps the order of
	// its key. The next message of the key may be delivered as soon as HandOff is
	// called, so the message must have its place in the batch by then. Call it for
	// messages without a key too: Hurry depends on which messages are waiting.
	HandOff()

	// Begin reports that the batch this message waits in has started to run. The
	// message stays handed off, but no longer waits for others to join it.
	Begin()

	// CallBack reports that this message failed. Every later message of its key
	// that was delivered is taken back: its context is cancelled with a cause that
	// wraps both ErrCalledBack and cause, and its outcome is ignored. It is
	// redelivered once this message is settled and the handlers of all messages
	// that were taken back have ended. Call CallBack before returning the error, so
	// that the order holds whatever an outer middleware does with the error. This
	// message's own ack or nack still counts.
	//
	// The contexts have ended when CallBack returns, the latest message's first. That
	// includes messages that something else takes back at the same time, and those of a
	// channel that is being lost.
	CallBack(cause error)

	// Hurry returns a channel that is closed when waiting for more messages is
	// pointless: the subscriber drains, or all messages that it may have in flight
	// are waiting already. A middleware that holds the message back should release
	// it at once.
	//
	// Call Hurry when the message begins to wait. A channel from an earlier call
	// may have been closed for a reason that no longer holds. An open channel is
	// closed by the next reason, but a later call may return another channel.
	Hurry() <-chan struct{}
}

type deliveryKey struct{}

// DeliveryKey is the context key that FromContext looks up. A custom context type
// may answer it in its Value method instead of using NewContext. It must not be
// changed.
var DeliveryKey any = deliveryKey{}

// MessageKey is implemented by context keys whose values are only ever put into the
// context of one message, after it was delivered. The context of a Delivery may answer
// them without a search in the context of the subscription.
type MessageKey interface{ OfMessage() }

// NewContext returns a context that carries d.
func NewContext(ctx context.Context, d Delivery) context.Context {
	return context.WithValue(ctx, deliveryKey{}, d)
}

// FromContext returns the delivery that ctx carries, if any.
func FromContext(ctx context.Context) (Delivery, bool) {
	d, ok := ctx.Value(deliveryKey{}).(Delivery)
	return d, ok
}

// Ender is an optional interface of a Delivery that reports when the delivery has
// ended. Without it a batcher uses the message's context, which a middleware may
// end earlier.
type Ender interface {
	// Done returns a channel that is closed when the delivery has ended: its
	// message was acked, nacked, called back or fenced, or the drain timed out.
	// Deliveries that are taken back because of a nack end before the nacked one.
	Done() <-chan struct{}

	// WillWait announces that the caller is about to wait for Done, and will derive
	// few contexts from the message's context after this call. It may make waiting
	// cheaper.
	WillWait()
}

// Drainer is an optional interface of a Delivery that reports when its subscriber
// drains. Hurry alone does not say so: it has other reasons as well.
type Drainer interface {
	// Draining returns a channel that is closed when the subscriber delivers no
	// more messages.
	Draining() <-chan struct{}
}

// Parker is an optional interface of a Delivery that distinguishes a busy handler
// from a waiting one. It keeps alarms from being raised for a message that waits
// for a free slot or for the end of an outage.
type Parker interface {
	// Park reports that the message waits for something other than its handler.
	Park()

	// Resume reports that the handler has started to work on the message.
	Resume()
}
