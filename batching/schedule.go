package batching

import (
	"context"
	"time"
)

// schedule is the state of all batchers and batches: who is in which batch,
// and which batch may run. Batching.mu guards it. It is shared by all batchers
// because an ordering key means the same in each.
//
// A batch goes through these states, in this order; it may skip some:
//
//	open ──▶ due ──▶ sealed ──▶ running ──▶ done
//
// open: takes messages. due: a trigger fired, the batch runs as soon as it may;
// until then it takes more messages. sealed: due, and takes none. running: it
// has a partition, and soon a handler; from then on no message leaves it. done:
// all its messages have their outcome.
//
// Invariants:
//   - A batcher has at most one batch that takes messages for each batch key.
//   - When a batch runs, all earlier batches that hold one of its ordering keys
//     are done: tails knows the latest batch of each key, and a message that
//     joins makes its batch wait for that one.
//   - A batch waits only for batches with a lower number, so no two wait for
//     each other. A message whose key is in a higher batch does not join but
//     starts a new one.
//   - A batch that is due waits only for batches that are due. So it waits for
//     handlers only, never for a timer or for a message.
//   - A batch that is ready never begins to wait again.
//   - A batch that all its messages have left is done as soon as it waits for
//     nothing: not before, since later ones rely on what it waits for.
//   - At most Concurrency batches of a batcher run; when fewer do, none of its
//     batches is ready.
type schedule struct {
	closed     bool
	number     uint64                // of the newest batch
	tails      map[string]*openBatch // by ordering key: the latest batch that holds it and is not done
	unfinished int                   // batches that are not done
	idle       chan struct{}         // closed once closed is set and unfinished is zero
}

func newSchedule() schedule {
	return schedule{tails: make(map[string]*openBatch), idle: make(chan struct{})}
}

// batcher is one configured batcher at work.
type batcher struct {
	Batcher // as configured, with the defaults filled in; not changed
	name    string

	// Guarded by Batching.mu.
	open  map[string]*openBatch // by batch key: the batch that takes messages
	ready []*openBatch          // due, with nothing to wait for but a partition; in the order in which they became so
	free  []int                 // partitions in which no batch runs
	prior int                   // how many messages the latest batch had: a guess for the next one

	stats   BatcherStats          // what is counted; Stats adds the rest
	batches [len(triggers)]uint64 // that were handled
}

func newBatcher(name string, c Batcher) *batcher {
	bt := &batcher{Batcher: c, name: name, open: make(map[string]*openBatch)}
	for p := c.Concurrency - 1; p >= 0; p-- {
		bt.free = append(bt.free, p)
	}
	return bt
}

// openBatch is a batch from its first message until it is done. Batching.mu
// guards it, except for what is said otherwise.
type openBatch struct {
	batcher *batcher      // not changed
	key     string        // not changed
	number  uint64        // grows from batch to batch; not changed
	done    chan struct{} // closed when the items' outcomes are known; not changed

	items   []*item // in the order of joining; those that left stay, since tails may know their keys; nil once done
	present int     // items that have not left
	weight  int64   // of those
	oldest  time.Time
	newest  time.Time   // kept when Idle is on
	timer   *time.Timer // for Timeout and Idle; nil once due, or if it was due at once

	phase   phase
	trigger Trigger // empty until due
	sealed  bool    // takes no more messages

	waits  int          // batches that this one waits for
	before []*openBatch // those that were not due when it began to wait for them; nil once due
	after  []*openBatch // those that wait for this one

	partition int                     // from starting on
	cancel    context.CancelCauseFunc // ends the handler's context; from running on
	ended     int                     // items that are gone since running
	result    result                  // of the goroutine that runs it
}

// phase is how far a batch is. Whether it is due and sealed is apart from that:
// both are true from starting on.
type phase uint8

const (
	waiting  phase = iota // for messages, for its time, for its turn
	starting              // it has a partition and a goroutine; items may still leave
	running               // items do not leave any more
	done                  // nobody waits for it any more
)

// join puts the item into the open batch of its batcher and batch key, or into
// a new one.
func (b *Batching) join(it *item) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	bt := it.to
	tail := b.tails[it.orderKey] // nil for the empty key, which is never stored
	ob := bt.open[it.route.key]
	if ob != nil {
		switch full := bt.MaxBytes > 0 && ob.weight+it.weight > bt.MaxBytes; {
		case full:
			b.seal(ob, TriggerBytes)
			ob = nil
		case tail == nil || tail == ob:
		case tail.number > ob.number, ob.trigger != "" && (ob.waits == 0 || tail.trigger == ""):
			// To wait for a later batch could close a circle. What is ready
			// must not begin to wait, and what is due not for what is not.
			b.seal(ob, TriggerOrder)
			ob = nil
		}
	}
	if ob == nil {
		ob = b.newBatch(bt, it.route.key)
	}
	b.add(ob, it, tail)

	switch {
	case ob.present >= bt.Size:
		b.seal(ob, TriggerSize)
	case bt.MaxBytes > 0 && ob.weight >= bt.MaxBytes:
		b.seal(ob, TriggerBytes)
	case it.route.flush:
		b.makeDue(ob, TriggerFlush)
	case ob.timer == nil && ob.trigger == "":
		b.startTimer(ob)
	}
	return nil
}

// newBatch opens a batch. The caller has seen to it that there is none open
// for the key.
func (b *Batching) newBatch(bt *batcher, key string) *openBatch {
	b.number++
	b.unfinished++
	ob := &openBatch{
		batcher: bt,
		key:     key,
		number:  b.number,
		done:    make(chan struct{}),
		items:   make([]*item, 0, min(bt.Size, bt.prior+1)),
		oldest:  time.Now(),
	}
	bt.open[key] = ob
	return ob
}

// add appends the item to ob, behind tail, the latest batch of its ordering
// key, if there is one.
func (b *Batching) add(ob *openBatch, it *item, tail *openBatch) {
	it.batch = ob
	ob.items = append(ob.items, it)
	ob.present++
	ob.batcher.stats.Waiting++
	ob.weight += it.weight
	if ob.batcher.Idle > 0 {
		ob.newest = time.Now()
	}
	if it.orderKey == "" || tail == ob {
		return
	}
	b.tails[it.orderKey] = ob
	if tail == nil {
		return
	}
	// Many keys may be in the same two batches: one link is enough for those
	// that follow each other.
	if n := len(tail.after); n > 0 && tail.after[n-1] == ob {
		return
	}
	tail.after = append(tail.after, ob)
	ob.waits++
	if tail.trigger == "" {
		ob.before = append(ob.before, tail)
	}
}

// startTimer starts the clock of a batch that has its first message.
func (b *Batching) startTimer(ob *openBatch) {
	d := ob.batcher.Timeout
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
	idle := ob.newest.Add(ob.batcher.Idle).Sub(now)
	if idle <= 0 {
		b.makeDue(ob, TriggerIdle)
		return
	}
	ob.timer.Reset(min(timeout, idle))
}

// makeDue has ob run as soon as it may, and with it those that it waits for.
func (b *Batching) makeDue(ob *openBatch, trigger Trigger) {
	if ob.trigger != "" || ob.phase == done {
		return
	}
	ob.trigger = trigger
	ob.stopTimer()
	before := ob.before
	ob.before = nil // else chains of hot keys would hold all their past batches in memory
	for _, earlier := range before {
		b.makeDue(earlier, TriggerOrder)
	}
	if ob.waits == 0 {
		b.enqueue(ob)
	}
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

// enqueue takes a batch that is due and has nothing to wait for but a
// partition.
func (b *Batching) enqueue(ob *openBatch) {
	bt := ob.batcher
	bt.ready = append(bt.ready, ob)
	b.dispatch(bt)
}

// dispatch starts ready batches while there are free partitions.
func (b *Batching) dispatch(bt *batcher) {
	for len(bt.ready) > 0 && len(bt.free) > 0 {
		ob := bt.ready[0]
		bt.ready[0] = nil
		bt.ready = bt.ready[1:]
		if ob.phase == done {
			continue // all left while it was ready
		}
		b.seal(ob, ob.trigger)
		ob.phase = starting
		n := len(bt.free) - 1
		ob.partition, bt.free = bt.free[n], bt.free[:n]
		bt.prior = ob.present
		// Owner: Close, which waits for runs. It ends with its batch.
		b.runs.Go(func() { b.run(ob) })
	}
}

// retire marks ob, which is sealed, as done: those that wait for it may run.
func (b *Batching) retire(ob *openBatch) {
	ob.phase = done
	for _, it := range ob.items {
		if it.orderKey != "" && b.tails[it.orderKey] == ob {
			delete(b.tails, it.orderKey)
		}
	}
	ob.items = nil // an open batch that waited for this one may hold on to it (before)
	after := ob.after
	ob.after = nil
	for _, later := range after {
		later.waits--
		switch {
		case later.waits > 0:
		case later.present == 0:
			b.retire(later)
		case later.trigger != "":
			b.enqueue(later)
		}
	}
	b.unfinished--
	b.signalIdle()
}

// begin marks ob as running and returns its items, without those that are
// gone: while the batch waited for its turn, an earlier one may have failed and
// called some of them back. It also returns the context for the handler.
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
	close(ob.done) // wakes all its messages: not under the lock
	b.mu.Lock()
	defer b.mu.Unlock()
	ob.batcher.count(ob)
	b.retire(ob)
	ob.batcher.free = append(ob.batcher.free, ob.partition)
	b.dispatch(ob.batcher)
}

// leave takes the item out of its batch, which is not running. The item may
// have left already.
func (b *Batching) leave(it *item) {
	if it.left {
		return
	}
	ob := it.batch
	it.left = true
	ob.present--
	ob.batcher.stats.Waiting--
	ob.weight -= it.weight
	if ob.present > 0 || ob.phase != waiting {
		return
	}
	// Nothing is left to handle. It must not become due for that: what it waits
	// for would be handled early for nobody.
	ob.stopTimer()
	if !ob.sealed {
		ob.sealed = true
		delete(ob.batcher.open, ob.key)
	}
	if ob.waits == 0 {
		b.retire(ob)
	}
}

func (ob *openBatch) stopTimer() {
	if ob.timer != nil {
		ob.timer.Stop()
		ob.timer = nil
	}
}

// hurry makes the item's batch due: the subscriber has nothing more for it.
func (b *Batching) hurry(it *item) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.makeDue(it.batch, TriggerDrain)
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
		b.makeDue(ob, TriggerDrain)
	case ob.phase < running:
		b.leave(it)
	case ob.phase == running:
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
	}
	b.signalIdle()
	return true
}

// signalIdle closes idle when it is time.
func (b *Batching) signalIdle() {
	if b.closed && b.unfinished == 0 {
		close(b.idle) // once: no batch begins after closed is set
	}
}

// unfinishedBatches returns how many batches are not done.
func (b *Batching) unfinishedBatches() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unfinished
}
