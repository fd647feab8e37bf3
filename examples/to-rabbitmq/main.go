// To-rabbitmq forwards the changes of a table to a RabbitMQ queue, with a
// Watermill Router and Watermill's AMQP publisher, and compares what a consumer
// of the queue receives with what was written.
//
//	AMQP_URL=amqp://guest:guest@127.0.0.1:5672/ go run ./examples/to-rabbitmq
//
// That URL is also the default. RabbitMQ cannot run inside the process, so a
// server must run there. The example creates a queue, and deletes it at the
// end. The table is inside the process. It ends by itself, or cleanly on
// Ctrl-C.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	amqpbroker "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/watermill-ots/watermill-ots/examples/forward"
)

func main() { forward.Main("to-rabbitmq", open) }

func open(_ context.Context, b *forward.Broker) error {
	url := cmp.Or(os.Getenv("AMQP_URL"), "amqp://guest:guest@127.0.0.1:5672/")
	uri, err := amqp.ParseURI(url)
	if err != nil { // not in the error, which may quote the password
		return errors.New("AMQP_URL is not a URL of the form amqp://user:password@host:5672/vhost")
	}
	// The publisher does not declare the queue, and messages to a missing queue
	// are lost.
	err = atServer(url, func(conn *amqp.Connection, channel *amqp.Channel) error {
		b.Server = fmt.Sprintf("RabbitMQ %s, %s:%d, queue %s", conn.Properties["version"], uri.Host, uri.Port, b.Name)
		_, err := channel.QueueDeclare(b.Name, true, false, false, false, nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot use RabbitMQ at %s:%d: set AMQP_URL, such as amqp://user:password@host:5672/ (%w)",
			uri.Host, uri.Port, err)
	}
	b.AtEnd(func(context.Context) error {
		return atServer(url, func(_ *amqp.Connection, channel *amqp.Channel) error {
			_, err := channel.QueueDelete(b.Name, false, false, false)
			return err
		})
	})

	config := amqpbroker.NewDurableQueueConfig(url)
	config.Publish.ConfirmDelivery = true // otherwise Publish would return, and the change be acked, before the server has it
	// No ChannelPoolSize: the pool loses channels whenever the connection is
	// lost, and once it is empty, Publish hangs forever (docs/upstream.md).
	b.Publisher, err = amqpbroker.NewPublisher(config, b.Logger)

	// Order per key costs parallelism: it holds with one queue and one consumer
	// at a time (x-single-active-consumer). For more, a consistent hash
	// exchange can spread the keys over several queues.
	b.Read = func(ctx context.Context, got func(string, []byte)) error { return read(ctx, url, b, got) }
	return err
}

// atServer calls f with its own connection.
func atServer(url string, f func(*amqp.Connection, *amqp.Channel) error) error {
	conn, err := amqp.Dial(url)
	if err != nil {
		return err
	}
	defer conn.Close()
	channel, err := conn.Channel()
	if err != nil {
		return err
	}
	return f(conn, channel)
}

const (
	reconnectPause = 500 * time.Millisecond
	reconnectLimit = 20 * time.Second // how long the server may be unavailable
)

// read reads the queue until ctx ends. When the connection is lost it opens
// another one; messages that were not acked are redelivered.
func read(ctx context.Context, url string, b *forward.Broker, got func(uuid string, payload []byte)) error {
	lastRead := time.Now()
	for {
		err := atServer(url, func(_ *amqp.Connection, channel *amqp.Channel) error {
			return consume(ctx, channel, b.Name, func(uuid string, payload []byte) {
				lastRead = time.Now()
				got(uuid, payload)
			})
		})
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(lastRead) > reconnectLimit {
			return err
		}
		b.Logger.Info("The queue cannot be read; reconnecting", watermill.LogFields{"err": fmt.Sprint(err)})
		select {
		case <-time.After(reconnectPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// consume reads the queue until ctx or the connection ends.
func consume(ctx context.Context, channel *amqp.Channel, queue string, got func(uuid string, payload []byte)) error {
	lost := channel.NotifyClose(make(chan *amqp.Error, 1))
	if err := channel.Qos(100, 0, false); err != nil {
		return err
	}
	deliveries, err := channel.ConsumeWithContext(ctx, queue, "", false, true, false, false, nil)
	if err != nil {
		return err
	}
	for d := range deliveries {
		uuid, _ := d.Headers[amqpbroker.DefaultMessageUUIDHeaderKey].(string)
		got(uuid, d.Body)
		if err := d.Ack(false); err != nil {
			return err
		}
	}
	select {
	case err := <-lost:
		return err
	default:
		return nil
	}
}
