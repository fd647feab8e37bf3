package batching

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// Publisher collects the messages of many Publish calls and publishes them in few
// calls. Use it in front of publishers that are faster with many messages at once,
// for Router handlers that produce one message each.
//
// A batch holds messages of one topic. The order of a topic's messages is kept
// at any Concurrency; different topics are published concurrently. After a batch
// has failed, messages of its topic that wait behind it are not published: their
// Publish fails with an error that wraps ack.ErrCalledBack, so that the order has no
// gap when all are published again. Publisher is safe for concurrent use.
type Publisher struct {
	next     message.Publisher
	batching *Batching
	batcher  *batcher // its only one
}

var _ message.Publisher = (*Publisher)(nil)

// NewPublisher returns a Publisher in front of pub. cfg has the same meaning as for
// the middleware, but must have no Handler: pub's Publish is the handler. The error
// wraps ErrInvalidConfig and lists all faults. A nil logger discards the log.
func NewPublisher(pub message.Publisher, cfg Batcher, logger watermill.LoggerAdapter) (*Publisher, error) {
	var faults []error
	if pub == nil {
		faults = append(faults, fmt.Errorf("%w: the publisher is nil", ErrInvalidConfig))
	}
	if cfg.Handler != nil {
		faults = append(faults, fmt.Errorf("%w: Handler is set, but the publisher handles the batches", ErrInvalidConfig))
	}
	cfg.Handler = func(_ context.Context, b *Batch) error {
		return pub.Publish(b.Key, b.Messages...)
	}
	b, err := New(Config{Batchers: map[string]Batcher{publisherBatcher: cfg}}, logger)
	if err := errors.Join(append(faults, err)...); err != nil {
		return nil, err
	}
	return &Publisher{next: pub, batching: b, batcher: b.batchers[publisherBatcher].whole}, nil
}

// publisherBatcher is the name of a Publisher's only batcher, as error texts
// show it.
const publisherBatcher = "publisher"

// Publish adds the messages, in order, to the topic's batch and waits until all are
// published. It returns the errors of the underlying publisher for their batches. A
// batch is published at once when the context of a message in it ends.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	var faults []error
	items := make([]*item, 0, len(messages))
	spots := make([]spot, 0, len(messages))
	for _, msg := range messages {
		// A Delivery in the context is not used: it is about handling, not publishing.
		it := &item{Context: msg.Context(), route: route{msg: msg, key: topic}, to: p.batcher, orderKey: topic, ended: over, publishing: true}
		if p.batcher.MaxBytes > 0 {
			it.weight = max(0, p.batcher.SizeBy(msg))
		}
		at, err := p.batching.join(it, "")
		if err != nil {
			faults = append(faults, err)
			break // a later one must not be published without this one
		}
		items, spots = append(items, it), append(spots, at)
	}
	var last error
	for i, it := range items {
		// Messages that failed together share one error, which is returned once.
		if err := p.await(it, spots[i]); err != nil && err != last {
			faults = append(faults, err)
			last = err
		}
	}
	return errors.Join(faults...)
}

// MaxPayloadBytes returns the underlying publisher's MaxPayloadBytes: the largest
// payload that it accepts with any settings. 0: it has no such limit or no such
// method.
func (p *Publisher) MaxPayloadBytes() int {
	if limited, ok := p.next.(interface{ MaxPayloadBytes() int }); ok {
		return limited.MaxPayloadBytes()
	}
	return 0
}

// over is a closed channel: a message's turn ends once it is published.
var over = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// await waits until the item's batch is published. When the item's context ends,
// the batch is published at once.
func (p *Publisher) await(it *item, at spot) error {
	ended := it.Done()
	for {
		select {
		case <-at.changed:
			if at.in != nil && !at.in.split {
				return it.outcome()
			}
			at = p.batching.spotOf(it)
		case <-ended:
			ended = nil
			p.batching.end(it)
		}
	}
}

// Close publishes the waiting messages, as Batching.Close does, and closes the
// underlying publisher.
func (p *Publisher) Close() error {
	return errors.Join(p.batching.Close(), p.next.Close())
}
