package behind_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	behind "github.com/watermill-ots/watermill-ots/examples/batches-behind"
)

func TestGoChannel_has_all_messages_in_flight(t *testing.T) {
	t.Parallel()
	pubsub := gochannel.NewGoChannel(gochannel.Config{Persistent: true}, nil)
	if err := pubsub.Publish("orders", messages(300)...); err != nil {
		t.Fatal(err)
	}
	upTo(t, 100, 300, behind.Subscription{Subscriber: pubsub, Topic: "orders"})
}

func TestGoChannel_has_one_message_in_flight_with_BlockPublishUntilSubscriberAck(t *testing.T) {
	t.Parallel()
	pubsub := gochannel.NewGoChannel(gochannel.Config{BlockPublishUntilSubscriberAck: true}, nil)
	var publishing sync.WaitGroup
	t.Cleanup(publishing.Wait) // ends when oneAtATime has closed pubsub
	for range 4 {
		publishing.Go(func() {
			for pubsub.Publish("orders", messages(10)...) == nil {
				time.Sleep(time.Millisecond) // there is no subscriber yet
			}
		})
	}
	oneAtATime(t, behind.Subscription{Subscriber: pubsub, Topic: "orders"})
}

func TestGoChannel_redelivers_nothing(t *testing.T) {
	t.Parallel()
	for _, way := range []behind.Way{behind.Cancel, behind.Stop} {
		t.Run(string(way), func(t *testing.T) {
			t.Parallel()
			pubsub := gochannel.NewGoChannel(gochannel.Config{}, nil)
			held, err := behind.AckWhileClosing(t.Context(), way, 0, behind.Subscription{Subscriber: filled{pubsub}, Topic: "orders"})
			if err != nil {
				t.Fatal(err)
			}
			if !held.ContextEnded {
				t.Error("the message's context did not end")
			}
			wantDelivered(t, nil, behind.Subscription{Subscriber: pubsub, Topic: "orders"})
		})
	}
}

// filled publishes a message after Subscribe, since there is no subscriber
// before. Close does not close the gochannel, for the next subscription: a
// closed gochannel delivers nothing in any case.
type filled struct{ *gochannel.GoChannel }

func (f filled) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	received, err := f.GoChannel.Subscribe(ctx, topic)
	if err != nil {
		return nil, err
	}
	return received, f.Publish(topic, messages(1)...)
}

func (filled) Close() error { return nil }
