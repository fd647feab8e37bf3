package forward

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// Broker is the destination of an example: where the changes go, and how they
// are read back. Main creates it with Name and Logger; the example's open
// function sets the rest.
type Broker struct {
	// Name is different in each run. What open creates on the server has this
	// name, so that it does not collide with anything that exists.
	Name string

	// Logger is for the publisher.
	Logger watermill.LoggerAdapter

	// Server is printed: the kind of server, its address, and what holds the
	// changes.
	Server string

	// Topic is what the Router publishes to. Default: Name.
	Topic string

	// Publisher must not return before the server has the message: a change is
	// acked as soon as Publish returns. The Router closes it.
	Publisher message.Publisher

	// Read calls got for each message that a consumer receives, in order, until
	// ctx ends. got may be called concurrently, and does not keep payload.
	Read func(ctx context.Context, got func(uuid string, payload []byte)) error

	// DropsDuplicates says that the server itself detects a message that is
	// published twice.
	DropsDuplicates bool

	ends []func(context.Context) error
}

// endTimeout bounds all functions given to AtEnd together.
const endTimeout = 10 * time.Second

func newBroker(logger watermill.LoggerAdapter) *Broker {
	name := fmt.Sprintf("orders-%08x", rand.Uint32())
	return &Broker{Name: name, Topic: name, Logger: logger}
}

// AtEnd registers a function that undoes a step of open. All of them are called
// in reverse order, also if open fails and after an interrupt.
func (b *Broker) AtEnd(f func(context.Context) error) { b.ends = append(b.ends, f) }

// end undoes what open did.
func (b *Broker) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	var errs []error
	for _, f := range slices.Backward(b.ends) {
		errs = append(errs, f(ctx))
	}
	return errors.Join(errs...)
}
