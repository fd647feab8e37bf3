package subscriber

import (
	"errors"
	"maps"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/ots"
)

// taker takes the records whose turn it is from the tracker, and makes a message and a
// delivery of each. It belongs to the goroutine that delivers.
type taker struct {
	*settler
	scope    *scope
	outcomes *outcomes
	dest     *destination

	uuids   *uuids
	records recordDecoder
	plain   *plainJSON // nil where another Unmarshaler makes the messages
	scratch ots.Record // the record that is unmarshalled, where nothing keeps it
}

func newTaker(o *outcomes, dest *destination) *taker {
	own := o.settler.ownership
	t := &taker{
		settler: o.settler, outcomes: o, dest: dest,
		scope: &scope{ownership: own, values: dest.values, typed: &dest.typed, offer: offer{recalled: make(chan struct{}, 1)}},
		uuids: newUUIDs(own.tunnelID, own.id),
	}
	t.records.block = blockCells
	if _, ok := own.cfg.Unmarshaler.(JSON); ok {
		t.plain = new(plainJSON)
	}
	return t
}

// forgetDecoded lets go of the last record and of memory for the next ones, which
// would pin its page for as long as nothing else is delivered.
func (t *taker) forgetDecoded() {
	if t.dest.copies && !t.dest.typed.Load() {
		t.records.reuse()
	} else {
		t.records.forget()
	}
	t.scratch = ots.Record{}
}

// next waits for the next record whose turn it is, and returns when it came; now is
// the time before. It is false when nothing is delivered any more. Before it
// waits it settles all that is acked.
func (t *taker) next(acked *ackBatch, now time.Time) (a ledger.Attempt, at time.Time, ok bool) {
	for ; ; now = time.Now() {
		select { // before Next: until the tracker drains it would give back what is refused
		case <-t.draining:
			t.forgetDecoded()
			return a, now, false
		default:
		}
		a, retryAt, ok := t.tracker.Next(now)
		if ok {
			return a, now, true
		}
		if t.outcomes.check(acked, last) {
			continue
		}
		t.forgetDecoded()
		if !t.await(retryAt) {
			return a, now, false
		}
	}
}

// await waits until the tracker may have a record, or until retryAt unless that is zero. It is
// false when nothing is delivered any more.
func (t *taker) await(retryAt time.Time) bool {
	var due <-chan time.Time
	if !retryAt.IsZero() {
		timer := time.NewTimer(time.Until(retryAt))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-t.tracker.Ready():
	case <-due:
	case <-t.draining:
		return false
	case <-t.ctx.Done():
		return false
	}
	return true
}

// bind makes the delivery known to the tracker. If it was called back or fenced
// meanwhile, all that there is to do for it is done.
func (t *taker) bind(d *delivery) bool {
	t.isOver(d.since()) // which fences the tracker
	if t.tracker.Bind(d.attempt, d) {
		return true
	}
	d.cancel(ack.ErrCalledBack)
	t.tracker.Nack(d.attempt, time.Time{}) // its end: the record is redelivered in its turn
	return false
}

// messageOf makes a message and its delivery, for a record whose turn came
// just now. Without a message, all that there is to do for the record is done.
func (t *taker) messageOf(a ledger.Attempt, now time.Time) (*delivery, *message.Message) {
	p := a.Page().(*page)
	if t.plain != nil && !t.dest.typed.Load() {
		if msg, seq, ok := t.plain.message(p, a.Index()); ok {
			d := t.newDelivery(a, now, p.rows[a.Index()].typ, seq)
			msg.UUID = d.uuid
			t.mark(msg)
			msg.SetContext(d)
			return d, msg
		}
	}
	// Records that handlers ask for are decoded for good at once.
	keep := !t.dest.copies || t.dest.typed.Load()
	rec := &t.scratch
	if keep {
		rec = new(ots.Record)
	} else {
		t.records.reuse()
	}
	t.records.decode(p, a.Index(), rec)
	t.records.decodeRow(p, a.Index(), rec)
	d := t.newDelivery(a, now, rec.Type, rec.Sequence)
	rec.Attempt, rec.UUID = a.Number(), d.uuid
	if keep {
		d.record.Store(rec)
	}
	msg, skip, err := t.unmarshal(rec, a)
	if skip {
		t.skip(a)
		return nil, nil
	}
	if err != nil {
		t.refuse(rec, a, err)
		return nil, nil
	}
	t.observer.records.unmarshalerSucceeded()
	if !t.dest.copies { // the user's Unmarshaler, which may take its time
		msg = deliverable(msg)
		d.at = time.Since(t.started)
	}
	if msg.UUID == "" {
		msg.UUID = rec.UUID
	}
	t.mark(msg)
	msg.SetContext(d)
	return d, msg
}

// mark says of which snapshot a message is.
func (t *taker) mark(msg *message.Message) {
	if t.snapshot == "" {
		return
	}
	if !t.dest.copies { // the user's Unmarshaler may give several messages the same metadata
		msg.Metadata = maps.Clone(msg.Metadata)
	}
	msg.Metadata[MetadataSnapshot] = t.snapshot
}

func (t *taker) newDelivery(a ledger.Attempt, now time.Time, typ ots.RecordType, seq ots.Sequence) *delivery {
	uuid := t.uuids.of(typ, seq, a.Page().(*page).keys[a.Index()])
	return &delivery{scope: t.scope, attempt: a, uuid: uuid, changed: seq.Timestamp, at: now.Sub(t.started)}
}

// unmarshal calls the Unmarshaler, which is the user's: it may panic, which is its
// error, or end the goroutine. Then nothing is returned to the caller, and the
// record's failure is noted here; delivery continues in another goroutine. The record
// is skipped only if ErrSkip was returned: a panic with it is a failure as any other.
func (t *taker) unmarshal(rec *ots.Record, a ledger.Attempt) (msg *message.Message, skip bool, err error) {
	returned := false
	defer func() {
		if v := recover(); v != nil {
			err = ack.NewPanicError("unmarshaler", v)
		} else if !returned {
			t.refuse(rec, a, errUnmarshalerExited)
		}
	}()
	msg, err = t.cfg.Unmarshaler.Unmarshal(rec)
	returned = true
	if err == nil && msg == nil {
		err = errors.New("unmarshaler returned neither a message nor an error")
	}
	return msg, errors.Is(err, ots.ErrSkip), err
}

// errUnmarshalerExited is the failure of an Unmarshaler that ended its goroutine.
var errUnmarshalerExited = errors.New("unmarshaler exited without returning (runtime.Goexit)")

// deliverable returns a message that can be delivered: msg, or a copy of it where an
// Unmarshaler did not make it with NewMessage, or returned one that was acked or nacked
// before. The ack of such a message would never be seen, or would be seen before it
// was handled.
func deliverable(msg *message.Message) *message.Message {
	if msg.Acked() == nil || msg.Nacked() == nil || closed(msg.Acked()) || closed(msg.Nacked()) {
		fresh := message.NewMessage(msg.UUID, msg.Payload)
		fresh.Metadata = msg.Metadata
		msg = fresh
	}
	if msg.Metadata == nil {
		msg.Metadata = make(message.Metadata)
	}
	// What is behind the payload in its memory may be another message's, or the texts of
	// the metadata: an append by a handler must not write there.
	msg.Payload = msg.Payload[:len(msg.Payload):len(msg.Payload)]
	return msg
}
