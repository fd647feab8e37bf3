package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/watermill-ots/watermill-ots/batching"
	behind "github.com/watermill-ots/watermill-ots/examples/batches-behind"
)

// kafkaTopic creates a topic with the given number of partitions and n
// messages, spread over them, on the brokers of KAFKA_BROKERS or in its own
// kfake.
func kafkaTopic(t *testing.T, partitions int32, n int) (topic string, open func() *kafka.Subscriber) {
	t.Helper()
	brokers := strings.Split(os.Getenv("KAFKA_BROKERS"), ",")
	if brokers[0] == "" {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cluster.Close)
		brokers = cluster.ListenAddrs()
	}
	topic = "behind-" + watermill.NewShortUUID()
	admin, err := sarama.NewClusterAdmin(brokers, kafka.DefaultSaramaSyncPublisherConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close() })
	if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := admin.DeleteTopic(topic); err != nil {
			t.Error("delete the topic:", err)
		}
	})
	pub, err := kafka.NewPublisher(kafka.PublisherConfig{
		Brokers: brokers, Marshaler: kafka.NewWithPartitioningMarshaler(func(_ string, msg *message.Message) (string, error) { return msg.UUID, nil }),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer pub.Close()
	for i := range n {
		if err := pub.Publish(topic, message.NewMessage(strconv.Itoa(i), nil)); err != nil {
			t.Fatal(err)
		}
	}
	return topic, func() *kafka.Subscriber {
		config := kafka.DefaultSaramaSubscriberConfig()
		config.Consumer.Offsets.Initial = sarama.OffsetOldest
		sub, err := kafka.NewSubscriber(kafka.SubscriberConfig{
			Brokers: brokers, Unmarshaler: kafka.DefaultMarshaler{}, ConsumerGroup: "batches", OverwriteSaramaConfig: config,
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return sub
	}
}

func TestKafka_has_one_message_in_flight_for_each_partition(t *testing.T) {
	for _, partitions := range []int{1, 6} {
		t.Run(fmt.Sprintf("%d partitions", partitions), func(t *testing.T) {
			topic, open := kafkaTopic(t, int32(partitions), 200)
			batches := 0
			f, err := behind.Measure(t.Context(), batching.Batcher{Size: 100, Timeout: time.Second}, func(f behind.Figures) bool {
				batches = f.Batches
				return f.Largest == partitions && batches >= 3
			}, behind.Subscription{Subscriber: open(), Topic: topic})
			if err != nil {
				t.Fatal(err, f)
			}
			t.Log(f)
			if f.InFlight != partitions || f.Largest != partitions {
				t.Errorf("want one per partition: %s", f)
			}
		})
	}
}

func TestKafka_redelivers_what_is_acked_while_the_Router_closes(t *testing.T) {
	for _, way := range []behind.Way{behind.Close, behind.Cancel, behind.Stop} {
		t.Run(string(way), func(t *testing.T) {
			topic, open := kafkaTopic(t, 1, 3)
			held, err := behind.AckWhileClosing(t.Context(), way, 1, behind.Subscription{Subscriber: open(), Topic: topic})
			if err != nil {
				t.Fatal(err)
			}
			uuids, err := behind.Delivered(t.Context(), behind.Subscription{Subscriber: open(), Topic: topic},
				func(uuids []string) bool { return slices.Contains(uuids, held.UUID) }, 30*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: held %+v, came %q", way, held, uuids)
			if !held.ContextEnded || !slices.Contains(uuids, held.UUID) {
				t.Errorf("context ended %t; message %s is not among %q", held.ContextEnded, held.UUID, uuids)
			}
		})
	}
}
