package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/IBM/sarama"

	"github.com/watermill-ots/watermill-ots/examples/forward/forwardtest"
	"github.com/watermill-ots/watermill-ots/examples/simple/exampletest"
)

func TestMain(m *testing.M) { exampletest.Main(m, main) }

func TestToKafka_forwards_each_change_in_order(t *testing.T) {
	t.Run("embedded", func(t *testing.T) { forwardtest.Forwards(t, false, "KAFKA_BROKERS=") })
	t.Run("server", func(t *testing.T) {
		brokers := os.Getenv("KAFKA_BROKERS")
		if brokers == "" {
			forwardtest.Server(t, "KAFKA_BROKERS", "tcp://127.0.0.1:9092")
			brokers = "127.0.0.1:9092"
		}
		name := forwardtest.Forwards(t, false, "KAFKA_BROKERS="+brokers)
		client, err := sarama.NewClient(strings.Split(brokers, ","), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if topics, err := client.Topics(); err != nil || slices.Contains(topics, name) {
			t.Errorf("the topic %s was not deleted: %v", name, err)
		}
	})
}

func TestToKafka_says_which_server_it_cannot_use(t *testing.T) {
	forwardtest.Refuses(t, "KAFKA_BROKERS", "127.0.0.1:1")
}
