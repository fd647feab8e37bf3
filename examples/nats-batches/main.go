// Nats-batches runs the batching middleware with a broker that is unrelated to
// this library: NATS JetStream, with Watermill's own subscriber.
//
//	go run ./examples/nats-batches
//
// needs only Go: it starts a NATS server inside the process, publishes orders,
// handles them in batches and prints statistics of the batches. It ends by
// itself, or cleanly on Ctrl-C.
//
// Such a subscriber has two peculiarities. Watermill's NATS subscriber holds
// one message for each of its SubscribersCount, which limits the size of a
// batch; batching.Config.MaxInFlight makes New warn about a larger Size. The
// server spreads messages over the subscribers at random, so the Timeout should
// be short. And the subscriber ignores acks as soon as the Router closes:
// waiting messages are not handled, and the server redelivers them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	natsbroker "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/examples/cli"
)

// The stream, which is also Watermill's topic, and its durable consumer.
const (
	stream   = "orders"
	consumer = "batches"
)

func main() {
	orders := flag.Int("orders", 1000, "how many orders are published")
	size := flag.Int("size", 20, "messages in a full batch")
	cli.ParseFlags()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := run(ctx, *orders, *size); err != nil {
		fmt.Fprintln(os.Stderr, "nats-batches:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, orders, size int) (err error) {
	dir, err := os.MkdirTemp("", "nats-batches")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b, err := startBroker(dir, 5*time.Second)
	if err != nil {
		return err
	}
	defer b.close()

	handled := make(chan *batching.Batch, orders)
	batches, err := batching.New(batching.Config{
		Batchers: map[string]batching.Batcher{batching.DefaultBatcher: {
			Size: size, Timeout: 200 * time.Millisecond, Concurrency: 2,
			Handler: func(_ context.Context, b *batching.Batch) error {
				handled <- b // where a program would write all orders at once
				return nil
			},
		}},
		MaxInFlight: 2 * size,
	}, nil)
	if err != nil {
		return err
	}
	sub, err := b.subscriber(2 * size) // two batches: one fills up while the other is handled
	if err != nil {
		return err
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 15 * time.Second}, nil)
	if err != nil {
		return errors.Join(err, sub.Close())
	}
	router.AddConsumerHandler("orders", stream, sub, func(*message.Message) error { return nil }).AddMiddleware(batches.Middleware)
	stopped := make(chan error, 1)
	go func() { stopped <- router.Run(context.Background()) }() // ends with router.Close, below

	fmt.Printf(`NATS JetStream  %s (server inside this process), stream %s
Publishing      %d orders; batches of up to %d, or after 200ms

trigger says why a batch was handled: it was full (size), its time was up (timeout), or
waiting was pointless, because all that may be in flight waits already (drain).

`, b.server.ClientURL(), stream, orders, size)
	if err = b.publish(orders); err == nil {
		err = report(ctx, handled, orders)
	}
	return errors.Join(err, router.Close(), <-stopped, batches.Close())
}

// report waits until all orders are handled or ctx ends, and prints a table and a verdict.
func report(ctx context.Context, handled <-chan *batching.Batch, orders int) error {
	began, progress := time.Now(), time.NewTicker(2*time.Second)
	defer progress.Stop()
	deliveries, batches := 0, 0
	seen, triggers := map[string]bool{}, map[batching.Trigger]int{}
	for len(seen) < orders && ctx.Err() == nil {
		select {
		case batch := <-handled:
			batches++
			deliveries += len(batch.Messages)
			triggers[batch.Trigger]++
			for _, msg := range batch.Messages {
				seen[msg.UUID] = true
			}
		case <-progress.C:
			fmt.Printf("%4.0fs  %d of %d orders handled\n", time.Since(began).Seconds(), len(seen), orders)
		case <-time.After(30 * time.Second):
			return fmt.Errorf("verdict: only %d of %d orders were handled; nothing for 30s", len(seen), orders)
		case <-ctx.Done(): // the rest is redelivered to a later consumer
		}
	}
	fmt.Printf("  orders handled   %d of %d\n  handled twice    %d\n  batches          %d\n", len(seen), orders, deliveries-len(seen), batches)
	for _, trigger := range slices.Sorted(maps.Keys(triggers)) {
		fmt.Printf("    by %-10s  %d\n", trigger, triggers[trigger])
	}
	if len(seen) < orders {
		fmt.Printf("\nInterrupted: the server would redeliver the other %d.\n", orders-len(seen))
		return nil
	}
	fmt.Print("\nVerdict: every order was handled.\n\nNext: how large batches get behind other subscribers: docs/batching.md\n")
	return nil
}

// broker is a NATS server with the stream and its consumer, inside this process.
type broker struct {
	server *server.Server
	conn   *nats.Conn
	js     nats.JetStreamContext
}

// startBroker keeps its data in dir. A message without an ack is redelivered
// after ackWait.
func startBroker(dir string, ackWait time.Duration) (*broker, error) {
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true})
	if err != nil {
		return nil, fmt.Errorf("make NATS server: %w", err)
	}
	srv.Start()
	b := &broker{server: srv}
	if !srv.ReadyForConnections(10 * time.Second) {
		b.close()
		return nil, errors.New("NATS server is not ready after 10s")
	}
	if err := b.provision(ackWait); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// provision creates the stream and the consumer. If the subscriber created the
// consumer, it would end with the subscriber and forget what was acked.
func (b *broker) provision(ackWait time.Duration) (err error) {
	if b.conn, err = nats.Connect(b.server.ClientURL()); err != nil {
		return fmt.Errorf("connect to %s: %w", b.server.ClientURL(), err)
	}
	if b.js, err = b.conn.JetStream(); err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	if _, err = b.js.AddStream(&nats.StreamConfig{Name: stream, Subjects: []string{stream, stream + ".>"}}); err != nil {
		return fmt.Errorf("add stream %s: %w", stream, err)
	}
	_, err = b.js.AddConsumer(stream, &nats.ConsumerConfig{
		Durable: consumer, DeliverSubject: nats.NewInbox(), DeliverGroup: consumer, FilterSubject: stream,
		AckPolicy: nats.AckExplicitPolicy, AckWait: ackWait,
	})
	if err != nil {
		return fmt.Errorf("add consumer %s of stream %s: %w", consumer, stream, err)
	}
	return nil
}

// subscriber has its own connection and at most inFlight messages in flight.
func (b *broker) subscriber(inFlight int) (message.Subscriber, error) {
	return natsbroker.NewSubscriber(natsbroker.SubscriberConfig{
		URL: b.server.ClientURL(), QueueGroupPrefix: consumer, SubscribersCount: inFlight,
		JetStream: natsbroker.JetStreamConfig{DurablePrefix: consumer, SubscribeOptions: []nats.SubOpt{nats.Bind(stream, consumer), nats.ManualAck()}},
	}, nil)
}

// publisher publishes to the stream's subjects; it has its own connection.
func (b *broker) publisher() (message.Publisher, error) {
	return natsbroker.NewPublisher(natsbroker.PublisherConfig{URL: b.server.ClientURL()}, nil)
}

// publish publishes orders 0 to n-1. An order's UUID is its number.
func (b *broker) publish(n int) error {
	pub, err := b.publisher()
	if err != nil {
		return err
	}
	for i := range n {
		if err := pub.Publish(stream, message.NewMessage(fmt.Sprint(i), []byte("an order"))); err != nil {
			return errors.Join(fmt.Errorf("publish order %d: %w", i, err), pub.Close())
		}
	}
	return pub.Close()
}

func (b *broker) close() {
	if b.conn != nil {
		b.conn.Close()
	}
	b.server.Shutdown()
	b.server.WaitForShutdown()
}
