package chaos_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	amqpbroker "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	natsbroker "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	wmsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"

	"github.com/watermill-ots/watermill-ots/examples/chaos"
	"github.com/watermill-ots/watermill-ots/examples/forward/forwardtest"
)

var seed = flag.Uint64("chaos.seed", uint64(time.Now().UnixNano()), "seed of the outages")

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestChaos_PostgreSQL(t *testing.T) {
	const addr = "127.0.0.1:5432"
	chaos.Skip(t, "PostgreSQL", addr)
	t.Parallel()
	schema := wmsql.DefaultPostgreSQLSchema{}
	connect := func(addr string) (*pgxpool.Pool, error) {
		return pgxpool.New(context.Background(), "postgres://root@"+addr+"/test?sslmode=disable&connect_timeout=1&pool_max_conns=8")
	}
	direct, err := connect(addr)
	must(t, err)
	t.Cleanup(direct.Close)
	chaos.Run(t, *seed, chaos.Sink{
		Server: addr,
		Open: func(t *testing.T, p *chaos.Proxy, topic string, logger watermill.LoggerAdapter) message.Publisher {
			db := wmsql.BeginnerFromPgx(direct)
			sub, err := wmsql.NewSubscriber(db, wmsql.SubscriberConfig{SchemaAdapter: schema, OffsetsAdapter: wmsql.DefaultPostgreSQLOffsetsAdapter{}}, logger)
			must(t, err)
			must(t, sub.SubscribeInitialize(topic)) // creates the tables
			must(t, sub.Close())
			t.Cleanup(func() {
				offsets := wmsql.DefaultPostgreSQLOffsetsAdapter{}.MessagesOffsetsTable(topic)
				if _, err := direct.Exec(context.Background(), fmt.Sprintf("drop table if exists %s, %s", schema.MessagesTable(topic), offsets)); err != nil {
					t.Errorf("dropping the tables: %v", err)
				}
			})
			pool, err := connect(p.Addr())
			must(t, err)
			t.Cleanup(pool.Close)
			pub, err := wmsql.NewPublisher(wmsql.BeginnerFromPgx(pool), wmsql.PublisherConfig{SchemaAdapter: schema}, logger)
			must(t, err)
			return pub
		},
		Read: func(ctx context.Context, topic string, got func([]byte)) error {
			seen := make(map[int64]bool) // a row may become visible after one with a higher offset
			for ctx.Err() == nil {
				rows, err := direct.Query(context.WithoutCancel(ctx), `select "offset", payload from `+schema.MessagesTable(topic)+` order by "offset"`)
				if err != nil {
					return err
				}
				for rows.Next() {
					var offset int64
					var payload json.RawMessage
					if err := rows.Scan(&offset, &payload); err != nil {
						return err
					}
					if !seen[offset] {
						seen[offset] = true
						got(payload)
					}
				}
				if err := rows.Err(); err != nil {
					return err
				}
				pause(ctx, 200*time.Millisecond)
			}
			return nil
		},
	})
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func TestChaos_Redis(t *testing.T) {
	const addr = "127.0.0.1:6379"
	chaos.Skip(t, "Redis", addr)
	t.Parallel()
	direct := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { direct.Close() })
	chaos.Run(t, *seed, chaos.Sink{
		Server: addr,
		Open: func(t *testing.T, p *chaos.Proxy, topic string, logger watermill.LoggerAdapter) message.Publisher {
			t.Cleanup(func() {
				if err := direct.Del(context.Background(), topic).Err(); err != nil {
					t.Errorf("deleting the stream: %v", err)
				}
			})
			client := redis.NewClient(&redis.Options{Addr: p.Addr(), MaxRetries: -1, DialTimeout: time.Second, ReadTimeout: time.Second}) // no retries inside the client
			t.Cleanup(func() { client.Close() })
			pub, err := redisstream.NewPublisher(redisstream.PublisherConfig{Client: client}, logger)
			must(t, err)
			return pub
		},
		Read: func(ctx context.Context, topic string, got func([]byte)) error {
			for after := "0"; ctx.Err() == nil; {
				found, err := direct.XRead(context.WithoutCancel(ctx), &redis.XReadArgs{Streams: []string{topic, after}, Count: 100, Block: 100 * time.Millisecond}).Result()
				if errors.Is(err, redis.Nil) { // nothing within the time of Block
					continue
				}
				if err != nil {
					return err
				}
				for _, entry := range found[0].Messages {
					msg, err := redisstream.DefaultMarshallerUnmarshaller{}.Unmarshal(entry.Values)
					if err != nil {
						return err
					}
					got(msg.Payload)
					after = entry.ID
				}
			}
			return nil
		},
	})
}

func TestChaos_NATS_JetStream(t *testing.T) {
	const addr = "127.0.0.1:4222"
	chaos.Skip(t, "NATS", addr)
	t.Parallel()
	conn, err := nats.Connect("nats://" + addr)
	must(t, err)
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	must(t, err)
	if _, err := js.AccountInfo(t.Context()); err != nil {
		t.Skipf("the NATS server at %s has no JetStream: %v", addr, err)
	}
	chaos.Run(t, *seed, chaos.Sink{
		Server: addr,
		Open: func(t *testing.T, p *chaos.Proxy, topic string, logger watermill.LoggerAdapter) message.Publisher {
			_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: topic, Subjects: []string{topic}})
			must(t, err)
			t.Cleanup(func() {
				if err := js.DeleteStream(context.Background(), topic); err != nil {
					t.Errorf("deleting the stream: %v", err)
				}
			})
			pub, err := natsbroker.NewPublisher(natsbroker.PublisherConfig{
				URL: "nats://" + p.Addr(),
				// Messages that are published without a connection fail at
				// once: if they were buffered, they would be sent after
				// messages that were published later.
				NatsOptions: []nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(100 * time.Millisecond), nats.ReconnectBufSize(-1), nats.IgnoreDiscoveredServers()},
				JetStream:   natsbroker.JetStreamConfig{TrackMsgId: true},
			}, logger)
			must(t, err)
			t.Cleanup(func() { _ = pub.Close() }) // after the router, which does not close it
			return pub
		},
		Read: func(ctx context.Context, topic string, got func([]byte)) error {
			consumer, err := js.OrderedConsumer(ctx, topic, jetstream.OrderedConsumerConfig{})
			if err != nil {
				return err
			}
			consuming, err := consumer.Consume(func(msg jetstream.Msg) { got(msg.Data()) })
			if err != nil {
				return err
			}
			<-ctx.Done()
			consuming.Stop()
			<-consuming.Closed()
			return nil
		},
	})
}

func TestChaos_RabbitMQ(t *testing.T) {
	const addr = "127.0.0.1:5672"
	forwardtest.ReconnectsRabbitMQ(t)
	chaos.Skip(t, "RabbitMQ", addr)
	t.Parallel()
	conn, err := amqp.Dial("amqp://guest:guest@" + addr + "/")
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	channel, err := conn.Channel()
	must(t, err)
	chaos.Run(t, *seed, chaos.Sink{
		Server: addr,
		Open: func(t *testing.T, p *chaos.Proxy, topic string, logger watermill.LoggerAdapter) message.Publisher {
			_, err := channel.QueueDeclare(topic, true, false, false, false, nil)
			must(t, err)
			t.Cleanup(func() {
				if _, err := channel.QueueDelete(topic, false, false, false); err != nil {
					t.Errorf("deleting the queue: %v", err)
				}
			})
			config := amqpbroker.NewDurableQueueConfig("amqp://guest:guest@" + p.Addr() + "/")
			config.Publish.ConfirmDelivery = true
			config.Connection.Reconnect = &amqpbroker.ReconnectConfig{BackoffInitialInterval: 50 * time.Millisecond, BackoffMultiplier: 1.5, BackoffMaxInterval: 300 * time.Millisecond}
			pub, err := amqpbroker.NewPublisher(config, logger)
			must(t, err)
			t.Cleanup(func() { _ = pub.Close() }) // after the router, which does not close it
			return pub
		},
		Read: func(ctx context.Context, topic string, got func([]byte)) error {
			deliveries, err := channel.ConsumeWithContext(ctx, topic, "", true, true, false, false, nil)
			if err != nil {
				return err
			}
			for d := range deliveries { // until ctx or the connection ends
				got(d.Body)
			}
			return nil
		},
	})
}
