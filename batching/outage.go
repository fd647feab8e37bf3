package batching

import (
	"math/rand/v2"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/probe"
)

// failuresInARow is how many different messages must have failed alone in a row for
// isolation to find an outage. It is also how many batches without a success, each
// beginning with a different message, make a batcher count as down without other
// evidence.
const failuresInARow = 3

// outage is the state of a batcher that is down: all calls of its handler fail, so
// its ready batches wait. One message at a time is taken out of them and handled
// alone, as a probe, with growing pauses. The first success ends the outage. A failed
// probe is settled like any message: it is redelivered later, so that other messages
// become probes.
//
// Batching.mu guards it.
type outage struct {
	Outage
	pause   time.Duration // before the next probe
	timer   *time.Timer
	due     bool      // the next probe may start
	probing bool      // a probe runs
	works   bool      // a message succeeded; the outage ends with the probe that runs
	logged  time.Time // when the outage was last logged; zero: never
}

// outageEvent is a change of a batcher's outage that is logged.
type outageEvent uint8

const (
	noEvent outageEvent = iota
	outageBegan
	outageContinues
	outageEnded
	outageDropped
)

// learn updates the batcher's outage after a batch that ran.
func (b *Batching) learn(ob *openBatch) outageEvent {
	bt, r := ob.batcher, &ob.result
	succeeded := r.messages > r.failed+r.calledBack
	if succeeded {
		bt.failedInARow = 0
	}
	if !succeeded && r.failed > 0 && r.firstFailed != bt.lastFailed {
		bt.lastFailed = r.firstFailed
		bt.failedInARow++
	}
	d := bt.down
	if d == nil {
		if bt.Probe && !succeeded && (r.outage != nil || r.own >= failuresInARow || bt.failedInARow >= failuresInARow) && !b.closed {
			b.goDown(bt.shared, r.err)
		}
		return noEvent
	}
	d.works = d.works || succeeded
	if r.err != nil {
		d.Err = r.err
	}
	if ob.probe {
		d.probing = false
		d.due = r.messages == 0 // the message had left: the next probe may start at once
		if r.messages > 0 {
			d.Probes++
			d.pause = probe.Next(d.pause)
			d.timer.Reset(d.pause)
		}
	}
	return b.judge(bt.shared)
}

// judge ends the outage if a message has succeeded.
func (b *Batching) judge(bt *shared) outageEvent {
	d := bt.down
	now := time.Now()
	switch {
	case d.works && !d.probing:
		// Not while a probe runs: other messages of its ordering key wait for it.
		d.timer.Stop()
		bt.down, bt.failedInARow = nil, 0
		bt.last = *d
		if !d.logged.IsZero() {
			return outageEnded
		}
	case d.Probes == 0, now.Sub(d.logged) < probe.LogEvery:
	case d.logged.IsZero():
		d.logged = now
		return outageBegan
	default:
		d.logged = now
		return outageContinues
	}
	return noEvent
}

// goDown begins an outage.
func (b *Batching) goDown(bt *shared, err error) {
	d := &outage{Outage: Outage{Since: time.Now(), Err: err}, pause: probe.FirstPause}
	d.timer = time.AfterFunc(d.pause, func() {
		if b.probeIsDue(bt, d) {
			b.logOutage(bt, outageDropped)
		}
	})
	bt.down = d
}

// probeIsDue is called by the outage's timer: before each probe, and after
// probe.IdleAfter without a message to probe with. It reports whether the outage was
// dropped and this must be logged.
func (b *Batching) probeIsDue(bt *shared, d *outage) (dropped bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bt.down != d {
		return false
	}
	if d.due && !d.probing && !bt.hasReady() {
		bt.down, bt.failedInARow, bt.last = nil, 0, *d
		return !d.logged.IsZero()
	}
	d.due = true
	d.timer.Reset(probe.IdleAfter)
	b.dispatchDown(bt)
	return false
}

// dispatchDown starts the batches that may run during an outage: the next probe, and
// batches that are given back.
func (b *Batching) dispatchDown(s *shared) {
	for _, bt := range s.scopes {
		kept := bt.ready[:0]
		for _, ob := range bt.ready {
			switch {
			case ob.phase == done: // all its messages left while it was ready
			case bt.hasRoom() && (b.closed || ob.abandoned()):
				ob.giveBack = true
				b.launch(ob)
			default:
				kept = append(kept, ob)
			}
		}
		clear(bt.ready[len(kept):])
		bt.ready = kept
	}
	if d := s.down; d.due && !d.probing {
		if bt := s.toProbe(); bt != nil {
			d.due, d.probing = false, true
			b.probe(bt)
		}
	}
}

// abandoned reports whether the subscriber of a message in the batch does not wait
// for the end of an outage: it drains, or has cancelled the message's context.
func (ob *openBatch) abandoned() bool {
	for _, it := range ob.items {
		if !it.left && (it.stopping || closed(it.draining)) {
			return true
		}
	}
	return false
}

// probe handles one message of a ready batch alone. It picks the message at random,
// so that a bad message is not the probe each time.
func (b *Batching) probe(bt *batcher) {
	n := rand.IntN(len(bt.ready))
	ob := bt.ready[n]
	var free []*item // without an earlier message of their key
	for _, it := range ob.items {
		if !it.left && (it.turn == nil || it.turn.ahead() == nil) {
			free = append(free, it)
		}
	}
	it := free[rand.IntN(len(free))]
	one := b.newBatch(bt, ob.key)
	one.sealed, one.probe, one.trigger = true, true, TriggerProbe
	one.oldest = ob.oldest
	rest := b.newBatch(bt, ob.key)
	rest.sealed, rest.trigger, rest.oldest, rest.newest = ob.sealed, ob.trigger, ob.oldest, ob.newest
	for _, o := range ob.items {
		switch {
		case o == it:
			one.move(o)
		case !o.left:
			rest.move(o)
		}
	}
	ob.items, ob.phase, ob.split = nil, done, true
	b.unfinished--
	if bt.open[ob.key] == ob {
		bt.open[ob.key] = rest
	}
	if bt.ready[n] = rest; rest.present == 0 {
		if bt.open[ob.key] == rest {
			delete(bt.open, ob.key)
		}
		rest.phase = done
		b.unfinished--
		bt.ready = append(bt.ready[:n], bt.ready[n+1:]...)
	}
	close(ob.done)
	b.launch(one)
}

// move adds an item of another batch, which does not run.
func (ob *openBatch) move(it *item) {
	it.batch = ob
	ob.items = append(ob.items, it)
	ob.present++
	ob.weight += it.weight
}

// logOutcome logs the end of a batch, in one line for all its messages.
func (b *Batching) logOutcome(ob *openBatch, event outageEvent, serial bool) {
	bt, r := ob.batcher, &ob.result
	fields := func() watermill.LogFields { return watermill.LogFields{"batcher": bt.name} }
	if r.logs() {
		f := fields()
		f["messages"], f["failed"], f["called_back"], f["first"] = r.messages, r.failed, r.calledBack, r.names
		if ob.key != "" {
			f["batch_key"] = ob.key
		}
		if bt.scope != "" {
			f["scope"] = bt.scope
		}
		if r.stack != "" {
			f["stack"] = r.stack
		}
		if ob.probe { // the lines about the outage report it
			f["err"] = r.err.Error()
			b.logger.Debug("Probe failed", f)
		} else {
			b.logger.Error("Batch failed", r.err, f)
		}
	}
	if event != noEvent {
		b.logOutage(bt.shared, event)
	}
	if serial {
		f := fields()
		f["size"], f["timeout"] = bt.Size, bt.Timeout.String()
		b.logger.Error("Batches have one message each and run after their timeout", errOneAtATime, f)
	}
}

func (b *Batching) logOutage(bt *shared, event outageEvent) {
	fields := watermill.LogFields{"batcher": bt.name}
	b.mu.Lock()
	o := bt.last
	if bt.down != nil {
		o = *bt.down
	}
	fields["ready_batches"], fields["waiting"] = bt.readyBatches(), bt.stats.Waiting
	b.mu.Unlock()
	fields["since"], fields["probes"] = o.Since.UTC().Format(time.RFC3339), o.Probes
	switch event {
	case outageBegan:
		b.logger.Error("The batcher's handler is down: batches wait, and single messages probe it", o.Err, fields)
	case outageContinues:
		b.logger.Error("The batcher's handler is still down", o.Err, fields)
	case outageEnded:
		fields["took"] = time.Since(o.Since).String()
		b.logger.Info("The batcher's handler works again", fields)
	case outageDropped:
		b.logger.Info("The batcher has no messages left to probe with: its outage is dropped", fields)
	}
}
