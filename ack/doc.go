// Package ack is the contract between a subscriber and the code that handles its
// messages. It extends Watermill's Ack and Nack: a message's place in the order,
// that it waits in a batch, that it failed, that no more messages will arrive.
//
// A subscriber that promises order puts a Delivery into the context of each message
// (NewContext). Middlewares that hold messages back, such as package batching, read
// it from there (FromContext); a message without one is handled like any other. So
// batching works with every Watermill subscriber, and any subscriber can make it
// keep an order. Ender, Drainer, Parker and Deferrer are optional interfaces of a
// Delivery.
//
// Handlers, batches and failure policies share these errors: Transient marks a
// failure that the message did not cause, ErrCalledBack is the cancellation cause of
// a message that is taken back, PanicError is a recovered panic.
//
// The package imports nothing of this module.
package ack
