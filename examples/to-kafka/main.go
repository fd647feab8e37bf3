// To-kafka forwards the changes of a table to a Kafka topic, with a Watermill
// Router and Watermill's Kafka publisher, and compares what a consumer of the
// topic receives with what was written.
//
//	go run ./examples/to-kafka
//
// needs only Go: the table and kfake, an imitation of Kafka, are inside the
// process. It ends by itself, or cleanly on Ctrl-C.
//
// With KAFKA_BROKERS set, such as 127.0.0.1:9092 or a list separated by commas,
// it creates a topic there, and deletes it at the end.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/watermill-ots/watermill-ots/examples/forward"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// partitions is the number of partitions of the topic.
const partitions = 6

func main() { forward.Main("to-kafka", open) }

func open(_ context.Context, b *forward.Broker) error {
	brokers, kind := strings.Split(os.Getenv("KAFKA_BROKERS"), ","), "Kafka"
	if brokers[0] == "" {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			return fmt.Errorf("start kfake: %w", err)
		}
		b.AtEnd(func(context.Context) error { cluster.Close(); return nil })
		brokers, kind = cluster.ListenAddrs(), "kfake inside this process"
	}
	config := kafka.DefaultSaramaSyncPublisherConfig()
	// By default the leader's response is enough, and a change is acked before
	// it is replicated.
	config.Producer.RequiredAcks = sarama.WaitForAll
	// A topic that was just created has no leader yet.
	config.Metadata.Retry.Max, config.Metadata.Retry.Backoff = 10, 250*time.Millisecond
	client, err := sarama.NewClient(brokers, config)
	if err != nil {
		return fmt.Errorf("connect to Kafka at %s, of KAFKA_BROKERS: %w", strings.Join(brokers, ","), err)
	}
	b.AtEnd(func(context.Context) error { return client.Close() })
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return err
	}
	detail := &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: int16(min(3, len(client.Brokers())))}
	if err := admin.CreateTopic(b.Name, detail, false); err != nil {
		return fmt.Errorf("create the topic %s: %w", b.Name, err)
	}
	b.AtEnd(func(context.Context) error { return admin.DeleteTopic(b.Name) })
	b.Server = fmt.Sprintf("%s, %s, topic %s with %d partitions", kind, strings.Join(brokers, ","), b.Name, partitions)

	// Order per key requires a key for each message: Kafka keeps order only
	// within a partition, and the key's hash chooses the partition. So the
	// order holds as long as the number of partitions stays the same; and a
	// consumer may handle partitions in parallel, but not the messages of one.
	pub, err := kafka.NewPublisher(kafka.PublisherConfig{
		Brokers: brokers, OverwriteSaramaConfig: config,
		Marshaler: kafka.NewWithPartitioningMarshaler(func(_ string, msg *message.Message) (string, error) {
			return msg.Metadata.Get(subscriber.MetadataKey), nil
		}),
	}, b.Logger)
	if err != nil {
		return err
	}
	b.Publisher = breakerIsTransient{pub}
	b.Read = func(ctx context.Context, got func(string, []byte)) error { return read(ctx, client, b.Name, got) }
	return nil
}

// read reads all partitions side by side.
func read(ctx context.Context, client sarama.Client, topic string, got func(uuid string, payload []byte)) error {
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return err
	}
	defer consumer.Close()
	var reading sync.WaitGroup
	defer reading.Wait()
	for partition := range int32(partitions) {
		messages, err := consumer.ConsumePartition(topic, partition, sarama.OffsetOldest)
		if err != nil {
			return fmt.Errorf("partition %d: %w", partition, err)
		}
		defer messages.AsyncClose() // ends the goroutine below
		reading.Go(func() {
			for m := range messages.Messages() {
				msg, err := kafka.DefaultMarshaler{}.Unmarshal(m)
				if err == nil { // it never fails
					got(msg.UUID, msg.Payload)
				}
			}
		})
	}
	<-ctx.Done()
	return nil
}
