package batching

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"
)

// route is what a message asks of the middleware. It lives in the message's
// context and nowhere else: metadata would travel with every copy and into
// every publisher.
type route struct {
	msg     *message.Message // whose route it is; a context may end up in another message
	batcher string
	key     string
	flush   bool
}

// routeKey is the context key of a *route.
type routeKey struct{}

// SetBatcher sends msg to the batcher of that name. It is called in the
// processing step (the handler inside the middleware) or in a middleware around
// it; the last call counts. The choice is kept in the message's context: copies
// of the message, produced messages and publishers do not see it, and each pass
// through the middleware (as with Retry) starts from what was set outside of
// it.
//
// SetBatcher, SetBatchKey and Flush may only be called by the goroutine that
// handles msg.
func SetBatcher(msg *message.Message, name string) { routeOf(msg).batcher = name }

// SetBatchKey sets the batch key of msg, for the batcher that it goes to: one
// batch holds messages of one batch key. Each key has an open batch of its own,
// with a timeout of its own. It is kept as SetBatcher's choice is. The batch key
// of a message that sets none is empty.
func SetBatchKey(msg *message.Message, key string) { routeOf(msg).key = key }

// Flush has the batch that msg joins handled at once, with the messages that
// are in it already. It is kept as SetBatcher's choice is.
func Flush(msg *message.Message) { routeOf(msg).flush = true }

// routeOf returns msg's own route, and gives it one if it has none.
func routeOf(msg *message.Message) *route {
	if r := lookupRoute(msg); r != nil {
		return r
	}
	r := &route{msg: msg}
	msg.SetContext(context.WithValue(msg.Context(), routeKey{}, r))
	return r
}

// lookupRoute returns msg's own route or nil. A route that came along in a
// context which another message handed on is not msg's own.
func lookupRoute(msg *message.Message) *route {
	r, _ := msg.Context().Value(routeKey{}).(*route)
	if r == nil || r.msg != msg {
		return nil
	}
	return r
}
