package batching

import "time"

// parking is the state of a message that waits for earlier messages of its ordering
// key in another batch. Batching.mu guards it.
type parking struct {
	since   time.Time
	placed  chan struct{} // closed when the message has joined a batch
	timer   *time.Timer   // makes the previous batch due; nil if it is not needed
	hurried bool          // its batch must not wait for more messages
}

// park keeps the item out of a batch until ahead, the nearest earlier message of its
// key, is done.
func (b *Batching) park(it *item, ahead *item) {
	it.parking = &parking{since: time.Now(), placed: make(chan struct{})}
	it.to.stats.Waiting++
	b.parked[it] = struct{}{}
	b.watch(it, ahead)
	if it.route.flush || b.closed {
		b.hurryParked(it)
	}
}

// watch ensures that the batch of ahead is due in time for the parked item.
func (b *Batching) watch(it *item, ahead *item) {
	p, ob := it.parking, ahead.batch
	switch {
	case ob == nil && it.to.Timeout >= ahead.to.Timeout: // ahead is parked too, and its timer serves both
		return
	case ob != nil && ob == it.to.open[it.route.key]: // the item's own batch, which is too full for it
		b.seal(ob, TriggerBytes)
		return
	case ob != nil && ob.trigger != "":
		return
	case p.timer == nil:
		p.timer = time.AfterFunc(max(0, it.to.Timeout-time.Since(p.since)), func() { b.expire(it) })
	}
}

// expire is called by the timer of a parked item that has waited for its batcher's
// Timeout. It makes the previous batch due.
func (b *Batching) expire(it *item) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dueBefore(it)
}

// dueBefore makes the batch before a parked item due. Items that are parked in
// between get their own batches (ownBatch), which do not wait.
func (b *Batching) dueBefore(it *item) {
	if it.left || it.batch != nil {
		return
	}
	ahead := it.turn.ahead()
	for ahead != nil && ahead.batch == nil {
		ahead = ahead.turn.ahead()
	}
	if ahead != nil {
		b.makeDue(ahead.batch, TriggerOrder)
	}
}

// unparks ends the item's parking.
func (b *Batching) unparks(it *item) {
	delete(b.parked, it)
	if t := it.parking.timer; t != nil {
		t.Stop()
		it.parking.timer = nil
	}
	b.signalIdle()
}

// unpark lets parked items join their batches, starting with t, until one has an
// earlier message of its key in another batch.
func (b *Batching) unpark(t *turn) {
	for ; t != nil; t = t.next {
		it := t.item
		if it == nil && t.left {
			continue
		}
		if it == nil || it.batch != nil {
			return
		}
		if ahead := b.waitsFor(it); ahead != nil {
			b.watch(it, ahead)
			return
		}
		b.unparks(it)
		it.to.stats.Waiting--       // add counts it again
		if it.turn.ahead() == nil { // else the previous message is in the open batch
			if last := b.ownBatch(it); last != nil {
				t = last
				continue
			}
		}
		b.place(it, it.to.open[it.route.key])
	}
}

// ownBatch puts the item into a batch that runs at once, if later messages of its key
// are parked that belong in another batch. They wait for this item, and the other
// messages of the open batch should not be hurried because of that. Items behind it
// with the same batcher and batch key join the same batch. ownBatch returns the last
// turn in the batch, or nil if there is no such batch.
func (b *Batching) ownBatch(it *item) (last *turn) {
	bt := it.to
	mine := []*item{it}
	last = it.turn
	weight := it.weight
	elsewhere := false
	for t := it.turn.next; t != nil; t = t.next {
		next := t.item
		if next == nil && t.left {
			continue
		}
		if next == nil || next.batch != nil {
			break
		}
		weight += next.weight
		if next.to != bt || next.route.key != it.route.key {
			elsewhere = true
			break
		}
		if len(mine) == bt.Size || bt.MaxBytes > 0 && weight > bt.MaxBytes {
			break // this batch is full: it does not have to wait for more
		}
		mine, last = append(mine, next), t
	}
	if !elsewhere {
		return nil
	}
	ob := b.newBatch(bt, it.route.key)
	ob.sealed = true // never open to others
	for _, m := range mine {
		if m != it {
			b.unparks(m)
			bt.stats.Waiting--
		}
		b.add(ob, m)
	}
	b.makeDue(ob, TriggerOrder)
	return last
}

// hurryParked makes the item's batch due as soon as it has one, and the batch before
// it at once.
func (b *Batching) hurryParked(it *item) {
	it.parking.hurried = true
	b.dueBefore(it)
}
