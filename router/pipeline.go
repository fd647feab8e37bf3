package router

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
)

// pipeline is the way of a tunnel's messages from the subscriber to their
// outcome, which is what handle returns:
//
//	failure policy ▸ router's middlewares ▸ tunnel's middlewares ▸ batches ▸ slots ▸ Process
//	                                                               (or forward)
//
// The chain is put together here and not by message.Router, which orders
// middlewares by the time they were added, so that its order is always the
// same, and the same in Test and Replay.
type pipeline struct {
	name   string
	policy *policy
	chain  message.HandlerFunc // all but the policy
	handle message.HandlerFunc // all

	batches *batching.Batching // nil without batchers
}

// parts is what a pipeline is made of.
type parts struct {
	name        string
	cfg         Tunnel
	handlers    Handlers
	middlewares []message.HandlerMiddleware // the router's
	publishers  map[string]message.Publisher
	letters     letterbox // nil: messages are tried again for ever
	onBatch     func(batching.Handled)
	stopping    <-chan struct{}
	logger      watermill.LoggerAdapter
	watch       watch
}

// watch is told what happens to messages inside of a pipeline; Test needs it. Both
// functions may be nil.
type watch struct {
	batch func(*batching.Batch) // a batch is about to be handled
	drop  func(*message.Message)
}

// newPipeline puts the parts, which have been checked, together.
func newPipeline(p parts) (*pipeline, error) {
	pl := &pipeline{
		name:   p.name,
		policy: newPolicy(p.name, p.cfg.Failure, p.letters, p.handlers.Failed, p.stopping, p.logger),
	}
	h := withSlots(processing(p.handlers.Process), p.cfg.Processors.Concurrency)
	if len(p.cfg.Batchers) > 0 {
		var err error
		if pl.batches, err = batching.New(p.batching(), p.logger); err != nil {
			return nil, fmt.Errorf("tunnels.%s.batchers: %w", p.name, err)
		}
		h = pl.batches.Middleware(h)
	} else if to := p.cfg.Forward; to != nil {
		h = forwarding(h, p.publishers[to.publisher()], to.Topic)
	}
	h = settlingDrops(h, p.watch.drop)
	for _, m := range backwards(p.handlers.Middlewares) {
		h = m(h)
	}
	for _, m := range backwards(p.middlewares) {
		h = m(h)
	}
	pl.chain, pl.handle = h, pl.policy.middleware(h)
	return pl, nil
}

func backwards[T any](s []T) []T {
	out := make([]T, len(s))
	for i, v := range s {
		out[len(s)-1-i] = v
	}
	return out
}

// batching is the configuration of the pipeline's batches.
func (p parts) batching() batching.Config {
	cfg := batching.Config{
		Batchers:    make(map[string]batching.Batcher, len(p.cfg.Batchers)),
		MaxInFlight: p.cfg.MaxInFlight,
		OnBatch:     p.onBatch,
		// The Router closes the batches when no handler waits for them any
		// more, or has given up waiting.
		CloseTimeout: closeGrace,
	}
	for name, b := range p.cfg.Batchers {
		settings := b.settings()
		settings.Handler = p.handlers.Batches[name]
		if to := b.Forward; to != nil {
			settings.Handler = batching.PublishTo(p.publishers[to.publisher()], to.Topic)
		}
		if p.watch.batch != nil {
			handle := settings.Handler
			settings.Handler = func(ctx context.Context, b *batching.Batch) error {
				p.watch.batch(b)
				return handle(ctx, b)
			}
		}
		cfg.Batchers[name] = settings
	}
	return cfg
}

// errDropped is what Process's ErrDrop becomes on its way out, so that an
// ErrDrop from anywhere else, such as a batch handler, stays a failure.
var errDropped = errors.New("message dropped by Process")

// processing is the handler that calls process.
func processing(process func(*message.Message) error) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		if process == nil {
			return nil, nil
		}
		err := process(msg)
		if errors.Is(err, ErrDrop) {
			return nil, errDropped
		}
		return nil, err
	}
}

// withSlots lets at most n messages into h at once.
func withSlots(h message.HandlerFunc, n int) message.HandlerFunc {
	if n == 0 {
		return h
	}
	slots := make(chan struct{}, n)
	return func(msg *message.Message) ([]*message.Message, error) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			return h(msg)
		case <-msg.Context().Done():
			return nil, fmt.Errorf("waiting for a processor: %w", context.Cause(msg.Context()))
		}
	}
}

// forwarding publishes what h has processed.
func forwarding(h message.HandlerFunc, pub message.Publisher, topic string) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		produced, err := h(msg)
		if err != nil {
			return nil, err
		}
		// A copy, since a publisher may change what it publishes and the
		// message may have to come again.
		out := msg.Copy()
		out.SetContext(msg.Context())
		if err := pub.Publish(topic, out); err != nil {
			return nil, fmt.Errorf("publish to %q: %w", topic, err)
		}
		return produced, nil
	}
}

// settlingDrops makes a success of a drop. It stands close to Process, before any
// middleware could take the error for a failure. That batching has called back
// the key's later messages by then changes nothing: a message without a place
// in a batch has let none of them go.
func settlingDrops(h message.HandlerFunc, tell func(*message.Message)) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		produced, err := h(msg)
		if errors.Is(err, errDropped) {
			if tell != nil {
				tell(msg)
			}
			return nil, nil
		}
		return produced, err
	}
}

// attempt handles msg once, without the policy's counting and dead letters.
func (p *pipeline) attempt(msg *message.Message) error {
	ctx := msg.Context()
	_, err := guarded(p.chain, msg)
	msg.SetContext(ctx)
	if verdictOf(ctx, err) == failed {
		p.policy.tell(msg, err)
	}
	return err
}

// close ends the pipeline's batches.
func (p *pipeline) close() error {
	if p.batches == nil {
		return nil
	}
	if err := p.batches.Close(); err != nil {
		return fmt.Errorf("closing the batches of tunnels.%s: %w", p.name, err)
	}
	return nil
}
