package subscriber_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// A service handles changes until Ctrl-C or SIGTERM, drains, and tells its supervisor
// when the subscription ended for another reason.
func ExampleRunRouter() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	sub, err := subscriber.New(config, logger)
	if err != nil {
		log.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 15 * time.Second}, logger)
	if err != nil {
		log.Fatal(err)
	}
	router.AddConsumerHandler("orders", "orders/to-warehouse", sub, func(msg *message.Message) error {
		return store(msg.Context(), msg.Payload)
	})
	switch err := subscriber.RunRouter(ctx, router, sub); {
	case errors.Is(err, ots.ErrTunnelExpired), errors.Is(err, ots.ErrTunnelGone):
		log.Fatal("the tunnel has to be created anew, which a restart alone does not do: ", err)
	case err != nil:
		log.Fatal(err)
	}
}

// Status says how far a subscription is, and what holds it back.
func ExampleSubscriber_Status() {
	em := startEmulator()
	defer em.Close()
	sub, err := subscriber.New(subscriber.Config{
		Endpoint: em.Endpoint(), Instance: "shop", AccessKeyID: "id", AccessKeySecret: "secret",
		Tunnel: subscriber.TunnelSpec{Type: subscriber.BaseData},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := sub.SubscribeInitialize("orders/to-warehouse"); err != nil {
		log.Fatal(err)
	}
	messages, err := sub.Subscribe(context.Background(), "orders/to-warehouse")
	if err != nil {
		log.Fatal(err)
	}
	first := <-messages
	for _, s := range sub.Status().Subscriptions {
		fmt.Println(s.Topic, "connected:", s.Connected)
		for _, c := range s.Channels {
			fmt.Println("base data:", c.Base, "lag:", c.Lag, "records that are not acked yet:", c.InFlight > 0)
		}
		for _, f := range s.Failing {
			fmt.Println(f.Key, "failed", f.Attempts, "times:", f.Error)
		}
	}
	first.Ack()
	(<-messages).Ack()
	if err := sub.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// orders/to-warehouse connected: true
	// base data: true lag: 0s records that are not acked yet: true
}

// What the examples take from elsewhere.
var (
	config subscriber.Config
	logger watermill.LoggerAdapter
	store  func(context.Context, []byte) error
)
