package batching_test

import (
	"context"
	"fmt"
	"log"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Two named batchers behind one Router handler. Any Watermill subscriber works; this
// one is in memory.
func Example() {
	pubsub := gochannel.NewGoChannel(gochannel.Config{}, nil)

	var handled sync.WaitGroup
	handled.Add(5)
	show := func(_ context.Context, b *batching.Batch) error {
		var ids []string
		for _, msg := range b.Messages {
			ids = append(ids, msg.UUID)
			handled.Done()
		}
		fmt.Printf("%s: %s (%s)\n", b.Batcher, strings.Join(ids, " "), b.Trigger)
		return nil // the messages are acked
	}
	batches, err := batching.New(batching.Config{
		Defaults: batching.Batcher{Size: 2, Timeout: 500 * time.Millisecond, Handler: show},
		Batchers: map[string]batching.Batcher{"mail": {}, "archive": {Size: 3}},
	}, nil)
	if err != nil {
		panic(err)
	}

	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		panic(err)
	}
	router.AddConsumerHandler("orders", "orders", pubsub, func(msg *message.Message) error {
		if strings.HasPrefix(msg.UUID, "a") {
			batching.SetBatcher(msg, "archive")
		} else {
			batching.SetBatcher(msg, "mail")
		}
		return nil
	}).AddMiddleware(batches.Middleware)
	go func() {
		if err := router.Run(context.Background()); err != nil {
			panic(err)
		}
	}()
	<-router.Running()

	for _, id := range []string{"m1", "a1", "a2", "m2", "a3"} {
		if err := pubsub.Publish("orders", message.NewMessage(id, nil)); err != nil {
			panic(err)
		}
		time.Sleep(10 * time.Millisecond) // gochannel does not keep an order
	}
	handled.Wait()

	// First the Router, so that no more messages arrive, then the batches.
	if err := router.Close(); err != nil {
		panic(err)
	}
	if err := batches.Close(); err != nil {
		panic(err)
	}
	// Output:
	// mail: m1 m2 (size)
	// archive: a1 a2 a3 (size)
}

// Changes of a table in batches: most are inserted into a warehouse, two batches
// at a time; deletions are published. A failed batch is redelivered, in order.
func ExampleNew() {
	batches, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{
		"default": {
			Size: 100, Timeout: time.Second, Concurrency: 2,
			Handler: func(ctx context.Context, b *batching.Batch) error {
				return insert(ctx, b.Messages) // nil acks all; an error redelivers all, b.Fail only one
			},
		},
		"deleted": {Size: 10, Handler: batching.PublishTo(pub, "deleted-orders")},
	}}, logger)
	if err != nil {
		log.Fatal(err)
	}
	router.AddMiddleware(batches.Middleware)
	router.AddConsumerHandler("orders", "orders/to-warehouse", sub, func(msg *message.Message) error {
		if msg.Metadata.Get(subscriber.MetadataType) == "delete" {
			batching.SetBatcher(msg, "deleted")
		}
		return nil // the message joins its batch; its ack is the batch's
	})
}

// Stand-ins for the program around ExampleNew.
var (
	insert func(context.Context, []*message.Message) error
	logger watermill.LoggerAdapter
	pub    message.Publisher
	router *message.Router
	sub    message.Subscriber
)

// A handler of typed values. A message that cannot be decoded fails alone.
func ExampleHandler() {
	type order struct{ Total int }

	h := batching.Handler(batching.JSON[order], func(_ context.Context, b *batching.Batch, items []batching.Item[order]) error {
		sum := 0
		for _, item := range items {
			sum += item.Value.Total
		}
		fmt.Println(len(items), "orders, total", sum)
		return nil
	})

	// A handler can be tested without the middleware, on a Batch that the test creates.
	bad := message.NewMessage("bad", []byte(`{`))
	b := &batching.Batch{Messages: []*message.Message{
		message.NewMessage("1", []byte(`{"Total": 3}`)), bad, message.NewMessage("2", []byte(`{"Total": 4}`)),
	}}
	fmt.Println(h(context.Background(), b), "-", b.Err(bad))
	// Output:
	// 2 orders, total 7
	// <nil> - decode message bad: unexpected end of JSON input
}

// Fail fails a single message: the others of the batch succeed.
func ExampleBatch_Fail() {
	h := func(_ context.Context, b *batching.Batch) error {
		for _, msg := range b.Messages {
			if len(msg.Payload) == 0 {
				b.Fail(msg, fmt.Errorf("no payload"))
			}
		}
		return nil
	}
	empty := message.NewMessage("empty", nil)
	b := &batching.Batch{Messages: []*message.Message{empty, message.NewMessage("full", []byte("x"))}}
	fmt.Println(h(context.Background(), b), "-", b.Err(empty))
	// Output: <nil> - no payload
}
