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

// Broker is what an example is about: where the changes go, and how they are read
// back. Main makes it with Name and Logger; the example's open function sets the rest.
type Broker struct {
	// Name is another one in each run. What open makes at the server has this name,
	// so that it meets nothing that is there already.
	Name string

	// Logger is for the publisher.
	Logger watermill.LoggerAdapter

	// Server is shown: the kind of server, its address, and what holds the changes.
	Server string

	// Topic is what the Router publishes to. Default: Name.
	Topic string

	// Publisher must not return before the server has the message: a change is
	// acked as soon as it does. The Router closes it.
	Publisher message.Publisher

	// Read calls got for each message that a consumer finds, in its order, until
	// ctx ends. got may be called by several goroutines, and keeps nothing of payload.
	Read func(ctx context.Context, got func(uuid string, payload []byte)) error

	// DropsDuplicates is set when the server itself knows a message that comes twice.
	DropsDuplicates bool

	ends []func(context.Context) error
}

// endTimeout bounds what AtEnd was given, all in all.
const endTimeout = 10 * time.Second

func newBroker(logger watermill.LoggerAdapter) *Broker {
	name := fmt.Sprintf("orders-%08x", rand.Uint32())
	return &Broker{Name: name, Topic: name, Logger: logger}
}

// AtEnd registers what undoes a step of open. The last one is called first, and all of
// them are, also when open fails and after an interrupt.
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
