package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsbroker "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/nats-io/nats.go"

	"github.com/watermill-ots/watermill-ots/batching"
)

func TestMain_handles_all_orders(t *testing.T) {
	if err := run(t.Context(), 200, 10); err != nil {
		t.Fatal(err)
	}
}

func TestMain_ends_when_it_is_interrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, 200, 10); err != nil {
		t.Fatal(err)
	}
}

// recorder is a batch handler that records its calls.
type recorder struct {
	fail func(call int, b *batching.Batch) error // nil: succeed

	mu     sync.Mutex
	calls  []call
	done   map[string]int // by UUID: how often it succeeded
	failed int            // messages of calls that failed
}

type call struct {
	size    int
	trigger batching.Trigger
}

func (r *recorder) handle(_ context.Context, b *batching.Batch) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, call{len(b.Messages), b.Trigger})
	returned := false
	defer func() { // passes a panic on
		for _, msg := range b.Messages {
			if returned && err == nil && b.Err(msg) == nil {
				r.done[msg.UUID]++
			} else {
				r.failed++
			}
		}
	}()
	if r.fail != nil {
		err = r.fail(len(r.calls), b)
	}
	returned = true
	return err
}

func (r *recorder) handled() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.done)
}

func (r *recorder) failures() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// check checks that orders 0 to n-1 succeeded, each once.
func (r *recorder) check(t *testing.T, n int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range n {
		if got := r.done[fmt.Sprint(i)]; got != 1 {
			t.Errorf("order %d succeeded %d times", i, got)
		}
	}
	if len(r.done) != n {
		t.Errorf("%d orders succeeded, %d were published", len(r.done), n)
	}
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20s: %s", what)
		}
	}
}

// rig is a broker and its consumer.
type rig struct {
	*broker
	recorder
	router  *message.Router
	batches *batching.Batching
	stopped chan error
	arrived atomic.Int64 // calls of the processing step
}

func newBroker(t *testing.T, ackWait time.Duration) *broker {
	t.Helper()
	b, err := startBroker(t.TempDir(), ackWait)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	return b
}

// consume starts a Router with batches; the step's output, a message with the
// same UUID, goes to "orders.done".
func (b *broker) consume(t *testing.T, inFlight int, cfg batching.Batcher, fail func(int, *batching.Batch) error, outside ...message.HandlerMiddleware) *rig {
	t.Helper()
	r := &rig{broker: b, recorder: recorder{fail: fail, done: map[string]int{}}, stopped: make(chan error, 1)}
	cfg.Handler = r.handle
	var err error
	if r.batches, err = batching.New(batching.Config{Batchers: map[string]batching.Batcher{batching.DefaultBatcher: cfg}}, nil); err != nil {
		t.Fatal(err)
	}
	sub, err := b.subscriber(inFlight)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := b.publisher()
	if err != nil {
		t.Fatal(err)
	}
	if r.router, err = message.NewRouter(message.RouterConfig{}, nil); err != nil {
		t.Fatal(err)
	}
	r.router.AddMiddleware(outside...)
	r.router.AddMiddleware(r.batches.Middleware)
	r.router.AddHandler("orders", stream, sub, stream+".done", pub, func(msg *message.Message) ([]*message.Message, error) {
		r.arrived.Add(1)
		return []*message.Message{message.NewMessage(msg.UUID, nil)}, nil
	})
	go func() { r.stopped <- r.router.Run(context.Background()) }() // ends with close
	<-r.router.Running()
	return r
}

func (r *rig) close(t *testing.T) {
	t.Helper()
	if err := errors.Join(r.router.Close(), <-r.stopped, r.batches.Close()); err != nil {
		t.Errorf("closing: %v", err)
	}
}

// acked returns the sequence up to which the server has all acks, and how many
// later deliveries wait for theirs.
func (b *broker) acked(t *testing.T) (floor, pending int) {
	t.Helper()
	info, err := b.js.ConsumerInfo(stream, consumer)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.AckFloor.Consumer), info.NumAckPending
}

func (b *broker) awaitAllAcked(t *testing.T, deliveries int) {
	t.Helper()
	eventually(t, fmt.Sprintf("all of %d deliveries are settled", deliveries), func() bool {
		floor, pending := b.acked(t)
		return floor >= deliveries && pending == 0
	})
}

// published returns the number of messages in "orders.done".
func (b *broker) published(t *testing.T) int {
	t.Helper()
	info, err := b.js.StreamInfo(stream, &nats.StreamInfoRequest{SubjectsFilter: stream + ".done"})
	if err != nil {
		t.Fatal(err)
	}
	return int(info.State.Subjects[stream+".done"])
}

// TestJetStream_fills_batches: the server spreads messages over the queue group
// at random, and those after a waiting one arrive later, so some batches need
// their Timeout.
func TestJetStream_fills_batches(t *testing.T) {
	const orders, size = 1000, 20
	r := newBroker(t, time.Minute).consume(t, 2*size, batching.Batcher{Size: size, Timeout: 200 * time.Millisecond}, nil)
	if err := r.publish(orders); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all orders are handled", func() bool { return r.handled() == orders })
	r.awaitAllAcked(t, orders)
	eventually(t, "all messages are published", func() bool { return r.published(t) == orders })
	r.close(t)
	r.check(t, orders)
	full := 0
	for i, c := range r.calls {
		switch {
		case c.size == size && c.trigger == batching.TriggerSize:
			full++
		case c.size > size || c.trigger != batching.TriggerTimeout && c.size != size:
			t.Errorf("call %d has %d orders by %s", i, c.size, c.trigger)
		}
	}
	if full < orders/size/2 {
		t.Errorf("%d batches of %d were full", full, len(r.calls))
	}
}

func TestJetStream_redelivers_what_failed_and_nothing_else(t *testing.T) {
	const orders = 200
	bad := errors.New("simulated")
	for _, tc := range []struct {
		name string
		fail func(call int, b *batching.Batch) error
	}{
		{"a_batch", func(call int, b *batching.Batch) error {
			if call == 1 {
				return bad
			}
			return nil
		}},
		{"a_batch_that_panics", func(call int, b *batching.Batch) error {
			if call == 1 {
				panic(bad)
			}
			return nil
		}},
		{"one_message_given_to_Fail", func(call int, b *batching.Batch) error {
			if call == 1 {
				b.Fail(b.Messages[len(b.Messages)/2], bad)
			}
			return nil
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newBroker(t, time.Minute).consume(t, 20, batching.Batcher{Size: 10, Timeout: 200 * time.Millisecond}, tc.fail)
			if err := r.publish(orders); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all orders are handled", func() bool { return r.handled() == orders })
			// A nack also settles a delivery: the consumer's count says how
			// many deliveries there were.
			r.awaitAllAcked(t, orders+r.failures())
			info, err := r.js.ConsumerInfo(stream, consumer)
			if err != nil {
				t.Fatal(err)
			}
			if got := int(info.Delivered.Consumer); got != orders+r.failures() || got == orders {
				t.Errorf("%d deliveries of %d orders, %d of which failed once", got, orders, r.failures())
			}
			if got := r.published(t); got != orders {
				t.Errorf("%d messages were produced, want %d", got, orders)
			}
			r.close(t)
			r.check(t, orders)
		})
	}
}

func TestJetStream_with_Retry_and_PoisonQueue_outside(t *testing.T) {
	const orders = 100
	b := newBroker(t, time.Minute)
	pub, err := b.publisher()
	if err != nil {
		t.Fatal(err)
	}
	poison, err := middleware.PoisonQueueWithFilter(pub, stream+".poison", batching.IsFailure)
	if err != nil {
		t.Fatal(err)
	}
	retry := middleware.Retry{MaxRetries: 2, InitialInterval: 10 * time.Millisecond, MaxInterval: 10 * time.Millisecond, Multiplier: 1}
	tries := 0
	r := b.consume(t, 20, batching.Batcher{Size: 10, Timeout: 50 * time.Millisecond, Isolate: true}, func(_ int, batch *batching.Batch) error {
		for _, msg := range batch.Messages {
			if msg.UUID != "42" {
				continue
			}
			if len(batch.Messages) == 1 {
				tries++
			}
			return errors.New("simulated")
		}
		return nil
	}, poison, retry.Middleware)
	if err := r.publish(orders); err != nil {
		t.Fatal(err)
	}
	r.awaitAllAcked(t, orders)
	r.close(t)
	if err := pub.Close(); err != nil {
		t.Error(err)
	}
	msg, err := r.js.GetLastMsg(stream, stream+".poison")
	if err != nil {
		t.Fatalf("nothing is in the poison queue: %v", err)
	}
	if got := msg.Header.Get(natsbroker.WatermillUUIDHdr); got != "42" {
		t.Errorf("order %s is in the poison queue", got)
	}
	if tries != 3 {
		t.Errorf("the order failed alone %d times, want 3", tries)
	}
	r.done["42"] = 1 // in the poison queue
	r.check(t, orders)
}

// TestJetStream_leaves_half_filled_batches_for_redelivery_when_the_Router_closes:
// by then the subscriber does not ack any more, so the next one receives the
// orders again.
func TestJetStream_leaves_half_filled_batches_for_redelivery_when_the_Router_closes(t *testing.T) {
	const orders = 7
	b := newBroker(t, 2*time.Second)
	r := b.consume(t, 20, batching.Batcher{Size: 20, Timeout: time.Minute}, nil)
	if err := b.publish(orders); err != nil {
		t.Fatal(err)
	}
	// Not all of them: the server may send two to the same subscriber, which
	// holds one at a time.
	eventually(t, "some orders wait in the batch", func() bool { return r.arrived.Load() >= 2 })
	began := time.Now()
	r.close(t)
	if took := time.Since(began); took > time.Second {
		t.Errorf("closing took %v", took)
	}
	if n := r.handled(); n != 0 {
		t.Errorf("%d orders were handled although no ack counts", n)
	}

	again := b.consume(t, 20, batching.Batcher{Size: 20, Timeout: 50 * time.Millisecond}, nil)
	eventually(t, "all orders are redelivered", func() bool { return again.handled() == orders })
	eventually(t, "all are acked", func() bool { _, pending := b.acked(t); return pending == 0 })
	again.close(t)
	again.check(t, orders)
}
