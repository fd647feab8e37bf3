package publisher_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/publisher"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Two groups of one topic: the first one forwards its messages in batches into
// another topic, with each message's key.
func TestRouter_forwards_from_table_to_table_in_batches_and_in_order(t *testing.T) {
	em := start(t)
	p := publish(t, em, nil)
	for _, topic := range []string{"orders", "archive"} {
		if err := p.CreateTable(context.Background(), topic); err != nil {
			t.Fatal(err)
		}
	}
	archived := subscribe(t, em, "archive/checker", publisher.Unmarshaler{})
	watched := subscribe(t, em, "orders/watcher", publisher.Unmarshaler{})

	sub, err := subscriber.New(subscriber.Config{
		Endpoint: em.Endpoint(), Instance: instance, AccessKeyID: keyID, AccessKeySecret: keySecret,
		Ordering: subscriber.OrderByChannel, Unmarshaler: publisher.Unmarshaler{}, MaxPollInterval: 20 * time.Millisecond,
		Tunnel: subscriber.TunnelSpec{Type: subscriber.Stream},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SubscribeInitialize("orders/archiver"); err != nil {
		t.Fatal(err)
	}
	batches, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{
		"default": {Size: 10, Timeout: 20 * time.Millisecond, Handler: batching.PublishTo(p, "archive")},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	router.AddMiddleware(batches.Middleware)
	router.AddConsumerHandler("archiver", "orders/archiver", sub, func(*message.Message) error { return nil })
	ended := make(chan error, 1)
	go func() { ended <- router.Run(context.Background()) }()
	<-router.Running()

	const keys, each = 3, 10
	for i := range each {
		var batch []*message.Message
		for k := range keys {
			msg := message.NewMessage(fmt.Sprintf("%d/%d", k, i), nil)
			publisher.SetOrderingKey(msg, fmt.Sprint("key-", k))
			batch = append(batch, msg)
		}
		if err := p.Publish("orders", batch...); err != nil {
			t.Fatal(err)
		}
	}
	var want []string
	for k := range keys {
		for i := range each {
			want = append(want, fmt.Sprintf("%d/%d", k, i))
		}
	}
	for group, messages := range map[string]<-chan *message.Message{"archive/checker": archived, "orders/watcher": watched} {
		var got []string
		for range keys * each {
			got = append(got, receive(t, messages).UUID)
		}
		slices.SortStableFunc(got, func(a, b string) int { return int(a[0]) - int(b[0]) }) // by key; the sort is stable, so each key keeps its order
		if !slices.Equal(got, want) {
			t.Errorf("%s got\n%v, want\n%v", group, got, want)
		}
	}
	if err := router.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := batches.Close(); err != nil {
		t.Error(err)
	}
}
