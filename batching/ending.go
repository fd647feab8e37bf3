package batching

import "context"

// retire marks ob, which is sealed, as done. The messages parked behind it join
// their batches.
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
	ob.batcher.dismiss(ob.present)
	for _, it := range items {
		if it.turn != nil && it.turn.next != nil {
			b.unpark(it.turn.next)
		}
	}
	b.signalIdle()
}

// begin marks ob as running and returns its items, without those that are gone:
// while the batch waited, an earlier message may have failed and called some of them
// back. It also returns the context for the handler.
func (b *Batching) begin(ob *openBatch) ([]*item, context.Context) {
	ctx, cancel := context.WithCancelCause(b.ctx)

	b.mu.Lock()
	defer b.mu.Unlock()
	// The contexts are checked without the lock. The batch is sealed, so the slice does not
	// change. If an item leaves during the check, the check is repeated: the contexts of the
	// later items of its key ended before its own, perhaps after they were checked, and those
	// items must not be handled without it.
	for {
		checked := ob.present
		b.mu.Unlock()
		gone := goneOf(ob.items)
		b.mu.Lock()
		if ob.present != checked {
			continue
		}
		for _, it := range gone {
			b.leave(it)
		}
		break
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

// goneOf returns the items whose subscriber no longer waits for them.
func goneOf(items []*item) (gone []*item) {
	for _, it := range items {
		// A deferred item leaves when it ends: the later ones of its key have left before.
		if it.deferred == nil && it.gone() {
			gone = append(gone, it)
		}
	}
	return gone
}

// finish ends a batch that ran, and starts the batches that may run next.
func (b *Batching) finish(ob *openBatch, items []*item) {
	b.mu.Lock()
	bt := ob.batcher
	bt.count(ob)
	serial := bt.serial.left(ob)
	b.retire(ob)
	for _, it := range items {
		switch d := it.deferred; {
		case d == nil:
		case d.aside:
			b.settling++
		default:
			b.release(d)
		}
	}
	bt.givePartition(ob.partition)
	down := bt.down != nil
	event := b.learn(ob)
	if down { // batches of all scopes wait for its end
		b.dispatchAll(bt.shared)
	} else {
		b.dispatch(bt)
	}
	b.mu.Unlock()
	close(ob.done) // wakes all its messages, therefore not under the lock
	b.logOutcome(ob, event, serial)
}

// leave removes the item from its batch, which is not running, or ends its parking.
// The item may have left already.
func (b *Batching) leave(it *item) {
	if it.left {
		return
	}
	it.left = true
	it.to.stats.Waiting--
	it.to.dismiss(1)
	if ob := it.batch; ob == nil {
		b.unparks(it)
	} else {
		ob.present--
		ob.weight -= it.weight
		if ob.present == 0 && ob.phase == waiting {
			// The batch is empty.
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

// hurry makes the item's batch due: the subscriber will not deliver more for it.
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
		b.dispatch(ob.batcher) // the batch may have to be given back
	default:
		b.makeDue(ob, TriggerDrain)
	}
}

// end is called when the item's context has ended. It reports whether the item has
// left its batch.
func (b *Batching) end(it *item) (left bool) {
	d := it.deferred
	// A subscriber reports the end of a deferred item by this call, and its context must
	// not be used during the call (ack.Listener).
	gone := d != nil || it.gone()
	b.mu.Lock()
	ob := it.batch
	if d != nil {
		d.over.Store(true)
		if d.wakes != nil {
			close(d.wakes)
		}
	}
	var cancel context.CancelCauseFunc
	switch {
	case d != nil && !d.joined: // it is about to join, and finds it out
	case it.left: // begin has removed it already
	case !gone:
		it.stopping = true
		b.hurryUp(it)
	case ob == nil || ob.phase < running:
		if d != nil {
			b.settling++ // before the Batching can be idle
		}
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
		cancel(ErrAllEnded) // runs the callbacks of derived contexts, therefore not under the lock
	}
	return left
}

// shut makes all batches due and refuses further messages. idle is closed when all
// batches are done.
func (b *Batching) shut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	close(b.signals.over)
	for _, s := range b.batchers {
		for _, bt := range s.scopes {
			for _, ob := range bt.open {
				b.makeDue(ob, TriggerClose)
			}
		}
		if s.down != nil {
			b.dispatchDown(s) // ready batches are given back
		}
	}
	b.signalIdle()
}

// signalIdle closes idle if the Batching is closed and all messages are done.
func (b *Batching) signalIdle() {
	if b.closed && b.unfinished == 0 && len(b.parked) == 0 && b.settling == 0 && !closed(b.idle) {
		close(b.idle)
	}
}

// unfinishedBatches returns how many batches are not done.
func (b *Batching) unfinishedBatches() int {
	batches, _ := b.unfinishedWork()
	return batches
}

// unfinishedWork returns how many batches are not done, and how many deferred messages are
// being settled.
func (b *Batching) unfinishedWork() (batches, settling int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unfinished, b.settling
}
