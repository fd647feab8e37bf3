package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// pipeline takes a tunnel's messages from the subscriber to their outcome, which handle
// returns:
//
//	failure policy ▸ router's middlewares ▸ tunnel's middlewares ▸ batches ▸ gate ▸ slots ▸ Process
//	                                                                              (or forward)
//
// The chain is built here and not by message.Router, which orders middlewares by the
// time they were added. So its order is always the same, also in Test and Replay.
type pipeline struct {
	name   string
	policy *policy
	chain  message.HandlerFunc // all steps but the policy
	handle message.HandlerFunc // all steps

	// deferral is how messages join their batches without a goroutine that waits for
	// them; nil if a middleware needs their outcome, or without batchers.
	deferral *batching.Deferral

	stop    context.CancelFunc    // gives back messages that wait
	endErr  atomic.Pointer[error] // why the pipeline ended alone
	waits   atomic.Bool           // Run has not subscribed yet
	gate    *gate                 // nil in Test
	batches *batching.Batching    // nil without batchers
}

// parts is what a pipeline is built from.
type parts struct {
	name        string
	cfg         Tunnel
	handlers    Handlers
	middlewares []message.HandlerMiddleware // the router's
	publishers  map[string]message.Publisher
	letters     letterStore // nil: messages are retried without limit
	onBatch     func(batching.Handled)
	stops       context.Context // ends when the Router stops
	end         func(error)     // ends this pipeline alone
	trial       bool            // for Test: no message is held back
	logger      watermill.LoggerAdapter
	watch       watch
}

// watch has callbacks for what happens to messages inside of a pipeline, for Test. Both may
// be nil.
type watch struct {
	batch func(*batching.Batch)  // a batch is about to be handled
	drop  func(*message.Message) // Process returned ErrDrop
}

// newPipeline builds a pipeline from parts that have been checked.
func newPipeline(p parts) (*pipeline, error) {
	stops, stop := context.WithCancel(p.stops)
	pl := &pipeline{
		name:   p.name,
		policy: newPolicy(p, stops.Done()),
		stop:   stop,
	}
	process := processing(p.handlers.Process)
	for _, m := range backwards(p.handlers.ProcessMiddlewares) {
		process = m(process)
	}
	h := withScopedSlots(process, p.cfg.Processors.Concurrency, p.cfg.scopeOf(), stops.Done())
	if to := p.cfg.Forward; to != nil {
		h = forwarding(h, p.publishers[to.publisher()], to.Topic)
	}
	if !p.trial {
		pl.gate = newGate(stops.Done(), p.logger)
		h = pl.gate.around(h)
	}
	if len(p.cfg.Batchers) > 0 {
		var err error
		if pl.batches, err = batching.New(p.batching(), p.logger); err != nil {
			stop()
			return nil, fmt.Errorf("tunnels.%s.batchers: %w", p.name, err)
		}
		if p.defers() {
			pl.deferral = pl.policy.deferral(h)
		} else if !p.trial {
			p.logger.Info("Each message waits for its batch in a goroutine: a middleware needs its outcome", nil)
		}
		h = pl.batches.Middleware(h)
	}
	h = settlingDrops(h, p.watch.drop)
	for _, m := range backwards(p.handlers.Middlewares) {
		h = m(h)
	}
	for _, m := range backwards(p.middlewares) {
		h = m(h)
	}
	pl.policy.down = pl.batcherDown
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

// batching returns the configuration of the pipeline's batches.
func (p parts) batching() batching.Config {
	cfg := batching.Config{
		Batchers:    make(map[string]batching.Batcher, len(p.cfg.Batchers)),
		MaxInFlight: p.cfg.MaxInFlight,
		Scope:       p.cfg.scopeOf(),
		OnBatch:     p.onBatch,
		NameOf:      nameOf,
		// The Router closes the batches when no handler waits for them any longer.
		CloseTimeout: closeGrace,
	}
	for name, b := range p.cfg.Batchers {
		settings := b.settings(p.cfg.Failure.DeadLetter != nil)
		settings.Probe = !p.trial
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

// errDropped replaces an ErrDrop that Process returned, so that an ErrDrop from
// elsewhere, such as a batch handler, remains a failure.
var errDropped = errors.New("message dropped by Process")

// processing returns the handler that calls process.
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

// nameOf returns the name of a message in the log.
func nameOf(msg *message.Message) string {
	return cmp.Or(msg.Metadata.Get(subscriber.MetadataKey), msg.UUID)
}

// withSlots lets at most n messages into h at once. Messages that wait are given back
// when the pipeline stops.
func withSlots(h message.HandlerFunc, n int, stopping <-chan struct{}) message.HandlerFunc {
	if n == 0 {
		return h
	}
	slots := make(chan struct{}, n)
	return func(msg *message.Message) ([]*message.Message, error) {
		select {
		case slots <- struct{}{}:
		default:
			if err := awaitSlot(msg, slots, stopping); err != nil {
				return nil, err
			}
		}
		defer func() { <-slots }()
		if isClosed(stopping) { // a slot freed by the stop must not start another call
			return nil, fmt.Errorf("waiting for a processor: %w", errGivenBack)
		}
		return h(msg)
	}
}

func awaitSlot(msg *message.Message, slots chan<- struct{}, stopping <-chan struct{}) error {
	defer parked(msg)()
	select {
	case slots <- struct{}{}:
		return nil
	case <-stopping:
		return fmt.Errorf("waiting for a processor: %w", errGivenBack)
	case <-msg.Context().Done():
		return fmt.Errorf("waiting for a processor: %w", context.Cause(msg.Context()))
	}
}

// forwarding publishes the messages that h has processed.
func forwarding(h message.HandlerFunc, pub message.Publisher, topic string) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		produced, err := h(msg)
		if err != nil {
			return nil, err
		}
		// A copy, since a publisher may change what it publishes and the message
		// may be redelivered.
		out := msg.Copy()
		out.SetContext(msg.Context())
		if err := pub.Publish(topic, out); err != nil {
			return nil, fmt.Errorf("publish to %q: %w", topic, err)
		}
		return produced, nil
	}
}

// settlingDrops turns a drop into a success. It is close to Process, so that no
// middleware takes the error for a failure. That batching has called back the key's
// later messages by then has no effect: a message without a place in a batch has not
// handed off to any of them.
func settlingDrops(h message.HandlerFunc, dropped func(*message.Message)) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		produced, err := h(msg)
		if errors.Is(err, errDropped) {
			if dropped != nil {
				dropped(msg)
			}
			return nil, nil
		}
		return produced, err
	}
}

// attempt handles msg once. It is not counted and does not become a dead letter.
func (p *pipeline) attempt(msg *message.Message) error {
	ctx := msg.Context()
	_, err := guarded(p.chain, msg)
	msg.SetContext(ctx)
	if verdictOf(ctx, err) == failed {
		p.policy.callFailed(msg, err)
	}
	return err
}

// batcherDown reports whether one of the batchers has an outage, with messages that wait
// for its end.
func (p *pipeline) batcherDown() bool {
	if p.batches == nil {
		return false
	}
	for _, st := range p.batches.Stats() {
		if !st.DownSince.IsZero() && st.Waiting+st.Handling > 0 {
			return true
		}
	}
	return false
}

// end records why the pipeline ends alone, and gives back the messages that wait in it. It
// reports whether this is the first reason.
func (p *pipeline) end(err error) bool {
	if !p.endErr.CompareAndSwap(nil, &err) {
		return false
	}
	p.stop()
	return true
}

// ended returns why the pipeline ended alone, nil if it did not.
func (p *pipeline) ended() error {
	if err := p.endErr.Load(); err != nil {
		return *err
	}
	return nil
}

// close closes the pipeline's batches.
func (p *pipeline) close() error {
	p.stop()
	if p.batches == nil {
		return nil
	}
	if err := p.batches.Close(); err != nil {
		return fmt.Errorf("closing the batches of tunnels.%s: %w", p.name, err)
	}
	return nil
}
