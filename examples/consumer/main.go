// Consumer prints the rows of a table and then each change of it, until Ctrl-C. It is the
// README's program, and a place to start from: docs/first-consumer.md.
//
//	go run ./cmd/ots-emulator --seed examples/consumer/tables.yaml --admin-addr 127.0.0.1:8089
//	OTS_ENDPOINT=http://127.0.0.1:8087 OTS_INSTANCE=shop OTS_ACCESS_KEY_ID=id OTS_ACCESS_KEY_SECRET=secret go run ./examples/consumer
package main

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

	"github.com/watermill-ots/watermill-ots/subscriber"
)

const topic = "orders/to-warehouse" // the table, and the tunnel's name

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	logger := watermill.NewSlogLogger(nil)
	sub, err := subscriber.New(subscriber.Config{
		Endpoint: os.Getenv("OTS_ENDPOINT"), Instance: os.Getenv("OTS_INSTANCE"),
		AccessKeyID: os.Getenv("OTS_ACCESS_KEY_ID"), AccessKeySecret: os.Getenv("OTS_ACCESS_KEY_SECRET"),
	}, logger)
	if err != nil {
		log.Fatal(err)
	}
	if err := sub.Initialize(ctx, topic); err != nil { // creates the tunnel if it is missing; it is SubscribeInitialize with a context
		log.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 15 * time.Second}, logger)
	if err != nil {
		log.Fatal(err)
	}
	router.AddConsumerHandler("orders", topic, sub, func(msg *message.Message) error {
		fmt.Println(msg.Metadata.Get(subscriber.MetadataKey), string(msg.Payload))
		return nil // acks; after an error the message is redelivered, and later changes of its row wait for it
	})
	if err := subscriber.RunRouter(ctx, router, sub); err != nil { // until a signal: then it drains, commits and disconnects
		log.Fatal(err)
	}
}
