package subscriber

import (
	"errors"
	"time"

	"github.com/watermill-ots/watermill-ots/ack"
)

// This file has what a batching middleware may tell the subscriber about a delivery (ack.Delivery
// and its kin), and what an alarm asks.

// Key is the ordering key; empty when the subscription is Unordered.
func (d *delivery) Key() string { return d.attempt.Key() }

// HandOff allows the next record of the key to be delivered.
func (d *delivery) HandOff() { d.scope.tracker.HandOff(d.attempt) }

// Begin says that the message's batch runs.
func (d *delivery) Begin() { d.scope.tracker.Begin(d.attempt) }

// CallBack takes back the later messages of the key. Their contexts have ended when it returns
// (law L3), because the caller may be a batch that continues with the next message of the key.
// This also holds if another goroutine takes them back, or fences the channel, at the same time.
func (d *delivery) CallBack(cause error) {
	if cause != nil {
		d.mu.Lock()
		if t := d.troubled(); t.cause == nil {
			t.cause = cause
		}
		d.mu.Unlock()
	}
	d.scope.takingBack.Lock()
	taken := d.scope.tracker.CallBack(d.attempt)
	cancelCalledBack(taken, cause)
	d.scope.takingBack.Unlock()
	d.scope.metrics.counts.add(countCalledBack, len(taken))
}

var errNacked = errors.New("message nacked")

// failure is why the message was nacked: Nack itself does not tell.
func (d *delivery) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.trouble != nil && d.trouble.cause != nil {
		return d.trouble.cause
	}
	return errNacked
}

// Draining is closed when the channel drains.
func (d *delivery) Draining() <-chan struct{} { return d.scope.draining }

// Park says that the message waits for something other than its handler.
func (d *delivery) Park() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.troubled().parked = true
}

// Resume says that the handler works on the message again.
func (d *delivery) Resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.troubled()
	t.parked, t.resumed = false, time.Since(d.scope.started)
}

// Hurry is closed when the message should not be held back any longer.
func (d *delivery) Hurry() <-chan struct{} { return d.scope.tracker.Hurry() }

// calledBack is the cancellation cause of a message that was taken back.
type calledBack struct{ cause error }

func (e *calledBack) Error() string {
	if e.cause == nil {
		return ack.ErrCalledBack.Error()
	}
	return ack.ErrCalledBack.Error() + ": " + e.cause.Error()
}

func (e *calledBack) Unwrap() []error {
	if e.cause == nil {
		return []error{ack.ErrCalledBack}
	}
	return []error{ack.ErrCalledBack, e.cause}
}

// cancelCalledBack ends the contexts of deliveries that the tracker took back.
func cancelCalledBack(taken []any, cause error) {
	if len(taken) > 0 {
		endAll(taken, &calledBack{cause: cause})
	}
}

// alarmed returns how long the message is with its handler, zero when it waits for
// something else. It reports whether it is time for an alarm at this age, and notes that there is one.
func (d *delivery) alarmed(now time.Time, limit time.Duration) (age time.Duration, due bool) {
	age = now.Sub(d.since())
	if age < limit { // most of them
		return age, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.troubled()
	if t.parked {
		return 0, false
	}
	age = min(age, now.Sub(d.scope.started)-t.resumed)
	if age < limit*time.Duration(t.alarms+1) {
		return age, false
	}
	t.alarms = int(age / limit)
	return age, true
}
