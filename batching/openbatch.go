package batching

import (
	"context"
	"time"
)

// openBatch is a batch from its first message until it is done. Batching.mu guards
// it, except where the fields say otherwise.
type openBatch struct {
	batcher *batcher      // not changed
	key     string        // not changed
	done    chan struct{} // closed when the items' outcomes are known, or all have moved to other batches (split); not changed
	split   bool          // written before done is closed, read only after

	items   []*item // in the order of joining, including those that have left; nil once done
	present int     // items that have not left
	weight  int64   // of the present items
	oldest  time.Time
	newest  time.Time   // kept when Idle is on
	timer   *time.Timer // for Timeout and Idle; nil once due, or if it was due at once

	phase   phase
	trigger Trigger // empty until due
	sealed  bool    // takes no more messages

	partition int                     // set in phase starting
	probe     bool                    // one message, to find out whether an outage has ended
	giveBack  bool                    // fails unhandled: its subscriber drains during an outage
	cancel    context.CancelCauseFunc // ends the handler's context; set in phase running
	ended     int                     // items whose contexts ended in phase running
	result    result                  // owned by the goroutine that runs the batch
}

// phase is the progress of a batch. Whether a batch is due or sealed is separate:
// from phase starting both are true.
type phase uint8

const (
	waiting  phase = iota // for messages, for its timeout, for a partition
	starting              // has a partition and a goroutine; items may still leave
	running               // items no longer leave
	done                  // all outcomes are known
)

// mostPrior limits the initial capacity of a batch: a batcher may have thousands of
// batch keys with few messages each.
const mostPrior = 128

// newBatch returns an empty batch, which is not in open yet.
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
		if p.since.Before(ob.oldest) { // the batch has waited for as long as its oldest message
			ob.oldest = p.since
			ob.stopTimer()
		}
		close(p.placed)
	}
	if ob.batcher.Idle > 0 {
		ob.newest = time.Now()
	}
}

// startTimer starts the timer of a batch that is not due.
func (b *Batching) startTimer(ob *openBatch) {
	if ob.timer != nil {
		return
	}
	d := max(0, ob.batcher.Timeout-time.Since(ob.oldest))
	if idle := ob.batcher.Idle; idle > 0 {
		d = min(d, idle) // tick checks Idle and resets the timer: cheaper than a reset for every message
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
	// The timer fired before Timeout: it was set for Idle.
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

// makeDue marks ob as due: it runs as soon as a partition is free.
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

// seal makes ob due and closes it for more messages.
func (b *Batching) seal(ob *openBatch, trigger Trigger) {
	if ob.sealed {
		return
	}
	// Before makeDue, which may start it: a running batch must be sealed.
	ob.sealed = true
	delete(ob.batcher.open, ob.key)
	b.makeDue(ob, trigger)
}

// dispatch starts ready batches of a scope while fewer than Concurrency run there.
func (b *Batching) dispatch(bt *batcher) {
	if bt.down != nil {
		b.dispatchDown(bt.shared)
		return
	}
	for len(bt.ready) > 0 && bt.hasRoom() {
		ob := bt.ready[0]
		bt.ready[0] = nil
		bt.ready = bt.ready[1:]
		if ob.phase == done {
			continue // all its messages left while it was ready
		}
		b.launch(ob)
	}
}

// launch gives ob a partition and a goroutine. The caller has removed it from ready.
func (b *Batching) launch(ob *openBatch) {
	bt := ob.batcher
	b.seal(ob, ob.trigger)
	ob.phase = starting
	ob.partition = bt.takePartition()
	bt.prior = ob.present
	// Owner: Close, which waits for runs. The goroutine ends with its batch.
	b.runs.Go(func() { b.run(ob) })
}

func (ob *openBatch) stopTimer() {
	if ob.timer != nil {
		ob.timer.Stop()
		ob.timer = nil
	}
}
