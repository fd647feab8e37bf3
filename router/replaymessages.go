package router

import (
	"context"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/internal/feed"
	"github.com/watermill-ots/watermill-ots/ots"
)

// ReplayMessage handles a published dead letter again, through the pipeline that
// it came from. It is a handler for a subscription to the topic of the dead
// letters, such as
//
//	r.Watermill().AddConsumerHandler("replay", "dead-letters", sub, r.ReplayMessage)
//
// and returns the error of the attempt. The letter does not wait for others in its
// batch. Order and further attempts are those of that subscription. The
// message's context bounds the attempt.
func (r *Router) ReplayMessage(msg *message.Message) error {
	return r.replayMessages(msg.Context(), []*message.Message{msg})[0]
}

// ReplayMessages handles published dead letters again, each once, through the
// pipelines that they came from: those of one primary key one at a time, in the given
// order, all others concurrently, in batches. It returns the outcome of each, nil
// for success. After a failure it skips the later letters of that key, and their errors
// wrap ack.ErrCalledBack. It neither acks nor nacks the messages, and ignores their
// contexts: many subscribers end them with the ack.
//
// ReplayMessages does not need Run, and may be called while Run works. Letters that are
// not done when ctx ends or the Router is closed fail.
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

// replayMessages feeds dead letters to their pipelines, to all of them at once.
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
			for i, err := range feed.Run(ctx, f.pipeline.attempt, f.messages, f.keys) {
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
