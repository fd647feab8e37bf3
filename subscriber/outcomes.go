package subscriber

import (
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
)

// outcomes are the messages of one channel whose outcome has not been reported to the
// tracker, and that have no goroutine waiting for it.
//
// Watermill reports an outcome by closing one of two Go channels of the message and
// nothing else, so a goroutine has to check or to wait. Most messages are acked within
// microseconds, and a waiting goroutine for each costs more than checking many of
// them now and then, which reports all acks to the tracker at once. So the goroutine that
// delivers checks as it goes along, and before it waits for anything. A message gets a
// goroutine of its own, its watcher, when checks are not enough: when nothing more can be
// delivered before some outcome is known, when the message is still there at the second
// check of the subscription's scanner, when it was nacked, or when there are too many to
// check. So a message that takes long costs no checks.
//
// Invariants:
//   - A message that was taken from the output and is not settled is in sent, or
//     has a watcher. It leaves sent once, under mu, and what takes it out settles it.
//   - The first seen of sent were there at the scanner's last check.
//   - While sent or acked holds something the scanner does not rest.
//   - Once closed, both are empty, and no watcher starts.
type outcomes struct {
	settler *settler

	mu     sync.Mutex
	sent   []sent // taken from the output, in order
	seen   int
	acked  []*delivery // by the leader, with Handle
	closed bool

	watchers sync.WaitGroup
}

// sent is a message that was taken from the output.
type sent struct {
	d   *delivery
	msg *message.Message
}

const (
	// checkEvery is how many deliveries there are between two checks.
	checkEvery = 16
	// checkAtMost bounds the messages that wait for the next check.
	checkAtMost = 64
)

// check says which messages get a watcher.
type check uint8

const (
	passing check = iota // those beyond checkAtMost
	scanned              // and those that were there at the scanner's last check
	last                 // all
)

// note adds a message that was just taken, and reports whether it is time to check.
func (o *outcomes) note(d *delivery, msg *message.Message) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	o.sent = append(o.sent, sent{d, msg})
	return len(o.sent)%checkEvery == 0
}

// noteAcked adds a message whose handler acked it, and reports whether it is time to check.
func (o *outcomes) noteAcked(d *delivery) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	o.acked = append(o.acked, d)
	return len(o.acked) >= checkEvery
}

func (o *outcomes) empty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.sent) == 0 && len(o.acked) == 0
}

// close forgets all messages: the channel is over.
func (o *outcomes) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent, o.seen, o.acked, o.closed = nil, 0, nil, true
}

// ackBatch is the memory of a goroutine that checks outcomes: acked messages that are
// settled together. Not for concurrent use.
type ackBatch struct {
	acked    []*delivery
	attempts []ledger.Attempt
	counted  []bool
}

// check checks all messages and settles those that are acked. It reports whether there were any.
func (o *outcomes) check(b *ackBatch, c check) bool {
	o.collect(b, c)
	if len(b.acked) == 0 {
		return false
	}
	for _, d := range b.acked {
		b.attempts = append(b.attempts, d.attempt)
	}
	b.counted = o.settler.settleAll(b.acked, b.attempts, b.counted)
	b.forget()
	return true
}

// forget keeps the memory alone, not what is in it.
func (b *ackBatch) forget() {
	clear(b.acked)
	clear(b.attempts)
	b.acked, b.attempts, b.counted = b.acked[:0], b.attempts[:0], b.counted[:0]
}

// collect takes the messages that are acked, and gives others a watcher.
func (o *outcomes) collect(b *ackBatch, c check) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b.acked = append(b.acked, o.acked...)
	clear(o.acked)
	o.acked = o.acked[:0]
	kept, seen := o.sent[:0], 0
	for i, m := range o.sent {
		switch {
		case closed(m.msg.Acked()):
			b.acked = append(b.acked, m.d)
		case c == last, c == scanned && i < o.seen, i < len(o.sent)-checkAtMost, closed(m.msg.Nacked()):
			o.watchers.Add(1)
			go o.watch(m.d, m.msg) // ends when the message is settled or the channel is over; channelRun.main waits for it
		default:
			kept = append(kept, m)
			if c == scanned || i < o.seen {
				seen++
			}
		}
	}
	clear(o.sent[len(kept):])
	o.sent, o.seen = kept, seen
}

// watch waits for the outcome of a message.
func (o *outcomes) watch(d *delivery, msg *message.Message) {
	defer o.watchers.Done()
	select {
	case <-msg.Acked():
		o.settler.settle(d, nil)
	case <-msg.Nacked():
		failure := d.failure()
		o.settler.messageNacked(d, msg.UUID, failure)
		o.settler.settle(d, failure)
	case <-o.settler.ctx.Done():
	}
}
