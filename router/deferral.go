package router

import (
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
)

// Messages of a pipeline with batches are settled by the goroutines of their batches
// (batching.Join), unless a middleware around the batches needs their outcome. Then each
// message has a goroutine that waits in that middleware.

// defers reports whether the pipeline's messages can be settled by their batches.
func (p parts) defers() bool {
	return !p.trial && len(p.middlewares) == 0 && len(p.handlers.Middlewares) == 0
}

// deferral returns how messages join their batches whose processing step is h.
func (p *policy) deferral(h message.HandlerFunc) *batching.Deferral {
	return &batching.Deferral{
		Process: h,
		Succeeded: func(messages []*message.Message) {
			for _, msg := range messages {
				p.success(msg, arrival{ctx: msg.Context(), id: msg.UUID})
			}
		},
		Failed: func(msg *message.Message, tag any, err error) error {
			came := arrival{ctx: msg.Context(), id: msg.UUID}
			if a, ok := tag.(*arrival); ok {
				came = *a
			}
			return p.conclude(msg, came, err)
		},
	}
}

// handleOwn handles a message in the subscriber's own loop. With batches it returns when
// the message has its place in one.
func (p *pipeline) handleOwn(msg *message.Message) error {
	if p.deferral == nil {
		_, err := p.handle(msg)
		return err
	}
	came := p.policy.snapshot(msg)
	var tag any
	if p.policy.letters != nil { // only a letter needs the message as it arrived
		tag = new(came)
	}
	joined, err := p.join(msg, tag)
	if joined {
		return nil
	}
	if errors.Is(err, errDropped) {
		err = nil
	}
	return p.policy.conclude(msg, came, err)
}

// join turns a panic of Process into an error.
func (p *pipeline) join(msg *message.Message, tag any) (joined bool, err error) {
	_, err = guarded(func(msg *message.Message) ([]*message.Message, error) {
		var err error
		joined, err = p.batches.Join(msg, p.deferral, tag)
		return nil, err
	}, msg)
	return joined, err
}
