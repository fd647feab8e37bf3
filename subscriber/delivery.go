package subscriber

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/ots"
)

// deliver sends messages to the output until the tracker drains or is fenced, and
// calls done then. When an Unmarshaler ends the goroutine (runtime.Goexit), another
// one takes over.
func (r *channelRun) deliver(done func()) {
	over := false
	defer func() {
		if over {
			done()
		} else {
			go r.deliver(done) // ends as this one does; done has not been called
		}
	}()
	acked := &settler{run: r}
	defer acked.look(last)
	for {
		a, now, ok := r.next(acked, time.Now())
		if !ok {
			over = true
			return
		}
		d, msg := r.messageOf(a, now)
		if msg == nil {
			continue
		}
		r.offered.Store(d) // before bind: from there on recall may be meant for it
		if r.bind(d) && r.offer(d, msg) {
			acked.look(passing)
		}
		r.offered.Store(nil)
	}
}

// forgetDecoded lets go of the last record and of memory for the next ones, which
// would pin its page for as long as nothing else is delivered. Whoever delivers calls it.
func (r *channelRun) forgetDecoded() {
	if r.sub.copies && !r.sub.typed.Load() {
		r.records.reuse()
	} else {
		r.records.forget()
	}
	r.scratch = ots.Record{}
}

// next waits for the next record whose turn it is, and returns when it came; now is
// the time before. It is false when nothing is delivered any more. Before it
// waits it settles all that is acked.
func (r *channelRun) next(acked *settler, now time.Time) (a ledger.Attempt, at time.Time, ok bool) {
	for ; ; now = time.Now() {
		select { // before Next: until the tracker drains it would give back what is refused
		case <-r.draining:
			r.forgetDecoded()
			return a, now, false
		default:
		}
		a, retryAt, ok := r.tracker.Next(now)
		if ok {
			return a, now, true
		}
		if acked.look(last) {
			continue
		}
		r.forgetDecoded()
		var timer *time.Timer
		var due <-chan time.Time
		if !retryAt.IsZero() {
			timer = time.NewTimer(time.Until(retryAt))
			due = timer.C
		}
		ended := false
		select {
		case <-r.tracker.Ready():
		case <-due:
		case <-r.draining:
			ended = true
		case <-r.ctx.Done():
			ended = true
		}
		if timer != nil {
			timer.Stop()
		}
		if ended {
			return a, now, false
		}
	}
}

// bind makes the delivery known to the tracker. If it was called back or fenced
// meanwhile, all that there is to do for it is done.
func (r *channelRun) bind(d *delivery) bool {
	if r.leaseOver(d.since()) {
		r.session.expire() // which fences the tracker
	}
	if r.tracker.Bind(d.attempt, d) {
		return true
	}
	d.cancel(ack.ErrCalledBack)
	r.tracker.Nack(d.attempt, time.Time{}) // its end: the record comes again in its turn
	return false
}

// messageOf makes a message and its delivery, for a record whose turn came
// just now. Without a message, all that there is to do for the record is done.
func (r *channelRun) messageOf(a ledger.Attempt, now time.Time) (*delivery, *message.Message) {
	p := a.Page().(*page)
	if r.plain != nil && !r.sub.typed.Load() {
		if msg, seq, ok := r.plain.message(p, a.Index()); ok {
			d := r.newDelivery(a, now, p.rows[a.Index()].typ, seq)
			msg.UUID = d.uuid
			msg.SetContext(d)
			return d, msg
		}
	}
	// Records that handlers ask for are decoded for good at once.
	keep := !r.sub.copies || r.sub.typed.Load()
	rec := &r.scratch
	if keep {
		rec = new(ots.Record)
	} else {
		r.records.reuse()
	}
	r.records.decode(p, a.Index(), rec)
	d := r.newDelivery(a, now, rec.Type, rec.Sequence)
	rec.Attempt, rec.UUID = a.Number(), d.uuid
	if keep {
		d.record.Store(rec)
	}
	msg, skip, err := r.unmarshal(rec, a)
	if skip {
		r.skipped(a)
		return nil, nil
	}
	if err != nil {
		r.refused(rec, a, err)
		return nil, nil
	}
	r.sub.unmarshalerSucceeded()
	if !r.sub.copies { // the user's Unmarshaler, which may take its time
		msg = deliverable(msg)
		d.at = time.Since(r.sub.started)
	}
	if msg.UUID == "" {
		msg.UUID = rec.UUID
	}
	msg.SetContext(d)
	return d, msg
}

func (r *channelRun) newDelivery(a ledger.Attempt, now time.Time, typ ots.RecordType, seq ots.Sequence) *delivery {
	uuid := r.uuids.of(typ, seq, a.Page().(*page).keys[a.Index()])
	return &delivery{run: r, attempt: a, uuid: uuid, changed: seq.Timestamp, at: now.Sub(r.sub.started)}
}

// offer sends a message to the output. It reports whether to look for acks: a
// message was taken, and it is time.
func (r *channelRun) offer(d *delivery, msg *message.Message) (look bool) {
	for {
		select {
		case r.sub.output <- msg:
			r.noteDelivered(d.attempt)
			look = r.outcomes.note(d, msg)
			r.sub.sweeper.stir()
			return look
		case <-r.recalled: // perhaps an earlier one was meant
			if d.over() { // called back or fenced before anybody took it
				r.tracker.Nack(d.attempt, time.Time{}) // the end of a called-back delivery: it comes again
				return false
			}
			if closed(r.draining) {
				d.cancel(context.Canceled)
				r.tracker.Nack(d.attempt, time.Time{}) // ends undelivered; a draining tracker delivers nothing again
				return false
			}
		}
	}
}

// recall tells the deliverer that the delivery which it offers has ended.
func (r *channelRun) recall(d *delivery) {
	if r.offered.Load() == d {
		r.stopOffering()
	}
}

// stopOffering makes the deliverer look whether what it offers is still to be delivered.
func (r *channelRun) stopOffering() {
	select {
	case r.recalled <- struct{}{}:
	default: // it has yet to see an earlier call
	}
}

// unmarshal calls the Unmarshaler, which is the user's: it may panic, which is its
// error, or end the goroutine. Then nothing is returned to the caller, and the
// record's failure is noted here; delivery continues in another goroutine. The record
// is skipped only if ErrSkip was returned: a panic with it is a failure as any other.
func (r *channelRun) unmarshal(rec *ots.Record, a ledger.Attempt) (msg *message.Message, skip bool, err error) {
	returned := false
	defer func() {
		if v := recover(); v != nil {
			err = ack.NewPanicError("unmarshaler", v)
		} else if !returned {
			r.refused(rec, a, errUnmarshalerExited)
		}
	}()
	msg, err = r.sub.cfg.Unmarshaler.Unmarshal(rec)
	returned = true
	if err == nil && msg == nil {
		err = errors.New("unmarshaler returned neither a message nor an error")
	}
	return msg, errors.Is(err, ots.ErrSkip), err
}

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

// refused ends an attempt of which the Unmarshaler made no message.
func (r *channelRun) refused(rec *ots.Record, a ledger.Attempt, cause error) {
	r.counts.inc(countRefused)
	r.unmarshalerFailed(rec, a, cause)
	r.nacked(a, cause)
}

// The failures of a handler and of an Unmarshaler that ended their goroutine.
var (
	errHandlerExited     = errors.New("handler exited without returning (runtime.Goexit)")
	errUnmarshalerExited = errors.New("unmarshaler exited without returning (runtime.Goexit)")
)

// handle calls the handler, and ends its message as a message.Router does. It calls settle in any case.
func (r *channelRun) handle(d *delivery, msg *message.Message, settle func(*delivery, error)) {
	err := errHandlerExited
	r.callBegins()
	defer r.callEnds()
	defer func() { settle(d, r.conclude(d, msg, err)) }()
	err = r.call(msg)
}

// conclude acks or nacks a message as its handler returned, and returns the
// failure. An outcome that the handler has set itself stays. A handler whose message
// was called back or lost meanwhile has not failed, whatever it returns; while the
// message's context is alive any error is a failure, one of a cancelled call, too.
func (r *channelRun) conclude(d *delivery, msg *message.Message, err error) (failure error) {
	if err != nil && !d.over() {
		r.handlerFailed(d, msg.UUID, err)
	}
	switch {
	case err == nil && !msg.Ack():
		failure = d.failure()
		r.messageNacked(d, msg.UUID, failure)
		return failure
	case err != nil && !msg.Nack():
		return nil
	}
	return err
}

// call calls the handler, which is the user's: it may panic.
func (r *channelRun) call(msg *message.Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = ack.NewPanicError("handler", v)
		}
	}()
	return r.sub.handler(msg)
}

// settle ends a delivery: nil acks it.
func (r *channelRun) settle(d *delivery, failure error) {
	if failure != nil {
		// Before the context ends, which a batcher takes for a sign that the later
		// messages of the key are taken back, and before the record comes again.
		d.CallBack(failure)
		d.cancel(ErrSettled)
		r.nacked(d.attempt, failure)
		return
	}
	r.concludeAck(d, r.tracker.Ack(d.attempt))
	r.sub.handlersSucceeded(1)
}

// concludeAck does what is left to do when the tracker was told of an ack.
func (r *channelRun) concludeAck(d *delivery, counted bool) {
	if counted {
		r.forgetFailures(d.attempt)
		r.noteAcked(d)
	}
	d.cancel(ErrSettled)
}

// skipped ends an attempt whose record makes no message.
func (r *channelRun) skipped(a ledger.Attempt) {
	if r.tracker.Ack(a) {
		r.forgetFailures(a)
		r.counts.inc(countSkipped)
	}
}

func (r *channelRun) forgetFailures(a ledger.Attempt) {
	if a.Failures() > 0 {
		r.forgetFailure(a.ID())
	}
}

var errNacked = errors.New("message nacked")

// nacked schedules the redelivery of a record.
func (r *channelRun) nacked(a ledger.Attempt, cause error) {
	pause := r.nextNackPause(a.ID())
	taken, counted := r.tracker.Nack(a, time.Now().Add(pause))
	r.counts.add(countCalledBack, len(taken))
	cancelCalledBack(taken, cause)
	if !counted && a.Failures() == 0 {
		r.forgetFailure(a.ID()) // called back, and no failure of its own
	}
	if counted {
		r.noteFailure(a, cause)
		r.logger.Debug("Message nacked; it comes again", recordFields(a.Page().(*page).record(a.Index()), a).Add(watermill.LogFields{"pause": pause.String()}))
	}
}

// nextNackPause returns the pause before the next attempt of a record. NackBackoff and
// what it returns are the user's, so they are not called under mu. That is safe: a
// record has one attempt at a time, the next one only when this one is nacked.
func (r *channelRun) nextNackPause(id uint64) time.Duration {
	r.mu.Lock()
	f := r.failures[id]
	r.mu.Unlock()
	if f == nil {
		f = &failure{pauses: r.sub.cfg.NackBackoff()}
		r.mu.Lock()
		r.failures[id] = f
		r.mu.Unlock()
	}
	pause := f.pauses.NextBackOff()
	r.mu.Lock()
	defer r.mu.Unlock()
	if pause == backoff.Stop {
		pause = cmp.Or(f.longest, stoppedPause)
	}
	f.longest = max(f.longest, pause)
	return pause
}

func (r *channelRun) forgetFailure(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.failures, id)
}

// stoppedPause is the pause where a BackOff says Stop: a subscriber never gives
// a record up, and never retries in a tight loop.
const stoppedPause = 30 * time.Second

func nextPause(b backoff.BackOff) time.Duration {
	if d := b.NextBackOff(); d != backoff.Stop {
		return d
	}
	return stoppedPause
}

// recordFields names a record in the log.
func recordFields(rec *ots.Record, a ledger.Attempt) watermill.LogFields {
	return watermill.LogFields{"key": rec.KeyText(), "type": rec.Type.String(), "sequence": rec.Sequence.String(), "attempt": a.Number()}
}

func keyText(o ledger.Oldest) string {
	if p, ok := o.Page.(*page); ok {
		return p.record(o.Index).KeyText()
	}
	return ""
}
