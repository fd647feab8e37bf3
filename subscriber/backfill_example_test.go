package subscriber_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// A backfill handles each row of a table once, at a bounded rate, shows how far it
// is, and ends by itself.
func ExampleRunRouter_backfill() {
	em := startEmulator()
	defer em.Close()
	connect := func(c subscriber.Config) subscriber.Config {
		c.Endpoint, c.Instance, c.AccessKeyID, c.AccessKeySecret = em.Endpoint(), "shop", "id", "secret"
		return c
	}
	copyRow := func(_ context.Context, row *ots.Record) error {
		fmt.Println("copied", row.PrimaryKey[0].Value)
		return nil
	}

	logger := watermill.NopLogger{}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)            // a second signal ends the program at once
	const topic = "orders/backfill-2026-01" // a tunnel of this backfill's own
	sub, err := subscriber.New(connect(subscriber.Config{
		Tunnel:      subscriber.TunnelSpec{Type: subscriber.BaseData},
		MaxInFlight: 1000, // two seconds' worth, and a page of each channel: at a signal, messages in flight are still handled
	}), logger)
	if err != nil {
		log.Fatal(err)
	}
	if err := sub.Initialize(ctx, topic); err != nil { // waits for the service, until a signal
		log.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 15 * time.Second}, logger)
	if err != nil {
		log.Fatal(err)
	}
	router.AddMiddleware(middleware.NewThrottle(500, time.Second).Middleware) // rows a second, of this process
	router.AddConsumerHandler("backfill", topic, sub, func(msg *message.Message) error {
		row, _ := ots.RecordFromMessage(msg)
		return copyRow(msg.Context(), row)
	})
	go progress(ctx, sub, 10*time.Second)
	err = subscriber.RunRouter(ctx, router, sub)
	stop() // ends progress
	if err != nil {
		log.Fatal(err) // the tunnel is gone or expired; rows were unsettled
	}
	if s := sub.Status().Subscriptions[0]; s.Finished {
		fmt.Println("done:", s.Totals.Acked, "rows of this process") // and nothing is left, in this process or another
	} else {
		fmt.Println("interrupted: start it again to continue")
		os.Exit(1)
	}
	// Unordered output:
	// copied 1
	// copied 2
	// done: 2 rows of this process
}

// progress shows how far the backfill is, until ctx ends.
func progress(ctx context.Context, sub *subscriber.Subscriber, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for before := uint64(0); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for _, s := range sub.Status().Subscriptions {
			rate := float64(s.Totals.Acked-before) / every.Seconds()
			before = s.Totals.Acked
			fmt.Printf("%d rows, %.0f a second; channels: %d at work, %d done; %d rows fail\n",
				s.Totals.Acked, rate, len(s.Channels), s.Totals.ChannelsFinished, s.FailingTotal)
		}
	}
}
