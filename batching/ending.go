package batching

import "context"

// retire marks ob, which is sealed, as done. What is parked behind it joins.
func (b *Batching) retire(ob *openBatch) {
	ob.phase = done
	items := ob.items
	ob.items = nil
	for _, it := range items {
		if it.turn != nil && it.turn.item == it {
			it.turn.item = nil
		}
	}
	b.unfinished--
	for _, it := range items {
		if it.turn != nil && it.turn.next != nil {
			b.unpark(it.turn.next)
		}
	}
	b.signalIdle()
}

// begin marks ob as running and returns its items, without those that are
// gone: while the batch waited for its turn, an earlier message may have failed
// and called some of them back. It also returns the context for the handler.
func (b *Batching) begin(ob *openBatch) ([]*item, context.Context) {
	// Asking contexts is done without the lock. No item joins any more, so the
	// slice does not change; one that goes after it was asked is running then.
	var gone []*item
	for _, it := range ob.items {
		if it.gone() {
			gone = append(gone, it)
		}
	}

	ctx, cancel := context.WithCancelCause(b.ctx)

	b.mu.Lock()
	defer b.mu.Unlock()
	for _, it := range gone {
		b.leave(it)
	}
	for _, it := range ob.items {
		if it.turn != nil && it.turn.revoked {
			b.leave(it)
		}
	}
	ob.phase = running
	ob.batcher.stats.Waiting -= ob.present
	ob.batcher.stats.Handling += ob.present
	items := ob.items
	if ob.present < len(items) {
		items = make([]*item, 0, ob.present)
		for _, it := range ob.items {
			if !it.left {
				items = append(items, it)
			}
		}
	}
	ob.cancel = cancel
	return items, ctx
}

// finish ends a batch that ran, and starts what may run now.
func (b *Batching) finish(ob *openBatch) {
	b.tell(ob)
	b.mu.Lock()
	bt := ob.batcher
	bt.count(ob)
	lonely := bt.lone.left(ob)
	b.retire(ob)
	bt.free = append(bt.free, ob.partition)
	news := b.learn(ob)
	b.dispatch(bt)
	b.mu.Unlock()
	close(ob.done) // wakes all its messages: not under the lock
	b.logOutcome(ob, news, lonely)
}

// leave takes the item out of its batch, which is not running, or out of its
// parking place. The item may have left already.
func (b *Batching) leave(it *item) {
	if it.left {
		return
	}
	it.left = true
	it.to.stats.Waiting--
	if ob := it.batch; ob == nil {
		b.unparks(it)
	} else {
		ob.present--
		ob.weight -= it.weight
		if ob.present == 0 && ob.phase == waiting {
			// Nothing is left to handle.
			ob.stopTimer()
			if !ob.sealed {
				ob.sealed = true
				delete(ob.batcher.open, ob.key)
			}
			defer b.retire(ob)
		}
	}
	if t := it.turn; t != nil {
		t.item, t.left = nil, true
		if t.next != nil {
			b.unpark(t.next)
		}
	}
}

// hurry makes the item's batch due: the subscriber has nothing more for it.
func (b *Batching) hurry(it *item) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hurryUp(it)
}

func (b *Batching) hurryUp(it *item) {
	switch ob := it.batch; {
	case it.left:
	case ob == nil:
		b.hurryParked(it)
	case ob.phase == waiting && ob.batcher.down != nil:
		b.makeDue(ob, TriggerDrain)
		b.dispatch(ob.batcher) // it may have to be given back
	default:
		b.makeDue(ob, TriggerDrain)
	}
}

// end is told that the item's context has ended. It reports whether the item
// has left its batch.
func (b *Batching) end(it *item) (left bool) {
	gone := it.gone()
	b.mu.Lock()
	ob := it.batch
	var cancel context.CancelCauseFunc
	switch {
	case it.left: // the batch has found that out itself
	case !gone:
		it.stopping = true
		b.hurryUp(it)
	case ob == nil || ob.phase < running:
		b.leave(it)
	case ob.phase == running && it.delivery != nil:
		ob.ended++
		if ob.ended >= ob.present {
			cancel = ob.cancel
		}
	}
	left = it.left
	b.mu.Unlock()
	if cancel != nil {
		cancel(ErrAllEnded) // runs the callbacks of derived contexts: not under the lock
	}
	return left
}

// shut makes all batches due and lets no more messages in. It reports whether
// it was the first to do so. idle is closed when all batches are done.
func (b *Batching) shut() (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.closed = true
	for _, bt := range b.batchers {
		for _, ob := range bt.open {
			b.makeDue(ob, TriggerClose)
		}
		if bt.down != nil {
			b.dispatch(bt) // what is ready is given back
		}
	}
	b.signalIdle()
	return true
}

// signalIdle closes idle when it is time.
func (b *Batching) signalIdle() {
	if b.closed && b.unfinished == 0 && b.parked == 0 && !closed(b.idle) {
		close(b.idle)
	}
}

// unfinishedBatches returns how many batches are not done.
func (b *Batching) unfinishedBatches() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unfinished
}
