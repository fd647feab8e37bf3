package health_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/health"
	"github.com/watermill-ots/watermill-ots/metrics"
	"github.com/watermill-ots/watermill-ots/subscriber"
	"github.com/watermill-ots/watermill-ots/tracing"
)

func Example() {
	em, err := emulator.Start(emulator.Options{Instance: "shop", AccessKeyID: "id", AccessKeySecret: "secret"})
	if err != nil {
		log.Fatal(err)
	}
	defer em.Close()
	sub, err := subscriber.New(subscriber.Config{
		Endpoint: em.Endpoint(), Instance: "shop", AccessKeyID: "id", AccessKeySecret: "secret",
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer sub.Close()

	h, err := health.New(health.Config{Title: "order-sync"})
	if err != nil {
		log.Fatal(err)
	}
	h.AddSubscriber(sub)
	listener, err := net.Listen("tcp", "127.0.0.1:0") // h.ListenAndServe(ctx, "") listens on 127.0.0.1:8088
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx, listener) }() // ends with cancel

	resp, err := http.Get("http://" + listener.Addr().String() + "/readyz")
	if err != nil {
		log.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()
	fmt.Print(resp.Status, "\n", string(body))
	cancel()
	if err := <-served; err != nil {
		log.Fatal(err)
	}
	// Output:
	// 503 Service Unavailable
	// not ready
	// - instance shop: nothing is subscribed
}

// A consumer with metrics, health and tracing.
func Example_watching() {
	router, sub := consumer()

	m, err := metrics.New(metrics.Config{}) // Prometheus
	if err != nil {
		log.Fatal(err)
	}
	h, err := health.New(health.Config{Title: "order-sync"}) // /livez, /readyz, a live page
	if err != nil {
		log.Fatal(err)
	}
	tr := tracing.New(tracing.Config{}) // OpenTelemetry

	prometheus.MustRegister(m)
	m.AddSubscriber(sub)
	h.AddSubscriber(sub)
	router.AddMiddleware(tr.Middleware)
	go func() {
		if err := h.ListenAndServe(context.Background(), ""); err != nil { // 127.0.0.1:8088; it shows the drain, too
			log.Fatal(err) // it cannot listen: another process uses the address
		}
	}()
}

// consumer is the program that Example_watching observes.
var consumer func() (*message.Router, *subscriber.Subscriber)
