package router

import (
	"context"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// ReplayMessage handles a published dead letter once more, through the pipeline that
// it came from. It is a handler for a subscription to the topic of the dead
// letters, such as
//
//	r.Watermill().AddConsumerHandler("replay", "dead-letters", sub, r.ReplayMessage)
//
// and returns the error of the attempt. The letter does not wait in its batch for
// others. Order and further attempts are those of that subscription. The
// message's context bounds the attempt.
func (r *Router) ReplayMessage(msg *message.Message) error {
	return r.replayMessages(msg.Context(), []*message.Message{msg})[0]
}

// ReplayMessages handles published dead letters once more, each once, through the
// pipelines that they came from: those of one primary key in the given order, one after the
// other, all others side by side, in batches. It returns what became of each, nil
// for success; after a failure the later letters of that key are left alone, and
// their errors wrap ack.ErrCalledBack. Messages are neither acked nor nacked, and their contexts
// do not matter: many subscribers end them with the ack.
//
// It needs no Run, and may be called while Run does its work. What is not done when ctx ends or
// the Router is closed fails.
func (r *Router) ReplayMessages(ctx context.Context, messages ...*message.Message) []error {
	done, err := r.use("replay messages")
	if err != nil {
		errs := make([]error, len(messages))
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	defer done()
	ctx, cancel := r.bound(ctx)
	defer cancel()
	return r.replayMessages(ctx, messages)
}

// replayMessages handles dead letters in one feed for each pipeline.
func (r *Router) replayMessages(ctx context.Context, messages []*message.Message) []error {
	errs := make([]error, len(messages))
	type feeding struct {
		pipeline *pipeline
		places   []int // in messages
		messages []*message.Message
		keys     []string
	}
	feedings := make(map[string]*feeding)
	for i, msg := range messages {
		l, p, err := r.letterOf(msg)
		if err != nil {
			errs[i] = fmt.Errorf("replay message %s: %w", msg.UUID, err)
			continue
		}
		f := feedings[l.Pipeline]
		if f == nil {
			f = &feeding{pipeline: p}
			feedings[l.Pipeline] = f
		}
		again := l.Message()
		again.SetContext(ctx) // for what it carries, such as a trace
		if l.Record != nil {
			ots.WithRecord(again, l.Record)
		}
		f.places, f.messages, f.keys = append(f.places, i), append(f.messages, again), append(f.keys, orderingKey(again, r.cfg.Tunnels[l.Pipeline]))
	}
	var wg sync.WaitGroup
	for _, f := range feedings {
		wg.Go(func() { // ends with its attempts, which ctx bounds
			feed := feed{handle: f.pipeline.attempt}
			for i, err := range feed.run(ctx, f.messages, f.keys, false) {
				errs[f.places[i]] = err
			}
		})
	}
	wg.Wait()
	return errs
}

// letterOf reads a published dead letter, and finds its pipeline.
func (r *Router) letterOf(msg *message.Message) (*DeadLetter, *pipeline, error) {
	l, err := ParseDeadLetter(msg.Payload)
	if err != nil {
		return nil, nil, err
	}
	if _, ok := r.cfg.Tunnels[l.Pipeline]; !ok {
		return nil, nil, r.unknownTunnel("ReplayMessage", l.Pipeline)
	}
	p, err := r.readyPipeline(l.Pipeline)
	return l, p, err
}
