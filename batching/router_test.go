package batching

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
)

// startRouter runs h behind b for all messages of topic "in" from sub; pub publishes
// to "out" what h produces. The channel receives the error that the Router ends with.
func startRouter(t *testing.T, sub message.Subscriber, pub message.Publisher, h message.HandlerFunc, b *Batching) (*message.Router, <-chan error) {
	t.Helper()
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	router.AddHandler("h", "in", sub, "out", pub, h).AddMiddleware(b.Middleware)
	stopped := make(chan error, 1)
	go func() { stopped <- router.Run(t.Context()) }()
	<-router.Running()
	return router, stopped
}

// TestRouter runs the middleware in Watermill's own Router.
func TestRouter(t *testing.T) {
	t.Run("closes_at_once_with_half_filled_60s_batches_handled_and_acked", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			s := newSource(1000, time.Second)
			out := &published{}
			b := mustNew(t, one(Batcher{Size: 1000, Timeout: time.Minute, Handler: r.handle}), nil)
			router, stopped := startRouter(t, s, out, nop, b)
			for i := range 30 {
				s.add(fmt.Sprint("k", i), fmt.Sprint(i%3))
			}
			time.Sleep(time.Second)
			start := time.Now()
			equal(t, "router.Close", router.Close(), nil)
			equal(t, "Run", <-stopped, nil)
			equal(t, "Close", b.Close(), nil)
			if took := time.Since(start); took > time.Second {
				t.Errorf("closing took %v", took)
			}
			equal(t, "acked", s.count(acked), 30)
			equal(t, "batches", len(r.seen()), 1)
		})
	})

	t.Run("a_subscriber_without_Delivery_has_its_batches_handled_when_the_router_closes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			pubsub := gochannel.NewGoChannel(gochannel.Config{}, nil)
			b := mustNew(t, one(Batcher{Size: 1000, Timeout: time.Minute, Handler: r.handle}), nil)
			router, stopped := startRouter(t, pubsub, &published{}, nop, b)
			for i := range 5 {
				if err := pubsub.Publish("in", msgOf(fmt.Sprint(i))); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
			start := time.Now()
			equal(t, "router.Close", router.Close(), nil)
			equal(t, "Run", <-stopped, nil)
			equal(t, "Close", b.Close(), nil)
			if took := time.Since(start); took > time.Second {
				t.Errorf("closing took %v", took)
			}
			// gochannel keeps one message in flight for each Publish: all five. It
			// ends their contexts, after which no ack counts.
			equal(t, "calls", len(r.seen()), 0)
			pubsub.Close()
		})
	})

	t.Run("publishes_what_the_step_produced_when_the_batch_succeeded", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			in := gochannel.NewGoChannel(gochannel.Config{}, nil)
			out := gochannel.NewGoChannel(gochannel.Config{}, nil)
			published, err := out.Subscribe(t.Context(), "out")
			equal(t, "error", err, nil)
			b := mustNew(t, one(Batcher{Size: 1, Handler: r.failFirst(1)}), nil)
			router, stopped := startRouter(t, in, out, produce, b)
			if err := in.Publish("in", msgOf("a")); err != nil {
				t.Fatal(err)
			}
			msg := <-published
			msg.Ack()
			equal(t, "published", msg.UUID, "out-a")
			equal(t, "after the failed batch was redelivered", r.batches(), "a|a")
			equal(t, "router.Close", router.Close(), nil)
			equal(t, "Run", <-stopped, nil)
			equal(t, "Close", b.Close(), nil)
			in.Close()
			out.Close()
		})
	})
}
