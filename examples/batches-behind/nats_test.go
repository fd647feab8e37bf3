package behind_test

import (
	"testing"
	"time"

	natsbroker "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/nats-io/nats.go"

	behind "github.com/watermill-ots/watermill-ots/examples/batches-behind"
	"github.com/watermill-ots/watermill-ots/examples/forward/forwardtest"
)

// natsStream creates a stream of NATS JetStream with n messages and a durable
// consumer, which redelivers messages that are not acked within a second.
func natsStream(t *testing.T, n int) (name string, open func(natsbroker.SubscriberConfig) *natsbroker.Subscriber) {
	t.Helper()
	if raceEnabled {
		t.Skip("skipped with -race: watermill-nats v2.1.3 closes the channel of its messages while a callback may still send to it")
	}
	url := forwardtest.Server(t, "NATS_URL", "nats://127.0.0.1:4222")
	name = newName()
	conn := must(nats.Connect(url))(t)
	js := must(conn.JetStream())(t)
	must(js.AddStream(&nats.StreamConfig{Name: name, Subjects: []string{name}}))(t)
	atEnd(t, "delete the stream", func() error {
		err := js.DeleteStream(name)
		conn.Close()
		return err
	})
	must(js.AddConsumer(name, &nats.ConsumerConfig{
		Durable: "batches", DeliverSubject: nats.NewInbox(), DeliverGroup: "batches", FilterSubject: name,
		AckPolicy: nats.AckExplicitPolicy, AckWait: time.Second, MaxAckPending: 10_000,
	}))(t)
	pub := must(natsbroker.NewPublisher(natsbroker.PublisherConfig{URL: url}, nil))(t)
	defer pub.Close()
	if err := pub.Publish(name, messages(n)...); err != nil {
		t.Fatal(err)
	}
	return name, func(config natsbroker.SubscriberConfig) *natsbroker.Subscriber {
		config.URL, config.QueueGroupPrefix, config.JetStream.DurablePrefix = url, "batches", "batches"
		config.JetStream.SubscribeOptions = []nats.SubOpt{nats.Bind(name, "batches"), nats.ManualAck()}
		return must(natsbroker.NewSubscriber(config, nil))(t)
	}
}

func TestNATS_has_one_message_in_flight_for_each_of_SubscribersCount(t *testing.T) {
	t.Parallel()
	t.Run("default", func(t *testing.T) {
		t.Parallel()
		name, open := natsStream(t, 200)
		oneAtATime(t, behind.Subscription{Subscriber: open(natsbroker.SubscriberConfig{}), Topic: name})
	})
	t.Run("AckAsync", func(t *testing.T) {
		t.Parallel()
		name, open := natsStream(t, 200)
		oneAtATime(t, behind.Subscription{Topic: name,
			Subscriber: open(natsbroker.SubscriberConfig{JetStream: natsbroker.JetStreamConfig{AckAsync: true}})})
	})
	t.Run("SubscribersCount 100", func(t *testing.T) {
		t.Parallel()
		name, open := natsStream(t, 4000)
		upTo(t, 100, 100, behind.Subscription{Subscriber: open(natsbroker.SubscriberConfig{SubscribersCount: 100}), Topic: name})
	})
}

func TestNATS_redelivers_what_is_acked_while_the_Router_closes(t *testing.T) {
	t.Parallel()
	isRedelivered(t, func(t *testing.T) func() behind.Subscription {
		name, open := natsStream(t, 1)
		return func() behind.Subscription {
			return behind.Subscription{Subscriber: open(natsbroker.SubscriberConfig{}), Topic: name}
		}
	}, behind.Close, behind.Cancel, behind.Stop)
}
