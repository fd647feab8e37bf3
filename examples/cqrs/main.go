// Cqrs handles the changes of a table with Watermill's CQRS component: each kind of change is an
// event with a handler of its own, which gets a struct.
//
//	go run ./examples/cqrs
//
// needs only Go: Tablestore runs inside the process. It writes orders, pays and cancels
// some, ends by itself, and checks that the handlers saw what was written.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Events are what changes of the table mean. Their fields are columns.
type (
	// OrderPlaced is a new row.
	OrderPlaced struct {
		ID     int64   `ots:"id,required"`
		Amount float64 `ots:"amount,required"`
	}
	// OrderPaid is an update of a row, which holds what changed.
	OrderPaid struct {
		ID   int64 `ots:"id,required"`
		Paid *bool `ots:"paid"`
	}
	// OrderCancelled is a deleted row.
	OrderCancelled struct {
		ID int64 `ots:"id,required"`
	}
)

const orders = 100

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "cqrs:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	em, err := emulator.Start(emulator.Options{Instance: "shop", AccessKeyID: "id", AccessKeySecret: "secret"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, em.Close()) }()
	if err := em.CreateTable("orders", emulator.Key("id", emulator.Integer)); err != nil {
		return err
	}
	sub, err := subscriber.New(subscriber.Config{
		Endpoint: em.Endpoint(), Instance: "shop", AccessKeyID: "id", AccessKeySecret: "secret",
		Tunnel: subscriber.TunnelSpec{Type: subscriber.Stream}, MaxPollInterval: 100 * time.Millisecond,
	}, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sub.Close()) }()
	if err := sub.SubscribeInitialize("orders/events"); err != nil {
		return err
	}
	var placed, paid, cancelled atomic.Int64
	router, err := eventRouter(sub,
		cqrs.NewGroupEventHandler(func(context.Context, *OrderPlaced) error { placed.Add(1); return nil }),
		cqrs.NewGroupEventHandler(func(_ context.Context, e *OrderPaid) error {
			if e.Paid != nil && *e.Paid {
				paid.Add(1)
			}
			return nil
		}),
		cqrs.NewGroupEventHandler(func(context.Context, *OrderCancelled) error { cancelled.Add(1); return nil }),
	)
	if err != nil {
		return err
	}
	ran := make(chan error, 1)
	go func() { ran <- subscriber.RunRouter(context.Background(), router, sub) }() // ends with router.Close
	defer func() { err = errors.Join(err, router.Close(), <-ran) }()
	if err := write(em); err != nil {
		return err
	}
	for placed.Load() < orders || paid.Load() < orders/2 || cancelled.Load() < orders/4 {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%d placed, %d paid, %d cancelled: %w", placed.Load(), paid.Load(), cancelled.Load(), context.Cause(ctx))
		}
	}
	fmt.Fprintf(out, "%d orders placed, %d paid, %d cancelled, as it was written\n", placed.Load(), paid.Load(), cancelled.Load())
	return nil
}

// eventRouter returns a Router with a group of handlers for the changes of the table.
func eventRouter(sub message.Subscriber, handlers ...cqrs.GroupEventHandler) (*message.Router, error) {
	marshaler, err := subscriber.NewEventMarshaler(map[string]any{
		"orders.put": OrderPlaced{}, "orders.update": OrderPaid{}, "orders.delete": OrderCancelled{},
	}, subscriber.EventOptions{})
	if err != nil {
		return nil, err
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	processor, err := cqrs.NewEventGroupProcessorWithConfig(router, cqrs.EventGroupProcessorConfig{
		GenerateSubscribeTopic: func(p cqrs.EventGroupProcessorGenerateSubscribeTopicParams) (string, error) {
			return "orders/" + p.EventGroupName, nil // a tunnel is a group of consumers
		},
		SubscriberConstructor: func(cqrs.EventGroupProcessorSubscriberConstructorParams) (message.Subscriber, error) { return sub, nil },
		Marshaler:             marshaler,
		// A change without a handler is an error: it is redelivered, and seen.
		AckOnUnknownEvent: false,
	})
	if err != nil {
		return nil, err
	}
	return router, processor.AddHandlersGroup("events", handlers...)
}

// write places orders, pays half of them and cancels a quarter.
func write(em *emulator.Emulator) error {
	for id := range int64(orders) {
		if err := em.Put("orders", emulator.Row{"id": id, "amount": float64(id) + 0.5}); err != nil {
			return err
		}
		if id%2 == 0 {
			if err := em.Update("orders", emulator.Row{"id": id, "paid": true}); err != nil {
				return err
			}
		}
		if id%4 == 1 {
			if err := em.Delete("orders", emulator.Row{"id": id}); err != nil {
				return err
			}
		}
	}
	return nil
}
