// Package behind measures what batches get from Watermill's own subscribers: how many messages they
// have in flight, how large a batch can be, and what happens to messages that are acked
// while the Router closes. Its tests are the measurements:
//
//	go test -v ./examples/batches-behind
//	go test -v -run TestKafka ./examples/to-kafka
//
// A broker that does not answer is skipped. The table in docs/batching.md holds what they print.
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

// limit is how long a measurement or a step of one may take.
const limit = 60 * time.Second

// Subscription is what one handler of a Router subscribes to.
type Subscription struct {
	Subscriber message.Subscriber
	Topic      string
}

// Times returns n subscriptions to the same topic with the same subscriber: n handlers of one group.
func Times(n int, sub message.Subscriber, topic string) []Subscription {
	all := make([]Subscription, n)
	for i := range all {
		all[i] = Subscription{sub, topic}
	}
	return all
}

// Figures are what Measure finds.
type Figures struct {
	InFlight int // the most messages that were unacked at once
	Largest  int // messages of the largest batch
	Batches  int // how many batches were handled
}

// String returns a line of the tests' output.
func (f Figures) String() string {
	return fmt.Sprintf("%d in flight at most, largest batch %d, of %d batches", f.InFlight, f.Largest, f.Batches)
}

// Measure runs a Router with a handler for each subscription. All handlers share one Batching, whose only
// batcher is b; Measure brings the batch handler. It stops as soon as enough says so, or with an
// error after a minute.
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
	done   chan struct{} // closed when it is enough

	mu       sync.Mutex
	inFlight int
	seen     Figures
	over     bool // done is closed: what happens while the Router closes does not count
}

func (m *meter) figures() Figures {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen
}

// count is the outermost middleware: a message is in flight while its handler runs.
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
