package batching

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// Publisher gathers messages of many Publish calls and hands them on in few:
// for publishers that are better at many messages at once, behind Router
// handlers that produce one each.
//
// A batch holds messages of one topic. The order of a topic's messages is kept
// at any Concurrency; different topics are published side by side. Safe for
// concurrent use.
type Publisher struct {
	next     message.Publisher
	batching *Batching
	batcher  *batcher
}

var _ message.Publisher = (*Publisher)(nil)

// NewPublisher returns a Publisher in front of pub. cfg means what it means
// for the middleware, without a Handler: that is pub's Publish. The error wraps
// ErrInvalidConfig and lists all faults. A nil logger logs nothing.
func NewPublisher(pub message.Publisher, cfg Batcher, logger watermill.LoggerAdapter) (*Publisher, error) {
	var faults []error
	if pub == nil {
		faults = append(faults, fmt.Errorf("%w: the publisher is nil", ErrInvalidConfig))
	}
	if cfg.Handler != nil {
		faults = append(faults, fmt.Errorf("%w: Handler is set, but the publisher is what handles the batches", ErrInvalidConfig))
	}
	cfg.Handler = func(_ context.Context, b *Batch) error {
		return pub.Publish(b.Key, b.Messages...)
	}
	b, err := New(Config{Batchers: map[string]Batcher{publisherBatcher: cfg}}, logger)
	if err := errors.Join(append(faults, err)...); err != nil {
		return nil, err
	}
	return &Publisher{next: pub, batching: b, batcher: b.batchers[publisherBatcher]}, nil
}

// publisherBatcher is the name of a Publisher's only batcher, as error texts
// show it.
const publisherBatcher = "publisher"

// Publish adds the messages, in order, to the batch of the topic and waits
// until all are published. It returns what the publisher behind returned for
// the batches that they were in. A batch leaves at once when the context of a
// message in it ends.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	var faults []error
	items := make([]*item, 0, len(messages))
	for _, msg := range messages {
		// A Delivery in the context is not for us: to be published is not to be handled.
		it := &item{Context: msg.Context(), route: route{msg: msg, key: topic}, to: p.batcher, orderKey: topic}
		if p.batcher.MaxBytes > 0 {
			it.weight = max(0, p.batcher.SizeBy(msg))
		}
		if err := p.batching.join(it); err != nil {
			faults = append(faults, err)
			break // a later one must not be published without this one
		}
		items = append(items, it)
	}
	var last error
	for _, it := range items {
		// Messages that failed together share one error: it is told once.
		if err := p.batching.wait(it, nil); err != nil && err != last {
			faults = append(faults, err)
			last = err
		}
	}
	return errors.Join(faults...)
}

// Close publishes what waits, as Batching.Close does, and closes the publisher
// behind.
func (p *Publisher) Close() error {
	return errors.Join(p.batching.Close(), p.next.Close())
}
