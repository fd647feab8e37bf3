// Quickstart shows a change from the table to the sink: a Tablestore, a tunnel,
// a Watermill Router with middlewares, two batchers and a second publisher.
//
//	go run ./examples/quickstart
//
// needs only Go: it starts an emulated Tablestore inside the process, writes
// orders for a few seconds, says what became of them, and ends by itself (or cleanly on
// Ctrl-C). The exit status is 0 only if every change was handled, in order.
//
//	go run ./examples/quickstart -data-dir DIR
//
// keeps the emulator's data in DIR: kill the program at any moment with kill -9
// and start it again; it continues, and every order is handled at least once.
//
// With OTS_ENDPOINT, OTS_INSTANCE, OTS_ACCESS_KEY_ID, OTS_ACCESS_KEY_SECRET,
// OTS_TABLE and OTS_TUNNEL set, it consumes that real tunnel until Ctrl-C, and
// writes nothing to the table.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/examples/cli"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func main() {
	dataDir := flag.String("data-dir", "", "keep the emulator's data and the ledger in this `directory`")
	duration := flag.Duration("duration", 8*time.Second, "how long orders are written (embedded emulator only)")
	verbose := flag.Bool("v", false, "log what the library does")
	cli.ParseFlags()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := run(ctx, *dataDir, *duration, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dataDir string, duration time.Duration, verbose bool) error {
	var logger watermill.LoggerAdapter = watermill.NopLogger{}
	if verbose {
		logger = watermill.NewSlogLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})))
	}
	src, err := openSource(dataDir)
	if err != nil {
		return err
	}
	defer src.Close()
	ledger, err := openLedger(dataDir)
	if err != nil {
		return err
	}
	defer ledger.Close()
	out := newConsole(os.Stdout)
	out.banner(src, ledger, duration)

	// 1. The subscriber: the tunnel as an ordinary Watermill subscription.
	sub, err := subscriber.New(src.config(), logger)
	if err != nil {
		return err
	}
	if src.embedded() {
		if err := sub.SubscribeInitialize(src.topic()); err != nil {
			return err
		}
	}

	// 2. The batchers: the ledger stores every order; large ones also go to
	// another publisher.
	alerts := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: 64}, logger)
	large, err := alerts.Subscribe(context.Background(), "large-orders")
	if err != nil {
		return err
	}
	alerted := countAll(large)
	batches, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{
		"ledger": {Size: 100, Timeout: 500 * time.Millisecond, Concurrency: 2, Handler: out.batch(ledger.write)},
		"large":  {Size: 20, Timeout: time.Second, Handler: out.batch(forward(ledger, batching.PublishTo(alerts, "large-orders")))},
	}}, logger)
	if err != nil {
		return err
	}

	// 3. The Router: any Watermill middleware works.
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 15 * time.Second}, logger)
	if err != nil {
		return err
	}
	router.AddMiddleware(middleware.CorrelationID, batches.Middleware, middleware.Recoverer)
	router.AddConsumerHandler("orders", src.topic(), sub, process)

	routerErr := make(chan error, 1)
	go func() { routerErr <- router.Run(context.Background()) }() // ends with router.Close below
	select {
	case <-router.Running():
	case err := <-routerErr:
		return err
	}

	// 4. The other side: write orders with the official SDK.
	if src.embedded() {
		watched, stop := context.WithCancel(ctx)
		var progress sync.WaitGroup
		progress.Go(func() { out.progress(watched, time.Now(), duration, ledger) }) // ends with stop
		err = src.writeOrders(ctx, duration, out.split)
		if err == nil {
			err = waitHandled(ctx, src, ledger)
		}
		stop()
		progress.Wait()
	} else {
		<-ctx.Done()
	}
	out.closing(ctx.Err() != nil)

	// 5. The end: stop reading, finish what is in flight, commit, disconnect.
	err = errors.Join(err, router.Close(), <-routerErr, batches.Close(), sub.Close(), alerts.Close())
	return errors.Join(err, out.table(src, ledger, <-alerted, ctx.Err() != nil))
}

// process handles each single change: it picks the batcher.
func process(msg *message.Message) error {
	batching.SetBatcher(msg, "ledger")
	if r, ok := ots.RecordFromMessage(msg); ok {
		if amount, ok := r.Column("amount_cents"); ok && amount.Int64() >= 90_000 {
			batching.SetBatcher(msg, "large")
		}
	}
	return nil
}

// forward writes to the ledger too, so that its sum covers every order, and
// then publishes.
func forward(l *ledger, publish func(context.Context, *batching.Batch) error) func(context.Context, *batching.Batch) error {
	return func(ctx context.Context, b *batching.Batch) error {
		if err := publish(ctx, b); err != nil {
			return err
		}
		return l.write(ctx, b)
	}
}

// waitHandled waits until the ledger has every change of the table.
func waitHandled(ctx context.Context, src *source, l *ledger) error {
	written, err := src.countChanges()
	if err != nil {
		return err
	}
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for l.distinct() < written {
		select {
		case <-l.changed():
		case <-ctx.Done():
			return nil
		case <-limit.C:
			return fmt.Errorf("only %d of %d changes were handled after 30s", l.distinct(), written)
		}
	}
	return nil
}

// countAll acks and counts messages until their channel is closed.
func countAll(messages <-chan *message.Message) <-chan int {
	counted := make(chan int, 1)
	go func() { // ends when the publisher is closed
		n := 0
		for msg := range messages {
			msg.Ack()
			n++
		}
		counted <- n
	}()
	return counted
}
