package publisher_test

import (
	"context"
	"fmt"
	"log"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/publisher"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Tablestore as a Pub/Sub: the topic is a table, the consumer group "billing" a
// tunnel over it. The emulator stands for the Tablestore instance.
func Example() {
	em, err := emulator.Start(emulator.Options{Instance: "shop"})
	if err != nil {
		log.Fatal(err)
	}
	defer em.Close()

	pub, err := publisher.New(publisher.Config{
		Endpoint: em.Endpoint(), Instance: "shop", AccessKeyID: "id", AccessKeySecret: "secret",
		CreateTables: true,
	}, watermill.NopLogger{})
	if err != nil {
		log.Fatal(err)
	}
	defer pub.Close()
	sub, err := subscriber.New(subscriber.Config{
		Endpoint: em.Endpoint(), Instance: "shop", AccessKeyID: "id", AccessKeySecret: "secret",
		Ordering:    subscriber.OrderByChannel,
		Unmarshaler: publisher.Unmarshaler{},
		Tunnel:      subscriber.TunnelSpec{Type: subscriber.Stream},
	}, watermill.NopLogger{})
	if err != nil {
		log.Fatal(err)
	}
	defer sub.Close()

	if err := pub.CreateTable(context.Background(), "orders"); err != nil { // a tunnel needs its table
		log.Fatal(err)
	}
	if err := sub.SubscribeInitialize("orders/billing"); err != nil {
		log.Fatal(err)
	}
	messages, err := sub.Subscribe(context.Background(), "orders/billing")
	if err != nil {
		log.Fatal(err)
	}

	for _, event := range []string{"placed", "paid", "shipped"} {
		msg := message.NewMessage(event+"-1", []byte(event))
		publisher.SetOrderingKey(msg, "order 1")
		if err := pub.Publish("orders", msg); err != nil {
			log.Fatal(err)
		}
	}
	for range 3 {
		msg := <-messages
		fmt.Println(msg.UUID, string(msg.Payload))
		msg.Ack()
	}
	// Output:
	// placed-1 placed
	// paid-1 paid
	// shipped-1 shipped
}

// A message is stored in the row that it is about: both are written, or neither.
func ExampleColumns_WriteTo() {
	put := &tablestore.PutRowChange{TableName: "orders", PrimaryKey: new(tablestore.PrimaryKey)}
	put.PrimaryKey.AddPrimaryKeyColumn("id", int64(1))
	put.AddColumn("state", "placed")
	put.SetCondition(tablestore.RowExistenceExpectation_EXPECT_NOT_EXIST)

	msg := message.NewMessage("a5c0", []byte(`{"event":"placed"}`))
	if err := (publisher.Columns{}).WriteTo(put.AddColumn, msg); err != nil {
		log.Fatal(err)
	}
	// client.PutRow(&tablestore.PutRowRequest{PutRowChange: put}), and a subscriber
	// with publisher.Unmarshaler{Outbox: true} delivers the message.
	for _, c := range put.Columns {
		fmt.Printf("%s: %s\n", c.ColumnName, c.Value)
	}
	// Output:
	// state: placed
	// uuid: a5c0
	// payload: {"event":"placed"}
}
