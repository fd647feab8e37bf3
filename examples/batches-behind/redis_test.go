package behind_test

import (
	"context"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/redis/go-redis/v9"

	behind "github.com/watermill-ots/watermill-ots/examples/batches-behind"
	"github.com/watermill-ots/watermill-ots/examples/forward/forwardtest"
)

// redisStream creates a Redis stream with n messages. Messages that were not
// acked are claimed after half a second.
func redisStream(t *testing.T, n int) (name string, open func() *redisstream.Subscriber) {
	t.Helper()
	url := forwardtest.Server(t, "REDIS_URL", "redis://127.0.0.1:6379/0")
	options := must(redis.ParseURL(url))(t)
	options.PoolSize = 64 // a blocked read occupies a connection
	name = newName()
	client := redis.NewClient(options)
	atEnd(t, "delete the stream", func() error {
		err := client.Del(context.Background(), name).Err()
		client.Close()
		return err
	})
	pub := must(redisstream.NewPublisher(redisstream.PublisherConfig{Client: client}, nil))(t)
	if err := pub.Publish(name, messages(n)...); err != nil {
		t.Fatal(err)
	}
	return name, func() *redisstream.Subscriber {
		return must(redisstream.NewSubscriber(redisstream.SubscriberConfig{
			Client: redis.NewClient(options), ConsumerGroup: "batches",
			MaxIdleTime: 500 * time.Millisecond, ClaimInterval: 100 * time.Millisecond,
		}, nil))(t)
	}
}

func TestRedis_has_one_message_in_flight_for_each_handler(t *testing.T) {
	t.Parallel()
	t.Run("default", func(t *testing.T) {
		t.Parallel()
		name, open := redisStream(t, 200)
		oneAtATime(t, behind.Subscription{Subscriber: open(), Topic: name})
	})
	t.Run("20 handlers", func(t *testing.T) {
		t.Parallel()
		name, open := redisStream(t, 400)
		upTo(t, 20, 20, behind.Times(20, open(), name)...)
	})
}

func TestRedis_redelivers_what_is_acked_while_the_Router_closes(t *testing.T) {
	t.Parallel()
	isRedelivered(t, func(t *testing.T) func() behind.Subscription {
		name, open := redisStream(t, 1)
		return func() behind.Subscription { return behind.Subscription{Subscriber: open(), Topic: name} }
	}, behind.Close, behind.Cancel, behind.Stop)
}
