package subscriber

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// toOutput is the deliverer that sends messages to the subscription's output. One
// goroutine sends them, one at a time.
type toOutput struct{ *taker }

func (o *toOutput) start(done func()) {
	go o.deliver(done) // ends when the channel is fenced, or drains
}

func (*toOutput) over() {}

// deliver sends messages until the channel is fenced or drains, and calls done then. When
// an Unmarshaler ends the goroutine (runtime.Goexit), another one takes over.
func (o *toOutput) deliver(done func()) {
	over := false
	defer func() {
		if over {
			done()
		} else {
			go o.deliver(done) // ends as this one does; done has not been called
		}
	}()
	acked := new(ackBatch)
	defer o.outcomes.check(acked, last)
	for {
		a, now, ok := o.next(acked, time.Now())
		if !ok {
			over = true
			return
		}
		d, msg := o.messageOf(a, now)
		if msg == nil {
			continue
		}
		o.scope.offer.current.Store(d) // before bind: once it is bound, a recall may be meant for it
		if o.bind(d) && o.offer(d, msg) {
			o.outcomes.check(acked, passing)
		}
		o.scope.offer.current.Store(nil)
	}
}

// offer sends a message to the output. It reports whether to check for acks: a
// message was taken, and it is time.
func (o *toOutput) offer(d *delivery, msg *message.Message) (check bool) {
	for {
		select {
		case o.dest.output <- msg:
			o.metrics.delivered(d.attempt)
			check = o.outcomes.note(d, msg)
			o.dest.scanner.added()
			return check
		case <-o.scope.offer.recalled: // perhaps an earlier one was meant
			if d.over() { // called back or fenced before it was taken
				o.tracker.Nack(d.attempt, time.Time{}) // the end of a called-back delivery: the record is redelivered
				return false
			}
			if closed(o.draining) {
				d.cancel(context.Canceled)
				o.tracker.Nack(d.attempt, time.Time{}) // ends undelivered; a draining tracker delivers nothing again
				return false
			}
		}
	}
}
