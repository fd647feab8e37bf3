package ack_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/watermill-ots/watermill-ots/ack"
)

// An error of a sink that is down is not the message's fault: it does not count as
// an attempt.
func ExampleTransient() {
	err := fmt.Errorf("write orders: %w", ack.Transient(errors.New("connection refused")))
	fmt.Println(err)
	fmt.Println(ack.IsTransient(err))
	// Output:
	// write orders: connection refused
	// true
}

// A middleware that holds messages back for a while asks the delivery when to
// release them.
func ExampleFromContext() {
	ctx := context.Background() // msg.Context() in a middleware
	d, ok := ack.FromContext(ctx)
	if !ok {
		fmt.Println("the subscriber promises no order: handle the message at once")
		return
	}
	d.HandOff() // the message has its place; the next of its key may come
	<-d.Hurry() // the subscriber drains, or all that it may have in flight waits
	// Output: the subscriber promises no order: handle the message at once
}
