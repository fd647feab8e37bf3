package behind_test

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	amqpbroker "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	amqp "github.com/rabbitmq/amqp091-go"

	behind "github.com/watermill-ots/watermill-ots/examples/batches-behind"
	"github.com/watermill-ots/watermill-ots/examples/forward/forwardtest"
)

// queue creates a RabbitMQ queue with n messages.
func queue(t *testing.T, n int) (name string, open func(prefetch int) *amqpbroker.Subscriber) {
	t.Helper()
	url := forwardtest.Server(t, "AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
	name = newName()
	conn := must(amqp.Dial(url))(t)
	channel := must(conn.Channel())(t)
	must(channel.QueueDeclare(name, true, false, false, false, nil))(t)
	atEnd(t, "delete the queue", func() error {
		_, err := channel.QueueDelete(name, false, false, false)
		conn.Close()
		return err
	})
	pub := must(amqpbroker.NewPublisher(amqpbroker.NewDurableQueueConfig(url), watermill.NopLogger{}))(t)
	defer pub.Close()
	if err := pub.Publish(name, messages(n)...); err != nil {
		t.Fatal(err)
	}
	return name, func(prefetch int) *amqpbroker.Subscriber {
		config := amqpbroker.NewDurableQueueConfig(url)
		if prefetch > 0 {
			config.Consume.Qos.PrefetchCount = prefetch
		}
		return must(amqpbroker.NewSubscriber(config, watermill.NopLogger{}))(t)
	}
}

func TestRabbitMQ_has_one_message_in_flight_at_any_prefetch_and_one_more_for_each_handler(t *testing.T) {
	t.Parallel()
	t.Run("default", func(t *testing.T) {
		t.Parallel()
		name, open := queue(t, 200)
		oneAtATime(t, behind.Subscription{Subscriber: open(0), Topic: name})
	})
	t.Run("PrefetchCount 100", func(t *testing.T) {
		t.Parallel()
		name, open := queue(t, 200)
		oneAtATime(t, behind.Subscription{Subscriber: open(100), Topic: name})
	})
	t.Run("20 handlers", func(t *testing.T) {
		t.Parallel()
		name, open := queue(t, 400)
		upTo(t, 20, 20, behind.Times(20, open(0), name)...)
	})
}

func TestRabbitMQ_redelivers_what_is_acked_while_the_Router_closes(t *testing.T) {
	t.Parallel()
	isRedelivered(t, func(t *testing.T) func() behind.Subscription {
		name, open := queue(t, 1)
		return func() behind.Subscription { return behind.Subscription{Subscriber: open(0), Topic: name} }
	}, behind.Close)
}

// Watermill's subscriber waits for the ack of a message until it is closed,
// even if the context has ended.
func TestRabbitMQ_accepts_an_ack_after_the_messages_context_ended_unless_the_Router_was_closed(t *testing.T) {
	t.Parallel()
	for _, way := range []behind.Way{behind.Cancel, behind.Stop} {
		t.Run(string(way), func(t *testing.T) {
			t.Parallel()
			name, open := queue(t, 2)
			held, err := behind.AckWhileClosing(t.Context(), way, 0, behind.Subscription{Subscriber: open(0), Topic: name})
			if err != nil {
				t.Fatal(err)
			}
			if !held.ContextEnded || held.UUID != "0" {
				t.Errorf("%+v", held)
			}
			wantDelivered(t, []string{"1"}, behind.Subscription{Subscriber: open(0), Topic: name})
		})
	}
}
