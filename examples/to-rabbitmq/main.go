// To-rabbitmq forwards the changes of a table to a queue of RabbitMQ, with a
// Watermill Router and Watermill's AMQP publisher, and compares what a consumer of the
// queue finds with what was written.
//
//	AMQP_URL=amqp://guest:guest@127.0.0.1:5672/ go run ./examples/to-rabbitmq
//
// That URL is also the default. There is no RabbitMQ inside a process, so one must run
// there; the example makes a queue, and deletes it in the end. The table is inside the
// process. It ends by itself, or cleanly at Ctrl-C.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	amqpbroker "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/watermill-ots/watermill-ots/examples/forward"
)

func main() { forward.Main("to-rabbitmq", open) }

func open(_ context.Context, b *forward.Broker) error {
	url := cmp.Or(os.Getenv("AMQP_URL"), "amqp://guest:guest@127.0.0.1:5672/")
	uri, err := amqp.ParseURI(url)
	if err != nil { // not in the error: it may quote the password
		return errors.New("AMQP_URL is no URL of the form amqp://user:password@host:5672/vhost")
	}
	conn, err := amqp.Dial(url)
	if err != nil {
		return fmt.Errorf("cannot use RabbitMQ at %s:%d: set AMQP_URL, such as amqp://user:password@host:5672/ (%w)",
			uri.Host, uri.Port, err)
	}
	b.AtEnd(func(context.Context) error { return conn.Close() })
	channel, err := conn.Channel()
	if err != nil {
		return err
	}
	// The publisher does not declare the queue, and what is sent to a queue that is not there is lost.
	if _, err := channel.QueueDeclare(b.Name, true, false, false, false, nil); err != nil {
		return fmt.Errorf("make the queue %s: %w", b.Name, err)
	}
	b.AtEnd(func(context.Context) error {
		_, err := channel.QueueDelete(b.Name, false, false, false)
		return err
	})
	b.Server = fmt.Sprintf("RabbitMQ %s, %s:%d, queue %s", conn.Properties["version"], uri.Host, uri.Port, b.Name)

	config := amqpbroker.NewDurableQueueConfig(url)
	config.Publish.ConfirmDelivery = true // or Publish would return, and the change be acked, before the server has it
	config.Publish.ChannelPoolSize = 16   // or each message would open a channel of its own
	b.Publisher, err = amqpbroker.NewPublisher(config, b.Logger)

	// Order per key costs parallelism: it holds with one queue and one consumer at a time
	// (x-single-active-consumer). For more, a consistent hash exchange spreads the keys over queues.
	b.Read = func(ctx context.Context, got func(string, []byte)) error { return read(ctx, channel, b.Name, got) }
	return err
}

func read(ctx context.Context, channel *amqp.Channel, queue string, got func(uuid string, payload []byte)) error {
	if err := channel.Qos(100, 0, false); err != nil {
		return err
	}
	deliveries, err := channel.ConsumeWithContext(ctx, queue, "", false, true, false, false, nil)
	if err != nil {
		return err
	}
	for d := range deliveries { // until ctx or the connection ends
		uuid, _ := d.Headers[amqpbroker.DefaultMessageUUIDHeaderKey].(string)
		got(uuid, d.Body)
		if err := d.Ack(false); err != nil {
			return err
		}
	}
	return nil
}
