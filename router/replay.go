package router

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Replayed counts what Replay did.
type Replayed struct {
	Succeeded int // handled, and removed from the table
	Failed    int // failed again; the table has the new error and the number of attempts
	Skipped   int // not handled, since an earlier letter of the same key failed, or Replay was stopped
}

// replayPage is how many letters are handled at once.
const replayPage = 200

// Replay handles the dead letters in a tunnel's dead-letter table once more,
// through the tunnel's own pipeline: middlewares, Process, batches. Letters come
// in the order of their changes, those of one primary key one after the other; after
// a failure the later ones of that key are left alone. Each letter is tried once.
//
// A replayed change comes after changes of its row that were handled since it
// failed: handlers that overwrite should compare Sequence.
//
// Replay needs no Run, and may be called while Run does its work. It ends with an
// error when ctx ends, the Router is closed or the table cannot be read or written;
// what was counted until then is returned with it.
func (r *Router) Replay(ctx context.Context, tunnel string) (Replayed, error) {
	t, ok := r.cfg.Tunnels[tunnel]
	if !ok {
		return Replayed{}, r.unknownTunnel("Replay", tunnel)
	}
	if dl := t.Failure.DeadLetter; dl == nil || dl.Table == "" {
		return Replayed{}, r.faulty(Fault{Path: join(join("tunnels", tunnel), "failure"), Text: "Replay reads a dead-letter table, but dead_letter has none; give it a table, or use ReplayMessage for a topic"})
	}
	done, err := r.use("replay")
	if err != nil {
		return Replayed{}, err
	}
	defer done()
	ctx, cancel := r.bound(ctx)
	defer cancel()
	p, err := r.readyPipeline(tunnel)
	if err != nil {
		return Replayed{}, err
	}
	r.mu.Lock()
	rp := &replay{pipeline: p, table: r.letterTable(tunnel), cfg: t, failed: make(map[string]bool)}
	r.mu.Unlock()
	if err := rp.run(ctx); err != nil {
		return rp.count, fmt.Errorf("replay tunnels.%s: %w", tunnel, err)
	}
	return rp.count, nil
}

// readyPipeline returns the pipeline of a tunnel that has all that it needs.
func (r *Router) readyPipeline(tunnel string) (*pipeline, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.faulty(r.missing(tunnel)...); err != nil {
		return nil, err
	}
	return r.pipeline(tunnel)
}

// replay is one Replay.
type replay struct {
	pipeline *pipeline
	table    *tableLetters
	cfg      Tunnel
	count    Replayed
	failed   map[string]bool // ordering keys with a failure
}

// run goes through the table. A failed letter stays at its place, behind which the next
// page begins, so it comes to an end.
func (rp *replay) run(ctx context.Context) error {
	var from *tablestore.PrimaryKey
	for {
		letters, next, err := rp.table.page(ctx, rp.pipeline.name, from, replayPage)
		if err != nil {
			return err
		}
		if err := rp.page(ctx, letters); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if next == nil {
			return nil
		}
		from = next
	}
}

// page handles some letters side by side.
func (rp *replay) page(ctx context.Context, letters []*DeadLetter) error {
	var tried []*DeadLetter
	var messages []*message.Message
	var keys []string
	for _, l := range letters {
		msg := l.Message()
		key := orderingKey(msg, rp.cfg)
		if key != "" && rp.failed[key] {
			rp.count.Skipped++
			continue
		}
		tried, messages, keys = append(tried, l), append(messages, msg), append(keys, key)
	}
	f := feed{handle: rp.pipeline.attempt}
	var errs []error
	for i, err := range f.run(ctx, messages, keys, false) {
		errs = append(errs, rp.settle(ctx, tried[i], keys[i], err))
	}
	return errors.Join(errs...)
}

// settle writes down what became of a letter.
func (rp *replay) settle(ctx context.Context, l *DeadLetter, key string, err error) error {
	stopped := ctx.Err() != nil
	// What was handled is removed even if the replay is being stopped.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), letterTimeout)
	defer cancel()
	switch {
	case err == nil:
		rp.count.Succeeded++
		return rp.table.remove(ctx, l)
	case stopped, errors.Is(err, ack.ErrCalledBack), verdictOf(ctx, err) == interrupted:
		rp.count.Skipped++
		rp.failed[key] = true
		return nil
	}
	rp.count.Failed++
	rp.failed[key] = true
	again := *l
	again.Error, again.Attempts, again.FailedAt = err.Error(), l.Attempts+1, now()
	return rp.table.put(ctx, &again)
}

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
			subscriber.WithRecord(again, l.Record)
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
