package subscriber

import (
	"sync"
	"time"

	"github.com/watermill-ots/watermill-ots/ack"
)

// This file has what a delivery offers to a handler that returns before the outcome of
// its message is known (ack.Deferrer). A deferred message counts as a call of the handler
// until it is settled.

// Defer has the outcome come from Settle. Messages of the output are settled by Ack and Nack alone.
func (d *delivery) Defer(l ack.Listener) bool {
	if d.scope.handler == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended != nil || d.listener != nil {
		return false
	}
	d.listener = l
	d.scope.handler.userReturned(d)
	return true
}

// deferred reports whether the message is settled by Settle. Only the goroutine that called
// the handler may ask.
func (d *delivery) deferred() bool { return d.listener != nil }

// Settle ends a deferred message as if its handler had returned err.
func (d *delivery) Settle(err error) {
	h := d.scope.handler
	defer h.calls.end(1)
	h.settle(d, h.conclude(d, d.msg, err))
}

// BeginAll is Begin for several deliveries.
func (d *delivery) BeginAll(all []ack.Deferrer) {
	byChannel(all, func(s *scope, m *ackBatch) {
		s.isOver(time.Now()) // no batch begins after the lease
		s.tracker.BeginAll(m.attempts)
	}, ack.Deferrer.Begin)
}

// AckAll is Settle(nil) for several deliveries.
func (d *delivery) AckAll(all []ack.Deferrer) {
	byChannel(all, func(s *scope, m *ackBatch) { s.handler.ackAll(m) }, func(other ack.Deferrer) { other.Settle(nil) })
}

// ackAll acks the deliveries of m. A message that its handler has nacked itself fails, which
// takes back those of its key behind it.
func (h *toHandler) ackAll(m *ackBatch) {
	defer h.calls.end(len(m.acked))
	first := 0
	ackBefore := func(i int) {
		if first < i {
			m.counted = h.settleAll(m.acked[first:i], m.attempts[first:i], m.counted[:0])
		}
		first = i + 1
	}
	for i, d := range m.acked {
		if failure := h.conclude(d, d.msg, nil); failure != nil {
			ackBefore(i)
			h.settle(d, failure)
		}
	}
	ackBefore(len(m.acked))
}

// ackBatches has the memory of goroutines that settle or begin deliveries of other goroutines.
var ackBatches = sync.Pool{New: func() any { return new(ackBatch) }}

// byChannel calls do for the deliveries of each channel that follow each other in all, in
// their order, and other for those that are not this package's.
func byChannel(all []ack.Deferrer, do func(*scope, *ackBatch), other func(ack.Deferrer)) {
	m := ackBatches.Get().(*ackBatch)
	defer func() { // also when code of the user's ends the goroutine in do
		m.forget()
		ackBatches.Put(m)
	}()
	for len(all) > 0 {
		d, ours := all[0].(*delivery)
		if !ours {
			other(all[0])
			all = all[1:]
			continue
		}
		s := d.scope
		for ; ours && d.scope == s; d, ours = all[0].(*delivery) {
			m.acked, m.attempts = append(m.acked, d), append(m.attempts, d.attempt)
			if all = all[1:]; len(all) == 0 {
				break
			}
		}
		do(s, m)
		m.forget()
	}
}
