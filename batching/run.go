package batching

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

// run handles one batch, in its own goroutine, which holds a partition.
func (b *Batching) run(ob *openBatch) {
	b.beginDeferred(ob)
	items, ctx := b.begin(ob)
	ob.result.began = time.Now()
	ob.result.before = ob.batcher.succeeded.Load()
	// In a defer, since the handler may end the goroutine (runtime.Goexit).
	defer func() {
		for _, it := range items {
			if !it.settled {
				b.settle(ob, it, ob.failure(errHandlerExited, len(items)))
			}
		}
		ob.cancel(nil)
		ob.result.sum(b, ob, items)
		b.callOnBatch(ob)
		defer b.settleAside(items) // after the batch is done: then the later messages of their keys have joined other batches
		defer b.finish(ob, items)  // whatever the code of users does that a settlement calls
		b.settleAllDeferred(ob, items)
	}()

	for _, it := range items {
		if it.deferred == nil {
			it.begin()
		}
	}
	if ob.giveBack {
		b.settleAll(ob, items, ob.interruption(ErrOutage))
		return
	}
	b.attempt(ctx, ob, items)
}

// attempt handles items, all of ob's, and settles each of them.
func (b *Batching) attempt(ctx context.Context, ob *openBatch, items []*item) {
	if len(items) == 0 {
		return
	}
	suspects, err := b.callOnce(ctx, ob, items)
	if len(suspects) == 0 {
		return
	}
	switch {
	case len(items) == 1, !ob.batcher.Isolate:
		b.settleAll(ob, suspects, ob.failure(err, len(items)))
	case ack.IsTransient(err): // the handler says that no message is at fault
		ob.result.outage = err
		b.settleAll(ob, suspects, ob.failure(err, len(items)))
	default:
		x := &isolation{b: b, ctx: ctx, ob: ob, failed: err, size: len(items)}
		x.run(suspects, len(suspects) < len(items))
	}
}

// callOnce calls the handler with items and settles those whose outcome the call
// decides. The rest, the suspects, failed together with err.
func (b *Batching) callOnce(ctx context.Context, ob *openBatch, items []*item) (suspects []*item, err error) {
	if ctx.Err() != nil {
		// CloseTimeout is over, or every message of the batch has ended.
		b.settleAll(ob, items, ob.interruption(context.Cause(ctx)))
		return nil, nil
	}
	batch := ob.batchOf(items)
	batch.logger = b.logger
	failed, err := call(ctx, ob.batcher.Handler, batch)
	// In order: the first failure of a key calls back the others.
	for _, it := range items {
		switch own := failed[it.msg]; {
		case own != nil:
			b.settle(ob, it, ob.failure(own, 1))
		case err != nil:
			suspects = append(suspects, it)
		default:
			b.settle(ob, it, nil)
		}
	}
	return suspects, err
}

// settle sets the outcome of an item. A failure takes back the later messages of
// the key. That must happen before the batch is done: then the messages parked
// behind it join other batches.
func (b *Batching) settle(ob *openBatch, it *item, err error) {
	it.settled, it.err = true, err
	switch {
	case it.calledBack():
	case err == nil:
		ob.batcher.succeeded.Add(1)
	case it.delivery != nil:
		it.callBack(err)
	default:
		b.revokeBehind(it)
	}
}

func (b *Batching) settleAll(ob *openBatch, items []*item, err error) {
	for _, it := range items {
		b.settle(ob, it, err)
	}
}

// stillThere returns the items that are not called back, and settles the others.
func (b *Batching) stillThere(ob *openBatch, items []*item) []*item {
	var rest []*item
	for _, it := range items {
		switch {
		case it.calledBack():
			b.settle(ob, it, errCalledBack)
		case b.isRevoked(it):
			b.settle(ob, it, errRevoked)
		default:
			rest = append(rest, it)
		}
	}
	return rest
}

// isRevoked reports whether an earlier message of the key failed, for an item whose
// subscriber does not call back.
func (b *Batching) isRevoked(it *item) bool {
	if it.turn == nil || it.turn.delivered {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return it.turn.revoked
}

// batchOf builds the Batch that the handler gets for items.
func (ob *openBatch) batchOf(items []*item) *Batch {
	batch := &Batch{
		Batcher:   ob.batcher.name,
		Scope:     ob.batcher.scope,
		Key:       ob.key,
		Messages:  make([]*message.Message, len(items)),
		Trigger:   ob.trigger,
		Partition: ob.partition,
		Oldest:    ob.oldest,
		members:   items,
	}
	for i, it := range items {
		batch.Messages[i] = it.msg
	}
	return batch
}

// failure returns the outcome of messages that failed with err, in a call that had
// the given number of messages.
func (ob *openBatch) failure(err error, messages int) error {
	f := &Failure{Batcher: ob.batcher.name, Key: ob.key, Err: err, Messages: messages, Alone: messages == 1, Before: ob.result.before}
	ob.result.failures = append(ob.result.failures, f)
	return f
}

// interruption returns the outcome of messages that were not completely handled.
func (ob *openBatch) interruption(cause error) error {
	return &Failure{Batcher: ob.batcher.name, Key: ob.key, Err: cause, Interrupted: true, Before: ob.result.before, After: ob.result.before}
}

// call calls the handler and turns a panic into an error. It also returns the
// errors that were given to Batch.Fail.
func call(ctx context.Context, h HandlerFunc, batch *Batch) (failed map[*message.Message]error, err error) {
	defer func() {
		failed = batch.seal()
		if v := recover(); v != nil {
			err = ack.NewPanicError("batch handler", v)
		}
	}()
	return nil, h(ctx, batch)
}
