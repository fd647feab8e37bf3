package batching

import (
	"errors"
	"runtime"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

// Deferral says how messages are handled that join their batches by Join.
type Deferral struct {
	// Process is the processing step, the handler that Middleware would wrap. What it
	// produces is discarded. Required.
	Process message.HandlerFunc

	// Succeeded is called with messages whose batch succeeded, before they are acked,
	// in the order in which they joined. It must be quick, since the batch still counts
	// as running, and must not keep the slice. Required.
	Succeeded func(messages []*message.Message)

	// Failed is called for each message whose batch failed, or that left its batch
	// because its context has ended, in a goroutine of its own. err is what Middleware
	// would have returned, and tag the argument of Join. The message is acked if Failed
	// returns nil, and nacked if it returns an error or panics. It is not called for
	// messages that were called back. For a message that cannot join, because Close was
	// called, the goroutine that called Join calls it. Required.
	Failed func(msg *message.Message, tag any, err error) error
}

// Join is Middleware for a message that is settled after its handler has returned: it
// calls d.Process and gives the message its place in a batch, but does not wait for the
// batch. It may only be called in the message's handler, by the goroutine that called the
// handler.
//
// If joined is true, the message is settled when its batch is done, and what the handler
// returns has no effect; the handler should return at once, since the subscriber may deliver
// nothing else meanwhile. Otherwise err is the message's outcome, as of Middleware. That is
// so if Process failed, if the message's context has ended, and if its delivery is not an
// ack.Deferrer: then Join waits for the batch as Middleware does.
//
// All that Middleware promises about order, failures and outages holds. Messages of Join
// and of Middleware may be in one batch.
func (b *Batching) Join(msg *message.Message, d *Deferral, tag any) (joined bool, err error) {
	it := b.newDeferred(msg, d, tag)
	if it == nil {
		_, err := b.Middleware(d.Process)(msg)
		return false, err
	}
	_, scope, err := b.process(&it.item, d.Process)
	if err == nil && !it.deferrer.Defer(it) {
		if !it.gone() { // it was not delivered to a handler of Handle, say
			it.deferred = nil
			err := b.joinAndWait(&it.item, scope)
			msg.SetContext(it.Context)
			return false, withoutCallBack(err)
		}
		err = it.goneError()
	}
	if err != nil {
		msg.SetContext(it.Context)
		if it.calledBack() {
			return false, nil
		}
		it.callBack(err)
		return false, err
	}
	it.told = true
	b.joinDeferred(it, scope)
	return true, nil
}

// deferred is an item whose message is settled by the goroutine that runs its batch, or by
// one of its own, instead of being returned by its handler.
//
// Invariant: it is settled once. The goroutine that runs its batch does so, or starts a
// goroutine for it; an item that leaves its batch before gets a goroutine from end; one
// that cannot join is settled by Join.
type deferred struct {
	item
	batching *Batching
	deferral *Deferral
	tag      any
	deferrer ack.Deferrer
	place    turn            // what turn points to, with an ordering key
	hurry    <-chan struct{} // the delivery's, from before it joined
	signals  [2]*signal      // of hurry and draining; set when it joins, guarded by Batching.mu

	over  atomic.Bool // its delivery has ended
	aside bool        // it is settled in a goroutine of its own; belongs to the goroutine that runs the batch

	// Guarded by Batching.mu.
	joined bool
	yields int           // how often Join lets other goroutines run first: its batch is full
	waits  bool          // for the settlement of an earlier message of its key, outside of its batch
	wakes  chan struct{} // what ended is while it waits; closed with over
}

// newDeferred returns nil if the message's delivery cannot be deferred.
func (b *Batching) newDeferred(msg *message.Message, d *Deferral, tag any) *deferred {
	ctx := msg.Context()
	delivery, _ := ack.FromContext(ctx)
	deferrer, ok := delivery.(ack.Deferrer)
	if !ok {
		return nil
	}
	it := &deferred{item: item{Context: ctx, delivery: delivery, exact: true}, batching: b, deferral: d, tag: tag, deferrer: deferrer}
	it.deferred = it
	if r := lookupRoute(msg); r != nil { // chosen outside of Join
		it.route = *r
	}
	it.route.msg = msg
	return it
}

// joinDeferred gives the item its place, or settles it if there is none.
func (b *Batching) joinDeferred(it *deferred, scope string) {
	if d, ok := it.delivery.(ack.Drainer); ok {
		it.draining = d.Draining()
	}
	// Before the item joins, which has a goroutine wait for this channel (watch). If the
	// channel is closed before that, the item hurries itself.
	it.hurry = it.delivery.Hurry()
	if _, err := b.join(&it.item, scope); err != nil {
		it.err = err
		it.callBack(err)
		b.settleDeferred(it)
		return
	}
	it.handOff()
	if closed(it.hurry) {
		b.hurry(&it.item)
	}
	// Lets the batches run. Otherwise many goroutines that never wait would first join all
	// that may be in flight, which takes memory and the processor's caches.
	for range it.yields {
		runtime.Gosched()
	}
}

// mostYields bounds the yields of a message that fills a batch, about 0.2 µs each. When the
// handler is slow, full batches wait for it and yielding does not help.
const mostYields = 32

// DeliveryEnded implements ack.Listener.
func (it *deferred) DeliveryEnded() {
	b := it.batching
	if b.end(&it.item) {
		go b.settleCounted(it) // ends with the settlement, for which Close waits
	}
}

// settleAllDeferred settles the deferred items of a batch that was handled, before the
// batch is done: the later messages of their keys are not in a batch before that.
func (b *Batching) settleAllDeferred(ob *openBatch, items []*item) {
	b.lineUp(ob, items)
	var (
		messages []*message.Message
		acked    []ack.Deferrer
		of       *Deferral // of messages
	)
	flush := func() {
		if len(messages) > 0 {
			of.Succeeded(messages)
			acked[0].AckAll(acked)
			messages, acked = messages[:0], acked[:0]
		}
	}
	for _, it := range items {
		d := it.deferred
		switch {
		case d == nil:
		case it.err != nil, d.waits, d.over.Load():
			d.aside = true
		default:
			if of != d.deferral {
				flush()
				of = d.deferral
			}
			if messages == nil {
				messages, acked = make([]*message.Message, 0, len(items)), make([]ack.Deferrer, 0, len(items))
			}
			it.msg.SetContext(it.Context)
			messages, acked = append(messages, it.msg), append(acked, d.deferrer)
		}
	}
	flush()
}

// settleAside gives each item a goroutine that settleAllDeferred did not settle.
func (b *Batching) settleAside(items []*item) {
	for _, it := range items {
		if d := it.deferred; d != nil && d.aside {
			go b.settleCounted(d) // ends with the settlement, for which Close waits
		}
	}
}

// settleCounted is settleDeferred for an item that is counted in settling.
func (b *Batching) settleCounted(it *deferred) {
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.settling--
		b.signalIdle()
	}()
	b.settleDeferred(it)
}

// lineUp finds the deferred items of a batch whose turn has not come: an earlier message
// of their key has been handled in another batch, by Middleware, and is not settled.
func (b *Batching) lineUp(ob *openBatch, items []*item) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, it := range items {
		d := it.deferred
		if d == nil || it.turn == nil || it.turn.prev == nil {
			continue
		}
		if p := it.turn.prev.item; p != nil && p.deferred != nil && p.batch == ob {
			d.waits = p.deferred.waits // else the message before is settled with this one
		} else {
			p, _ := b.previous(it.turn)
			d.waits = p != nil
		}
		if d.waits {
			d.wakes = make(chan struct{})
			it.ended = d.wakes
			if d.over.Load() {
				close(d.wakes)
			}
		}
	}
}

// settleDeferred settles a deferred item. It may take as long as Deferral.Failed does, and
// as the settlement of earlier messages of its key.
func (b *Batching) settleDeferred(it *deferred) {
	err := it.outcome()
	if it.waits && !errors.Is(err, errCalledBack) {
		if turned := b.awaitTurn(&it.item); turned != nil {
			err = turned
		}
	}
	it.msg.SetContext(it.Context)
	// In a defer, since Failed may end the goroutine (runtime.Goexit).
	final := error(errFailedExited)
	defer func() {
		if v := recover(); v != nil {
			final = ack.NewPanicError("Deferral", v)
		}
		// Before Settle: the message may be redelivered at once. Later messages of its key
		// have been taken back by then.
		b.mu.Lock()
		b.release(it)
		b.mu.Unlock()
		it.deferrer.Settle(final)
	}()
	switch {
	case errors.Is(err, errCalledBack): // the subscriber ignores the outcome
	case err == nil:
		it.deferral.Succeeded([]*message.Message{it.msg})
	default:
		err = it.deferral.Failed(it.msg, it.tag, err)
	}
	final = withoutCallBack(err)
}

// release ends the item's turn and its interest in signals: its message is settled, or is
// about to be, with the later messages of its key taken back. Batching.mu must be held.
func (b *Batching) release(it *deferred) {
	for _, s := range it.signals {
		b.unlisten(s)
	}
	t := it.turn
	if t == nil {
		return
	}
	t.concluded = true
	if t.next != nil && !t.next.deferred {
		return // the goroutine of a message that waits may read its prev without the lock
	}
	b.unlink(t)
}

// beginDeferred reports to the subscribers that the batch runs, for its deferred items.
// Those whose channel is lost leave before it does.
func (b *Batching) beginDeferred(ob *openBatch) {
	var begun []ack.Deferrer
	for _, it := range ob.items {
		d := it.deferred
		if d == nil || it.stage.CompareAndSwap(stageJoined, stageBegun) {
			continue
		}
		if begun == nil {
			begun = make([]ack.Deferrer, 0, len(ob.items))
		}
		begun = append(begun, d.deferrer)
	}
	if len(begun) > 0 {
		begun[0].BeginAll(begun)
	}
}
