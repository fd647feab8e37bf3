// Package ack is how a subscriber and those who handle its messages talk about one
// delivery of a message, beyond Watermill's Ack and Nack: in which order it belongs,
// that it waits in a batch, that it failed, that nothing more will come.
//
// A subscriber that promises order puts a Delivery into the context of each message
// (NewContext). Who lets messages wait for each other, such as package batching, takes
// it from there (FromContext); a message without one is handled like any other. So
// batching works with every Watermill subscriber, and any subscriber can give it
// order. Ender, Drainer and Parker are what a Delivery may offer besides.
//
// Errors have meanings that handlers, batches and failure policies share: Transient
// marks one that says nothing about the message, ErrCalledBack is the cause with which
// a message is taken back, PanicError is what a panic becomes.
//
// The package imports nothing of this module.
package ack
