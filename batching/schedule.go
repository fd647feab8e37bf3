package batching

import "sync/atomic"

// schedule is the state of all batchers and batches: which message is in which
// batch, and which batch may run. Batching.mu guards it. It is shared by all
// batchers, because an ordering key means the same in all of them.
//
// A batch goes through these states, in this order; it may skip some:
//
//	open ──▶ due ──▶ sealed ──▶ running ──▶ done
//
// open: takes messages. due: a trigger fired; the batch runs as soon as a partition
// is free, and takes more messages until then. sealed: due, and takes no more
// messages. running: it has a partition, and its handler is about to be called;
// messages can no longer leave it. done: all its messages have their outcome.
//
// Invariants:
//   - A batcher has at most one batch that takes messages for each batch key, in
//     each scope.
//   - A message joins a batch only when the earlier messages of its ordering key
//     are in the same batch or in batches that are done. Until then it is parked:
//     it waits alone, outside of any batch. So a batch never waits for another one,
//     and a message never waits, beyond Size, Timeout and Concurrency, for a batch
//     that has no message of its key.
//   - The parked messages of a key are in the chain of their turns. When the batch
//     before them is done they join in that order.
//   - A parked message waits for handlers, and for other messages at most for its
//     own batcher's Timeout: after that the batch before it is due.
//   - At most Concurrency batches of a batcher run in each scope. If fewer run, none
//     of the scope's batches is ready, unless the batcher is down (see outage).
type schedule struct {
	turns
	closed     bool
	unfinished int // batches that are not done
	parked     map[*item]struct{}
	settling   int           // deferred messages that are being settled in goroutines of their own
	idle       chan struct{} // closed once closed is set and nothing is unfinished, parked or being settled
}

func newSchedule() schedule {
	return schedule{turns: newTurns(), parked: make(map[*item]struct{}), idle: make(chan struct{})}
}

// shared is the state of one configured batcher that all its scopes share (scope.go).
type shared struct {
	Batcher // as configured, with the defaults filled in; not changed
	name    string
	whole   *batcher // the only scope without Config.Scope; with it, what an item has before it joins. Not changed

	succeeded atomic.Uint64 // messages, so far

	// Guarded by Batching.mu.
	scopes     map[string]*batcher // those that have messages; without Config.Scope only whole
	free       []int               // partitions in which no batch runs
	partitions int                 // how many there are: Concurrency, or more if the scopes needed more at once
	prior      int                 // how many messages the latest batch had: a guess for the next one

	serial serialDetector

	down         *outage // nil while the handler works
	last         outage  // the previous outage; for the log
	lastFailed   string  // UUID of the first failed message of the latest batch without a success
	failedInARow int     // such batches in a row, each with a different first message

	stats   BatcherStats          // the counters; Stats adds the rest
	batches [len(triggers)]uint64 // handled batches, by trigger
}

// batcher is a configured batcher at work in one scope.
type batcher struct {
	*shared
	scope string // not changed

	// Guarded by Batching.mu.
	open    map[string]*openBatch // by batch key: the batch that takes messages
	ready   []*openBatch          // due; in the order in which they became so
	running int                   // batches that have a partition
	items   int                   // messages that are parked or in a batch that is not done
}

// join gives the item its place among the messages of its ordering key. Then it puts
// the item into the open batch of its batcher, scope and batch key, opens a batch, or
// parks the item.
func (b *Batching) join(it *item, scope string) (spot, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := b.hash(it.orderKey)
	if it.orderKey != "" && b.rejoins(it, key) && it.delivery != nil {
		b.mu.Unlock() // CallBack cancels contexts, which runs other code
		it.delivery.CallBack(errHandledAgain)
		b.mu.Lock()
	}
	if b.closed {
		return spot{}, ErrClosed
	}
	d := it.deferred
	if d != nil && d.over.Load() {
		it.left = true
		return spot{}, errEndedBefore
	}
	if it.orderKey != "" {
		b.take(it, key)
	}
	if b.scope != nil {
		it.to = it.to.in(scope)
	}
	it.to.items++
	it.to.serial.joined(it.to.shared)
	if ahead := b.waitsFor(it); ahead != nil {
		b.park(it, ahead)
	} else {
		b.place(it, it.to.open[it.route.key])
	}
	if d != nil {
		d.joined = true
		if it.batch != nil && it.batch.sealed {
			d.yields = 1 + min(len(it.to.ready), mostYields)
		}
		d.signals = [2]*signal{b.listen(d.hurry), b.listen(d.draining)}
		return spot{}, nil
	}
	return it.spot(), nil
}

// spot is the place where an item waits: in a batch or parked.
type spot struct {
	in      *openBatch      // nil: parked
	changed <-chan struct{} // closed when the batch is done, or the item has moved to another spot
}

// spot returns where the item waits. The caller holds Batching.mu.
func (it *item) spot() spot {
	if it.batch == nil {
		return spot{nil, it.parking.placed}
	}
	return spot{it.batch, it.batch.done}
}

// spotOf returns where the item waits after it has moved.
func (b *Batching) spotOf(it *item) spot {
	b.mu.Lock()
	defer b.mu.Unlock()
	return it.spot()
}

// waitsFor returns the earlier message of the key that keeps the item from joining
// its batch, or nil.
func (b *Batching) waitsFor(it *item) *item {
	if it.turn == nil || it.turn.prev == nil {
		return nil
	}
	ahead := it.turn.ahead()
	if ahead == nil || ahead.batch != nil && ahead.batch == it.to.open[it.route.key] && b.fits(it, ahead.batch) {
		return nil
	}
	return ahead
}

// fits reports whether the item can join ob, which is open.
func (b *Batching) fits(it *item, ob *openBatch) bool {
	limit := it.to.MaxBytes
	return limit <= 0 || ob.weight+it.weight <= limit
}

// place puts the item into ob, or into a new batch if ob is nil or too full. No
// earlier message of the item's key is in another batch.
func (b *Batching) place(it *item, ob *openBatch) {
	bt := it.to
	if ob != nil && !b.fits(it, ob) {
		b.seal(ob, TriggerBytes)
		ob = nil
	}
	if ob == nil {
		ob = b.newBatch(bt, it.route.key)
		bt.open[it.route.key] = ob
	}
	b.add(ob, it)
	switch {
	case ob.present >= bt.Size:
		b.seal(ob, TriggerSize)
	case bt.MaxBytes > 0 && ob.weight >= bt.MaxBytes:
		b.seal(ob, TriggerBytes)
	case it.route.flush:
		b.makeDue(ob, TriggerFlush)
	case b.closed:
		b.makeDue(ob, TriggerClose)
	case it.parking != nil && it.parking.hurried:
		b.makeDue(ob, TriggerDrain)
	case ob.trigger == "":
		b.startTimer(ob)
	}
}
