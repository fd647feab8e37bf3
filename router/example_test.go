package router_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/health"
	"github.com/watermill-ots/watermill-ots/metrics"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

const pipelines = `
instances:
  main: {name: shop, endpoint: "http://127.0.0.1:8087", access_key_id: id, access_key_secret: secret}
tunnels:
  orders:
    instance: main
    table_name: orders
    tunnel_name: consumer
    batchers:
      large: {batch_size: 10}
      small: {batch_size: 2}
`

// Test sends hand-made records through a pipeline; r.Run(ctx) would do it with
// those of the tunnel.
func Example() {
	cfg, err := router.Parse("pipelines.yaml", []byte(pipelines))
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := router.New(cfg, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()
	keep := func(_ context.Context, b *batching.Batch) error {
		fmt.Printf("%s: %d orders (%s)\n", b.Batcher, len(b.Messages), b.Trigger)
		return nil
	}
	err = r.Handle("orders", router.Handlers{
		Process: func(msg *message.Message) error {
			order, _ := ots.RecordFromMessage(msg)
			switch amount, ok := order.Column("amount"); {
			case !ok:
				return errors.New("an order without an amount")
			case amount.Int64() == 0:
				return router.ErrDrop
			case amount.Int64() >= 100:
				batching.SetBatcher(msg, "large")
			default:
				batching.SetBatcher(msg, "small")
			}
			return nil
		},
		Batches: map[string]func(context.Context, *batching.Batch) error{"large": keep, "small": keep},
		Failed:  func(msg *message.Message, err error) { fmt.Println("failed:", err) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	order := func(id, amount int64) *ots.Record {
		return &ots.Record{
			PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(id)}},
			Columns:    []ots.Cell{{Name: "amount", Value: ots.IntegerValue(amount)}},
		}
	}
	noAmount := order(4, 0)
	noAmount.Columns = nil
	outcomes, err := r.TestRecords(context.Background(), "orders", order(1, 20), order(2, 30), order(3, 0), noAmount, order(5, 500))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("dropped:", outcomes[2].Dropped)
	// Unordered output:
	// small: 2 orders (size)
	// failed: an order without an amount
	// large: 1 orders (drain)
	// dropped: true
}

// A pipeline of a file, until the context ends.
func ExampleLoad() {
	cfg, err := router.Load("pipelines.yaml")
	if err != nil {
		log.Fatal(err) // every fault of the file, with its line
	}
	r, err := router.New(cfg, logger)
	if err != nil {
		log.Fatal(err)
	}
	err = r.Handle("orders", router.Handlers{
		Process: func(msg *message.Message) error {
			if msg.Metadata.Get(subscriber.MetadataType) == "delete" {
				batching.SetBatcher(msg, "deleted")
			}
			return nil
		},
		Batches: map[string]func(context.Context, *batching.Batch) error{"default": insert, "deleted": remove},
	})
	if err != nil {
		log.Fatal(err) // names that do not match those of the file
	}
	if err := r.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

// A service gets a command for its dead letters: "service replay" handles those in the
// table of pipeline orders once more, with the handlers of the service, and ends.
func ExampleRouter_Replay() {
	r := service() // New and Handle
	defer r.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if len(os.Args) > 1 && os.Args[1] == "replay" {
		done, err := r.Replay(ctx, "orders")
		fmt.Printf("%d handled, %d failed again, %d skipped\n", done.Succeeded, done.Failed, done.Skipped)
		if err != nil {
			log.Print(err)
		}
		return
	}
	if err := r.Run(ctx); err != nil {
		log.Print(err)
	}
}

// The letters of a topic are replayed by a Watermill Router of their own, until the
// program is interrupted. A letter that fails again is nacked: it is redelivered when the
// topic's subscriber brings it.
func ExampleRouter_ReplayMessage() {
	r := service() // New and Handle
	defer r.Close()
	replays, err := message.NewRouter(message.RouterConfig{}, nil)
	if err != nil {
		log.Print(err)
		return
	}
	replays.AddConsumerHandler("replay", "dead-letters", deadLetters, r.ReplayMessage)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := replays.Run(ctx); err != nil {
		log.Print(err)
	}
}

// The pipelines of a service in a Prometheus registry and on a page for people and probes.
func ExampleRouter_Observe() {
	r := service() // New and Handle
	defer r.Close()
	m, err := metrics.New(metrics.Config{})
	if err != nil {
		log.Print(err)
		return
	}
	prometheus.MustRegister(m)
	h, err := health.New(health.Config{Title: "orders"})
	if err != nil {
		log.Print(err)
		return
	}
	http.Handle("/health/", http.StripPrefix("/health", h))
	err = r.Observe(router.Observers{
		OnAck:   m.OnAck(),
		OnBatch: m.OnBatch,
		Start: func(pipelines []router.Observed) error {
			for _, p := range pipelines {
				m.AddSubscriber(p.Subscriber)
				h.AddSubscriber(p.Subscriber)
				m.AddCheck(p.Name, p.Ready) // it has ended, or nothing succeeds
				h.AddCheck(p.Name, p.Ready)
				if p.Batching != nil {
					m.AddBatching(p.Name, p.Batching)
					h.AddBatching(p.Name, p.Batching)
				}
			}
			return nil
		},
	})
	if err != nil {
		log.Print(err)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := r.Run(ctx); err != nil {
		log.Print(err)
	}
}

// A program asks about one of its pipelines while it runs.
func ExampleRouter_Subscriber() {
	r := service() // New and Handle; another goroutine calls Run
	<-r.Running()
	if sub, ok := r.Subscriber("orders"); ok {
		for _, s := range sub.Status().Subscriptions {
			fmt.Println(s.Topic, "connected:", s.Connected)
		}
	}
	if batches, ok := r.Batching("orders"); ok {
		for _, b := range batches.Stats() {
			fmt.Println(b.Batcher, "failed:", b.Failed)
		}
	}
}

// What the examples take from elsewhere.
var (
	ctx            = context.Background()
	logger         watermill.LoggerAdapter
	insert, remove func(context.Context, *batching.Batch) error
	service        func() *router.Router
	deadLetters    message.Subscriber
)

// A file with faults gives one error with all of them.
func ExampleParse() {
	_, err := router.Parse("pipelines.yaml", []byte(`
instances:
  main: {name: shop, endpoint: "https://example.com", access_key_id: id, access_key_secret: secret}
tunnels:
  orders:
    instance: mian
    table_name: orders
    tunnel_name: consumer
    batchers:
      small: {batch_siez: 2}
`))
	fmt.Println(err)
	// Output:
	// pipelines.yaml:6: tunnels.orders.instance: no instance is called "mian"; did you mean "main"?
	// pipelines.yaml:10: tunnels.orders.batchers.small.batch_siez: unknown key; did you mean "batch_size"?
}
