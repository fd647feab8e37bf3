package batching

import (
	"context"
	"time"
)

// openBatch is a batch from its first message until it is done. Batching.mu
// guards it, except for what is said otherwise.
type openBatch struct {
	batcher *batcher      // not changed
	key     string        // not changed
	done    chan struct{} // closed when the items' outcomes are known, or all have moved to other batches (split); not changed
	split   bool          // written before done is closed, and read after

	items   []*item // in the order of joining; those that left stay; nil once done
	present int     // items that have not left
	weight  int64   // of those
	oldest  time.Time
	newest  time.Time   // kept when Idle is on
	timer   *time.Timer // for Timeout and Idle; nil once due, or if it was due at once

	phase   phase
	trigger Trigger // empty until due
	sealed  bool    // takes no more messages

	partition int                     // from starting on
	probe     bool                    // it finds out whether an outage is over
	giveBack  bool                    // it is not handled: its subscriber drains during an outage
	cancel    context.CancelCauseFunc // ends the handler's context; from running on
	ended     int                     // items that are gone since running
	result    result                  // of the goroutine that runs it
}

// phase is how far a batch is. Whether it is due and sealed is apart from that:
// both are true from starting on.
type phase uint8

const (
	waiting  phase = iota // for messages, for its time, for a partition
	starting              // it has a partition and a goroutine; items may still leave
	running               // items do not leave any more
	done                  // nobody waits for it any more
)

// mostPrior bounds the room that a new batch has for messages from the start: a
// batcher may have thousands of batch keys with few messages each.
const mostPrior = 128

// newBatch makes a batch that takes no messages yet.
func (b *Batching) newBatch(bt *batcher, key string) *openBatch {
	b.unfinished++
	return &openBatch{
		batcher: bt,
		key:     key,
		done:    make(chan struct{}),
		items:   make([]*item, 0, min(bt.Size, bt.prior+1, max(1, mostPrior/(1+len(bt.open))))),
		oldest:  time.Now(),
	}
}

// add appends the item to ob.
func (b *Batching) add(ob *openBatch, it *item) {
	it.batch = ob
	ob.items = append(ob.items, it)
	ob.present++
	ob.batcher.stats.Waiting++
	ob.weight += it.weight
	if p := it.parking; p != nil {
		if p.since.Before(ob.oldest) { // it waits since then, and so does its batch
			ob.oldest = p.since
			ob.stopTimer()
		}
		close(p.placed)
	}
	if ob.batcher.Idle > 0 {
		ob.newest = time.Now()
	}
}

// startTimer starts the clock of a batch that is not due.
func (b *Batching) startTimer(ob *openBatch) {
	if ob.timer != nil {
		return
	}
	d := max(0, ob.batcher.Timeout-time.Since(ob.oldest))
	if idle := ob.batcher.Idle; idle > 0 {
		d = min(d, idle) // Idle is checked, and the timer moved on, when it fires: not with every message
	}
	ob.timer = time.AfterFunc(d, func() { b.tick(ob) })
}

// tick is called by the batch's timer.
func (b *Batching) tick(ob *openBatch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ob.timer == nil {
		return // stopped while it fired
	}
	now := time.Now()
	timeout := ob.oldest.Add(ob.batcher.Timeout).Sub(now)
	if timeout <= 0 {
		b.makeDue(ob, TriggerTimeout)
		return
	}
	// Before Timeout, only Idle lets the timer fire.
	idle := timeout
	if ob.batcher.Idle > 0 {
		idle = ob.newest.Add(ob.batcher.Idle).Sub(now)
	}
	if idle <= 0 {
		b.makeDue(ob, TriggerIdle)
		return
	}
	ob.timer.Reset(min(timeout, idle))
}

// makeDue has ob run as soon as there is a partition for it.
func (b *Batching) makeDue(ob *openBatch, trigger Trigger) {
	if ob.trigger != "" || ob.phase == done {
		return
	}
	ob.trigger = trigger
	ob.stopTimer()
	bt := ob.batcher
	bt.ready = append(bt.ready, ob)
	b.dispatch(bt)
}

// seal makes ob due and lets no more messages in.
func (b *Batching) seal(ob *openBatch, trigger Trigger) {
	if ob.sealed {
		return
	}
	// Before it may run: what runs is sealed already.
	ob.sealed = true
	delete(ob.batcher.open, ob.key)
	b.makeDue(ob, trigger)
}

// dispatch starts ready batches while there are free partitions.
func (b *Batching) dispatch(bt *batcher) {
	if bt.down != nil {
		b.dispatchDown(bt)
		return
	}
	for len(bt.ready) > 0 && len(bt.free) > 0 {
		ob := bt.ready[0]
		bt.ready[0] = nil
		bt.ready = bt.ready[1:]
		if ob.phase == done {
			continue // all left while it was ready
		}
		b.launch(ob)
	}
}

// launch gives ob, which is not in ready any more, a partition and a goroutine.
func (b *Batching) launch(ob *openBatch) {
	bt := ob.batcher
	b.seal(ob, ob.trigger)
	ob.phase = starting
	n := len(bt.free) - 1
	ob.partition, bt.free = bt.free[n], bt.free[:n]
	bt.prior = ob.present
	// Owner: Close, which waits for runs. It ends with its batch.
	b.runs.Go(func() { b.run(ob) })
}

func (ob *openBatch) stopTimer() {
	if ob.timer != nil {
		ob.timer.Stop()
		ob.timer = nil
	}
}
