package main

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/watermill-ots/watermill-ots/examples/chaos"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

var chaosSeed = flag.Uint64("chaos.seed", uint64(time.Now().UnixNano()), "seed of the outages")

func TestChaos_Kafka(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	broker := cluster.ListenAddrs()[0]
	client, err := sarama.NewClient([]string{broker}, sarama.NewConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	chaos.Run(t, *chaosSeed, chaos.Sink{
		Server: broker,
		Open: func(t *testing.T, p *chaos.Proxy, topic string, logger watermill.LoggerAdapter) message.Publisher {
			admin, err := sarama.NewClusterAdminFromClient(client)
			if err != nil {
				t.Fatal(err)
			}
			if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false); err != nil {
				t.Fatal(err)
			}
			config := kafka.DefaultSaramaSyncPublisherConfig()
			config.Producer.RequiredAcks = sarama.WaitForAll
			config.Producer.Retry.Max = 0 // the router retries, and keeps the order
			config.Metadata.Retry.Max, config.Metadata.Retry.Backoff = 3, 100*time.Millisecond
			config.Net.MaxOpenRequests = 1
			config.Net.DialTimeout, config.Net.ReadTimeout, config.Net.WriteTimeout = time.Second, time.Second, time.Second
			config.Net.Proxy.Enable, config.Net.Proxy.Dialer = true, p // the broker announces its own address
			pub, err := kafka.NewPublisher(kafka.PublisherConfig{
				Brokers: []string{p.Addr()}, OverwriteSaramaConfig: config,
				Marshaler: kafka.NewWithPartitioningMarshaler(func(_ string, msg *message.Message) (string, error) {
					return msg.Metadata.Get(subscriber.MetadataKey), nil
				}),
			}, logger)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = pub.Close() }) // after the router, which does not close it
			return breakerIsTransient{pub}
		},
		Read: func(ctx context.Context, topic string, got func([]byte)) error {
			return read(ctx, client, topic, func(_ string, payload []byte) { got(payload) })
		},
	})
}
