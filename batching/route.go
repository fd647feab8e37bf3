package batching

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

// route holds a message's choices: its batcher, its batch key, and Flush. It is kept
// in the message's context only: metadata would be copied with the message and sent
// by publishers.
type route struct {
	msg     *message.Message // the message it belongs to; its context may be given to another message
	batcher string
	key     string
	flush   bool
}

// routeKey is the context key of a *route.
type routeKey struct{}

// OfMessage implements ack.MessageKey: a route is in the context of its message only.
func (routeKey) OfMessage() {}

var _ ack.MessageKey = routeKey{}

// SetBatcher sends msg to the batcher of that name. Call it in the processing step
// (the handler inside the middleware) or in a middleware around it; the last call
// counts. The choice is kept in the message's context: copies of the message,
// produced messages and publishers do not see it. Each pass through the middleware
// (as with Retry) starts with the choice that was made outside of it.
//
// SetBatcher, SetBatchKey and Flush may only be called by the goroutine that
// handles msg.
func SetBatcher(msg *message.Message, name string) { routeOf(msg).batcher = name }

// SetBatchKey sets the batch key of msg, for the batcher that it goes to: one batch
// holds messages of one batch key. Each key has its own open batch with its own
// timeout. The key is kept like SetBatcher's choice. By default it is empty.
func SetBatchKey(msg *message.Message, key string) { routeOf(msg).key = key }

// Flush makes the batch that msg joins due at once, with the messages that are in it
// already. It is kept like SetBatcher's choice.
func Flush(msg *message.Message) { routeOf(msg).flush = true }

// routeOf returns msg's own route, and adds one if it has none.
func routeOf(msg *message.Message) *route {
	if r := lookupRoute(msg); r != nil {
		return r
	}
	r := &route{msg: msg}
	msg.SetContext(context.WithValue(msg.Context(), routeKey{}, r))
	return r
}

// lookupRoute returns msg's own route or nil. A route in a context that was taken
// from another message is not msg's own.
func lookupRoute(msg *message.Message) *route {
	r, _ := msg.Context().Value(routeKey{}).(*route)
	if r == nil || r.msg != msg {
		return nil
	}
	return r
}
