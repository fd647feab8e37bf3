package batching

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// run handles one batch, in a goroutine of its own that holds a partition.
func (b *Batching) run(ob *openBatch) {
	items, ctx := b.begin(ob)
	ob.result.began = time.Now()
	// In a defer, since the handler may end the goroutine (runtime.Goexit).
	defer func() {
		for _, it := range items {
			if !it.settled {
				it.settle(ob.failure(errHandlerExited))
			}
		}
		ob.cancel(nil)
		ob.result.sum(items)
		b.finish(ob)
	}()

	for _, it := range items {
		it.begin()
	}
	b.attempt(ctx, ob, items)
}

// attempt handles items, some or all of ob's, and settles each of them.
func (b *Batching) attempt(ctx context.Context, ob *openBatch, items []*item) {
	if len(items) == 0 {
		return
	}
	if ctx.Err() != nil {
		// The time to close is over, or nobody waits for the outcome.
		err := ob.failure(context.Cause(ctx))
		for _, it := range items {
			it.settle(err)
		}
		return
	}

	batch := ob.batchOf(items)
	batch.logger = b.logger
	failed, err := call(ctx, ob.batcher.Handler, batch)

	split := err != nil && ob.batcher.Isolate && len(items) > 1
	if err != nil {
		err = ob.failure(err) // once for all items
	}
	var suspects []*item
	// In order: the first failure of a key calls back the others.
	for _, it := range items {
		switch own := failed[it.msg]; {
		case own != nil:
			it.settle(ob.failure(own))
		case split:
			suspects = append(suspects, it)
		default:
			it.settle(err)
		}
	}
	b.isolate(ctx, ob, suspects)
}

// isolate handles the halves of items, which failed together, one after the other.
func (b *Batching) isolate(ctx context.Context, ob *openBatch, items []*item) {
	switch len(items) {
	case 0:
		return
	case 1: // the others were given to Fail; this one was never handled alone
		b.attempt(ctx, ob, stillThere(items))
		return
	}
	half := len(items) / 2
	for _, part := range [][]*item{items[:half], items[half:]} {
		// Asked anew for each part: a failure in an earlier one may have called
		// back messages of this one, which must not be handled before it.
		b.attempt(ctx, ob, stillThere(part))
	}
}

// stillThere returns the items that are not called back, and settles the others.
func stillThere(items []*item) []*item {
	var rest []*item
	for _, it := range items {
		if it.calledBack() {
			it.settle(errCalledBack)
			continue
		}
		rest = append(rest, it)
	}
	return rest
}

// batchOf makes what the handler sees of items.
func (ob *openBatch) batchOf(items []*item) *Batch {
	batch := &Batch{
		Batcher:   ob.batcher.name,
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

// failure says where err happened.
func (ob *openBatch) failure(err error) error {
	if ob.key == "" {
		return fmt.Errorf("batching: batcher %q: %w", ob.batcher.name, err)
	}
	return fmt.Errorf("batching: batcher %q, batch key %q: %w", ob.batcher.name, ob.key, err)
}

// call calls the handler and makes an error of a panic. It also returns what
// Batch.Fail was told.
func call(ctx context.Context, h HandlerFunc, batch *Batch) (failed map[*message.Message]error, err error) {
	defer func() {
		failed = batch.seal()
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return nil, h(ctx, batch)
}
