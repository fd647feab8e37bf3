// Package behind measures batches with Watermill's own subscribers: how many
// messages they have in flight, how large a batch can become, and what happens
// to messages that are acked while the Router closes. Its tests are the
// measurements:
//
//	go test -v ./examples/batches-behind
//	go test -v -run TestKafka ./examples/to-kafka
//
// Brokers that do not answer are skipped. The table in docs/batching.md
// contains the output.
package behind

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
)

// limit is how long a measurement, or a step of one, may take.
const limit = 60 * time.Second

// Subscription is what a handler of a Router subscribes to.
type Subscription struct {
	Subscriber message.Subscriber
	Topic      string
}

// Times returns n subscriptions to a topic with the same subscriber: n handlers
// of one group.
func Times(n int, sub message.Subscriber, topic string) []Subscription {
	all := make([]Subscription, n)
	for i := range all {
		all[i] = Subscription{sub, topic}
	}
	return all
}

// Figures are the results of Measure.
type Figures struct {
	InFlight int // maximum number of messages that were unacked at the same time
	Largest  int // number of messages in the largest batch
	Batches  int // number of batches that were handled
}

// String returns a line of the tests' output.
func (f Figures) String() string {
	return fmt.Sprintf("at most %d in flight, largest batch %d, of %d batches", f.InFlight, f.Largest, f.Batches)
}

// Measure runs a Router with a handler for each subscription. All handlers
// share one Batching, whose only batcher is b; Measure sets its batch handler.
// It stops when enough returns true, or with an error after a minute.
func Measure(ctx context.Context, b batching.Batcher, enough func(Figures) bool, subscriptions ...Subscription) (Figures, error) {
	m := &meter{enough: enough, done: make(chan struct{})}
	b.Handler = m.handle
	batches, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{batching.DefaultBatcher: b}}, nil)
	if err != nil {
		return Figures{}, err
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: limit}, nil)
	if err != nil {
		return Figures{}, err
	}
	for i, s := range subscriptions {
		router.AddConsumerHandler(fmt.Sprint(i), s.Topic, s.Subscriber, func(*message.Message) error { return nil }).
			AddMiddleware(m.count, batches.Middleware)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- router.Run(ctx) }() // ends with router.Close, below
	select {
	case <-m.done:
	case err = <-stopped:
		stopped <- nil
	case <-time.After(limit):
		err = fmt.Errorf("not enough after %v", limit)
	}
	err = errors.Join(err, router.Close(), <-stopped, batches.Close())
	return m.figures(), err
}

// meter counts messages and batches.
type meter struct {
	enough func(Figures) bool
	done   chan struct{} // closed when enough returns true

	mu       sync.Mutex
	inFlight int
	seen     Figures
	over     bool // done is closed: messages while the Router closes do not count
}

func (m *meter) figures() Figures {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen
}

// count is the outermost middleware: a message is in flight while its handler
// runs.
func (m *meter) count(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		m.add(1)
		defer m.add(-1)
		return next(msg)
	}
}

func (m *meter) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inFlight += n
	if !m.over {
		m.seen.InFlight = max(m.seen.InFlight, m.inFlight)
	}
}

func (m *meter) handle(_ context.Context, b *batching.Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return nil
	}
	m.seen.Batches++
	m.seen.Largest = max(m.seen.Largest, len(b.Messages))
	if m.enough(m.seen) {
		m.over = true
		close(m.done)
	}
	return nil
}
