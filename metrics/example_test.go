package metrics_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/metrics"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// A subscriber and its batches in a registry. A program serves the registry with
// promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).
func Example() {
	em, err := emulator.Start(emulator.Options{Instance: "shop", AccessKeyID: "id", AccessKeySecret: "secret"})
	if err != nil {
		log.Fatal(err)
	}
	defer em.Close()
	writeRows(em.Endpoint(), 250)

	m, err := metrics.New(metrics.Config{})
	if err != nil {
		log.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(m)

	sub, err := subscriber.New(subscriber.Config{
		Endpoint: em.Endpoint(), Instance: "shop", AccessKeyID: "id", AccessKeySecret: "secret",
		Tunnel: subscriber.TunnelSpec{Type: subscriber.BaseData},
		OnAck:  m.OnAck(), // for the histograms
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	m.AddSubscriber(sub)

	handled := make(chan int, 10)
	batches, err := batching.New(batching.Config{
		OnBatch: m.OnBatch("warehouse"), // for the histograms
		Batchers: map[string]batching.Batcher{"default": {Size: 100, Timeout: time.Minute, Handler: func(_ context.Context, b *batching.Batch) error {
			handled <- len(b.Messages)
			return nil
		}}},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	m.AddBatching("warehouse", batches)

	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		log.Fatal(err)
	}
	router.AddMiddleware(batches.Middleware)
	topic := testbed.Table + "/to-warehouse"
	if err := sub.SubscribeInitialize(topic); err != nil {
		log.Fatal(err)
	}
	router.AddConsumerHandler("warehouse", topic, sub, func(*message.Message) error { return nil })
	go func() {
		for n := 0; n < 250; {
			n += <-handled
		}
		router.Close() // handled messages are acked first
	}()
	if err := router.Run(context.Background()); err != nil {
		log.Fatal(err)
	}

	families, err := registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		switch name := f.GetName(); name {
		case metrics.Namespace + "_records_read_total":
			fmt.Println(name, f.Metric[0].GetCounter().GetValue())
		case metrics.Namespace + "_batch_size_messages":
			fmt.Println(name, f.Metric[0].GetHistogram().GetSampleCount(), "batches,", f.Metric[0].GetHistogram().GetSampleSum(), "messages")
		}
	}
	// Output:
	// watermill_ots_batch_size_messages 3 batches, 250 messages
	// watermill_ots_records_read_total 250
}

func writeRows(endpoint string, n int) {
	client := tablestore.NewClient(endpoint, "shop", "id", "secret")
	if err := testbed.CreateTable(client); err != nil {
		log.Fatal(err)
	}
	for first := 0; first < n; first += 200 {
		req := new(tablestore.BatchWriteRowRequest)
		for i := first; i < min(first+200, n); i++ {
			req.AddRowChange(testbed.PutChange(testbed.Key(i), 1))
		}
		if err := testbed.BatchWrite(client, req); err != nil {
			log.Fatal(err)
		}
	}
}
