package subscriber_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// A table's changes go through a Watermill Router in batches. The emulator
// stands for the Tablestore instance.
func Example() {
	em := startEmulator()
	defer em.Close()

	sub, err := subscriber.New(subscriber.Config{
		Endpoint: em.Endpoint(), Instance: "shop", AccessKeyID: "id", AccessKeySecret: "secret",
		Tunnel: subscriber.TunnelSpec{Type: subscriber.BaseData}, // the rows that are there
	}, watermill.NopLogger{})
	if err != nil {
		log.Fatal(err)
	}
	if err := sub.SubscribeInitialize("orders/to-warehouse"); err != nil { // creates the tunnel when missing
		log.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 15 * time.Second}, watermill.NopLogger{})
	if err != nil {
		log.Fatal(err)
	}
	batches, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{
		"default": {Size: 100, Timeout: time.Second, Handler: func(ctx context.Context, b *batching.Batch) error {
			for _, msg := range b.Messages {
				fmt.Println(msg.Metadata.Get(subscriber.MetadataKey), string(msg.Payload))
			}
			return nil // acks all; an error brings them again, b.Fail only one
		}},
	}}, nil)
	if err != nil {
		log.Fatal(err)
	}
	router.AddMiddleware(batches.Middleware)
	router.AddConsumerHandler("orders", "orders/to-warehouse", sub, func(msg *message.Message) error { return nil })
	if err := subscriber.RunRouter(context.Background(), router, sub); err != nil { // until all rows are handled
		log.Fatal(err)
	}
	// Unordered output:
	// [1] {"type":"put","key":{"id":1},"columns":{"amount":250}}
	// [2] {"type":"put","key":{"id":2},"columns":{"amount":90}}
}

// Handle calls a handler without a message.Router, for programs that need nothing else
// of it.
func ExampleSubscriber_Handle() {
	em := startEmulator()
	defer em.Close()
	sub, err := subscriber.New(subscriber.Config{
		Endpoint: em.Endpoint(), Instance: "shop", AccessKeyID: "id", AccessKeySecret: "secret",
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer sub.Close()
	if err := sub.SubscribeInitialize("orders/to-warehouse"); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var handled sync.WaitGroup
	handled.Add(2)
	save := func(_ context.Context, order *ots.Record) error {
		defer handled.Done()
		amount, _ := order.Column("amount")
		fmt.Println(order.PrimaryKey[0].Value, amount)
		return nil
	}
	go func() { handled.Wait(); cancel() }() // ends with the second call of save

	done, err := sub.Handle(ctx, "orders/to-warehouse", func(msg *message.Message) error {
		order, _ := ots.RecordFromMessage(msg)
		return save(msg.Context(), order) // nil acks; an error or a panic brings it again
	})
	if err != nil {
		log.Fatal(err)
	}
	<-done // ctx has ended, or the tunnel
	if err := errors.Join(sub.Err(), sub.Close()); err != nil {
		log.Fatal(err) // the tunnel is gone or expired; messages were unsettled
	}
	// Unordered output:
	// 1 250
	// 2 90
}

// startEmulator starts an emulator with a table of two orders.
func startEmulator() *emulator.Emulator {
	em, err := emulator.Start(emulator.Options{Instance: "shop", AccessKeyID: "id", AccessKeySecret: "secret"})
	if err != nil {
		log.Fatal(err)
	}
	client := tablestore.NewClient(em.Endpoint(), "shop", "id", "secret")
	meta := &tablestore.TableMeta{TableName: "orders"}
	meta.AddPrimaryKeyColumn("id", tablestore.PrimaryKeyType_INTEGER)
	_, err = client.CreateTable(&tablestore.CreateTableRequest{
		TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
	})
	if err != nil {
		log.Fatal(err)
	}
	for id, amount := range map[int64]int64{1: 250, 2: 90} {
		put := &tablestore.PutRowChange{TableName: "orders", PrimaryKey: new(tablestore.PrimaryKey)}
		put.PrimaryKey.AddPrimaryKeyColumn("id", id)
		put.AddColumn("amount", amount)
		put.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		if _, err := client.PutRow(&tablestore.PutRowRequest{PutRowChange: put}); err != nil {
			log.Fatal(err)
		}
	}
	return em
}
