package batching

import "time"

// parking is what a message has while it waits for earlier messages of its
// ordering key that are in another batch. Batching.mu guards it.
type parking struct {
	since   time.Time
	placed  chan struct{} // closed when the message has joined a batch
	timer   *time.Timer   // makes the batch before it due; nil unless that has to be waited for
	hurried bool          // its batch is not to wait for more messages
}

// park keeps the item out of its batch until ahead, the nearest earlier message
// of its key, is done.
func (b *Batching) park(it *item, ahead *item) {
	it.parking = &parking{since: time.Now(), placed: make(chan struct{})}
	it.to.stats.Waiting++
	b.parked++
	b.watch(it, ahead)
	if it.route.flush || b.closed {
		b.hurryParked(it)
	}
}

// watch sees to it that the batch of ahead is due in time for the parked item.
func (b *Batching) watch(it *item, ahead *item) {
	p, ob := it.parking, ahead.batch
	switch {
	case ob == nil && it.to.Timeout >= ahead.to.Timeout: // parked as well, and watches for both
		return
	case ob != nil && ob == it.to.open[it.route.key]: // the item's own batch, which has no room for it
		b.seal(ob, TriggerBytes)
		return
	case ob != nil && ob.trigger != "":
		return
	case p.timer == nil:
		p.timer = time.AfterFunc(max(0, it.to.Timeout-time.Since(p.since)), func() { b.expire(it) })
	}
}

// expire has the batch before a parked item handled: the item has waited for
// other messages as long as its batcher may.
func (b *Batching) expire(it *item) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dueBefore(it)
}

// dueBefore makes the batch before a parked item due. Those that are parked in
// between get batches of their own (ownBatch), which do not wait.
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
	b.parked--
	if t := it.parking.timer; t != nil {
		t.Stop()
		it.parking.timer = nil
	}
	b.signalIdle()
}

// unpark has parked items from t on join their batches, as far as nothing of
// their key is ahead of them in another one.
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
		if it.turn.ahead() == nil { // else the one before it is in the open batch
			if last := b.ownBatch(it); last != nil {
				t = last
				continue
			}
		}
		b.place(it, it.to.open[it.route.key])
	}
}

// ownBatch puts the item into a batch that runs at once, if later messages of
// its key are parked that go elsewhere: they wait for this one, and its
// neighbours in the open batch should not be hurried because of that. Those
// behind it that go the same way come along. It returns the last turn in the
// batch, nil if there is none.
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
			break // it fills a batch by itself
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

// hurryParked has the item's batch handled as soon as it has one, and the batch
// before it at once.
func (b *Batching) hurryParked(it *item) {
	it.parking.hurried = true
	b.dueBefore(it)
}
