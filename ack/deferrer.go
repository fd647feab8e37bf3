package ack

// Deferrer is an optional interface of a Delivery whose message may be settled after its
// handler has returned. A middleware that holds messages back then needs no goroutine for
// each of them.
//
// The handler calls Defer before it returns. If Defer returns true, what the handler
// returns has no effect, and Settle or AckAll must be called once for the delivery,
// whatever else happens to it.
type Deferrer interface {
	Delivery

	// Defer leaves the message's outcome to Settle: what the handler returns is ignored.
	// l is called if the delivery ends before it is settled. The handler should return
	// soon, because it may hold up its channel. Defer returns false, and has no effect,
	// if the delivery has ended already or cannot be settled later. Only the goroutine
	// that called the handler may call it.
	Defer(l Listener) bool

	// Settle acks the message if err is nil and nacks it otherwise, as if its handler
	// had returned err.
	Settle(err error)

	// BeginAll is Begin for several deliveries at once, which costs less. All of them
	// must be deferred. Those whose channel is lost meanwhile end before BeginAll returns.
	BeginAll(all []Deferrer)

	// AckAll is Settle(nil) for several deliveries at once, in the given order.
	AckAll(all []Deferrer)
}

// Listener is told about the end of a delivery.
type Listener interface {
	// DeliveryEnded is called once, when the delivery has ended and was not settled: its
	// message was called back or fenced, or the drain timed out. The goroutine that ends
	// the delivery calls it, before CallBack returns. It must not block, and must not
	// call methods of Deliveries or of their contexts.
	DeliveryEnded()
}
