package batching

import (
	"math/rand/v2"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/probe"
)

// failuresInARow is how many different messages must have failed alone, one
// after the other, for a look to find an outage; and how many batches in which
// nothing succeeded, each beginning with another message, make a batcher count
// as down where nothing better is known.
const failuresInARow = 3

// outage is what a batcher has while it is down: its handler fails whatever it
// is given, so its ready batches wait. One message at a time is taken out of
// them and handled alone, at growing pauses. The first success ends the outage.
// A probe that fails is settled as any message: it is redelivered later, so
// that other messages get to be probes.
//
// Batching.mu guards it.
type outage struct {
	Outage
	pause   time.Duration // before the next probe
	timer   *time.Timer
	due     bool // the next probe may begin
	probing bool // one runs
	works   bool // something succeeded; the outage ends with the probe that runs
	told    time.Time
}

// news is what there is to log about a batcher's outage.
type news uint8

const (
	noNews news = iota
	outageBegan
	outageGoesOn
	outageEnded
	outageForgotten
)

// learn finds out from a batch that ran whether the batcher is down.
func (b *Batching) learn(ob *openBatch) news {
	bt, r := ob.batcher, &ob.result
	succeeded := r.messages > r.failed+r.calledBack
	if succeeded {
		bt.strangers = 0
	}
	if !succeeded && r.failed > 0 && r.firstFailed != bt.stranger {
		bt.stranger = r.firstFailed
		bt.strangers++
	}
	d := bt.down
	if d == nil {
		if bt.Probe && !succeeded && (r.outage != nil || r.own >= failuresInARow || bt.strangers >= failuresInARow) && !b.closed {
			b.goDown(bt, r.err)
		}
		return noNews
	}
	d.works = d.works || succeeded
	if r.err != nil {
		d.Err = r.err
	}
	if ob.probe {
		d.probing = false
		d.due = r.messages == 0 // it had left: the next one may be tried at once
		if r.messages > 0 {
			d.Probes++
			d.pause = probe.Next(d.pause)
			d.timer.Reset(d.pause)
		}
	}
	return b.judge(bt)
}

// judge ends the outage if something has succeeded.
func (b *Batching) judge(bt *batcher) news {
	d := bt.down
	now := time.Now()
	switch {
	case d.works && !d.probing:
		// Not while a probe runs: its neighbours of one ordering key wait for it.
		d.timer.Stop()
		bt.down, bt.strangers = nil, 0
		bt.last = *d
		if !d.told.IsZero() {
			return outageEnded
		}
	case d.Probes == 0, now.Sub(d.told) < probe.LogEvery:
	case d.told.IsZero():
		d.told = now
		return outageBegan
	default:
		d.told = now
		return outageGoesOn
	}
	return noNews
}

// goDown begins an outage.
func (b *Batching) goDown(bt *batcher, err error) {
	d := &outage{Outage: Outage{Since: time.Now(), Err: err}, pause: probe.FirstPause}
	d.timer = time.AfterFunc(d.pause, func() {
		if b.probeIsDue(bt, d) {
			b.logOutage(bt, outageForgotten)
		}
	})
	bt.down = d
}

// probeIsDue is called by the outage's timer: before each probe, and when none
// could be made for probe.IdleAfter. It reports whether the outage is forgotten, and
// that is worth a line.
func (b *Batching) probeIsDue(bt *batcher, d *outage) (forgotten bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if bt.down != d {
		return false
	}
	if d.due && !d.probing && len(bt.ready) == 0 {
		bt.down, bt.strangers, bt.last = nil, 0, *d
		return !d.told.IsZero()
	}
	d.due = true
	d.timer.Reset(probe.IdleAfter)
	b.dispatch(bt)
	return false
}

// dispatchDown starts what may run during an outage: the next probe, and
// batches that are given back.
func (b *Batching) dispatchDown(bt *batcher) {
	kept := bt.ready[:0]
	for _, ob := range bt.ready {
		switch {
		case ob.phase == done: // all left while it was ready
		case len(bt.free) > 0 && (b.closed || ob.abandoned()):
			ob.giveBack = true
			b.launch(ob)
		default:
			kept = append(kept, ob)
		}
	}
	clear(bt.ready[len(kept):])
	bt.ready = kept
	if d := bt.down; d.due && !d.probing && len(bt.free) > 0 && len(bt.ready) > 0 {
		d.due, d.probing = false, true
		b.probe(bt)
	}
}

// abandoned reports whether the subscriber of the batch's messages does not
// wait for the end of an outage: it drains, or has ended their contexts.
func (ob *openBatch) abandoned() bool {
	for _, it := range ob.items {
		if !it.left && (it.stopping || closed(it.draining)) {
			return true
		}
	}
	return false
}

// probe handles one message out of a ready batch alone. Which one is chance: a
// bad message must not be the probe each time.
func (b *Batching) probe(bt *batcher) {
	n := rand.IntN(len(bt.ready))
	ob := bt.ready[n]
	var free []*item // with no earlier one of their key in the batch
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

// move takes over an item of another batch that does not run.
func (ob *openBatch) move(it *item) {
	it.batch = ob
	ob.items = append(ob.items, it)
	ob.present++
	ob.weight += it.weight
}

// logOutcome logs what a batch's end has to tell, one line for all its messages.
func (b *Batching) logOutcome(ob *openBatch, n news, lonely bool) {
	bt, r := ob.batcher, &ob.result
	fields := func() watermill.LogFields { return watermill.LogFields{"batcher": bt.name} }
	if r.logs() {
		f := fields()
		f["messages"], f["failed"], f["called_back"], f["first"] = r.messages, r.failed, r.calledBack, r.names
		if ob.key != "" {
			f["batch_key"] = ob.key
		}
		if r.stack != "" {
			f["stack"] = r.stack
		}
		if ob.probe { // the lines about the outage say it
			f["err"] = r.err.Error()
			b.logger.Debug("Probe failed", f)
		} else {
			b.logger.Error("Batch failed", r.err, f)
		}
	}
	if n != noNews {
		b.logOutage(bt, n)
	}
	if lonely {
		f := fields()
		f["size"], f["timeout"] = bt.Size, bt.Timeout.String()
		b.logger.Error("Batches have one message each and leave by their timeout", errOneAtATime, f)
	}
}

func (b *Batching) logOutage(bt *batcher, n news) {
	fields := watermill.LogFields{"batcher": bt.name}
	b.mu.Lock()
	o := bt.last
	if bt.down != nil {
		o = *bt.down
	}
	fields["ready_batches"], fields["waiting"] = len(bt.ready), bt.stats.Waiting
	b.mu.Unlock()
	fields["since"], fields["probes"] = o.Since.UTC().Format(time.RFC3339), o.Probes
	switch n {
	case outageBegan:
		b.logger.Error("Nothing succeeds in this batcher: its batches wait, single messages probe", o.Err, fields)
	case outageGoesOn:
		b.logger.Error("Still nothing succeeds in this batcher", o.Err, fields)
	case outageEnded:
		fields["took"] = time.Since(o.Since).String()
		b.logger.Info("The batcher's handler works again", fields)
	case outageForgotten:
		b.logger.Info("Nothing is left to try in this batcher: its outage is forgotten", fields)
	}
}
