package subscriber

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
)

// outcomes are the messages of one channel whose outcome the tracker is to be
// told of, and that nobody waits for.
//
// Watermill tells an outcome by closing one of two channels of the message and
// nothing else, so somebody has to look, or to wait. Most messages are acked
// within microseconds, and a goroutine for each that waits costs more than a look at many of
// them now and then, which tells the tracker of all acks at once. So whoever delivers
// looks as it goes along, and before it waits for anything. A message gets a
// goroutine of its own, its watcher, when looking is not enough: when nothing more can be delivered
// before some outcome is known, when the message is still there at the
// second look of the subscription's sweeper, when it was nacked, or when there
// are too many to look at. So a message that takes long costs no looks.
//
// Invariants:
//   - A message that was taken from the output and is not settled is in sent, or
//     has a watcher. It leaves sent once, under mu, and who takes it out settles it.
//   - The first seen of sent were there at the sweeper's last look.
//   - While sent or acked holds something the sweeper does not rest.
//   - Once closed, both are empty, and no watcher starts.
type outcomes struct {
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
	// lookEvery is how many deliveries there are between two looks.
	lookEvery = 16
	// lookAtMost bounds the messages that are there for the next look.
	lookAtMost = 64
	// sweepInterval is the pause between two looks of the sweeper. An ack is
	// seen that much later at most, whatever the deliverer does.
	sweepInterval = time.Millisecond
)

// look says which messages get a watcher.
type look uint8

const (
	passing look = iota // those beyond lookAtMost
	sweep               // and those that were there at the last sweep
	last                // all
)

// note adds a message that was just taken, and reports whether it is time to look.
func (o *outcomes) note(d *delivery, msg *message.Message) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	o.sent = append(o.sent, sent{d, msg})
	return len(o.sent)%lookEvery == 0
}

// noteAcked adds a message whose handler acked it, and reports whether it is time to look.
func (o *outcomes) noteAcked(d *delivery) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return false
	}
	o.acked = append(o.acked, d)
	return len(o.acked) >= lookEvery
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

// settler settles acked messages, many at once. Not for concurrent use.
type settler struct {
	run      *channelRun // whose messages they are
	acked    []*delivery
	attempts []ledger.Attempt
	counted  []bool
}

// look looks at all messages and settles those that are acked. It reports whether there were any.
func (s *settler) look(l look) bool {
	s.collect(l)
	if len(s.acked) == 0 {
		return false
	}
	r := s.run
	for _, d := range s.acked {
		s.attempts = append(s.attempts, d.attempt)
	}
	s.counted = r.tracker.AckAll(s.attempts, s.counted)
	for i, d := range s.acked {
		r.concludeAck(d, s.counted[i])
	}
	r.sub.handlersSucceeded(len(s.acked))
	clear(s.acked) // lest they stay in memory
	clear(s.attempts)
	s.acked, s.attempts, s.counted = s.acked[:0], s.attempts[:0], s.counted[:0]
	return true
}

// collect takes the messages that are acked, and gives others a watcher.
func (s *settler) collect(l look) {
	r, o := s.run, &s.run.outcomes
	o.mu.Lock()
	defer o.mu.Unlock()
	s.acked = append(s.acked, o.acked...)
	clear(o.acked)
	o.acked = o.acked[:0]
	kept, seen := o.sent[:0], 0
	for i, m := range o.sent {
		switch {
		case closed(m.msg.Acked()):
			s.acked = append(s.acked, m.d)
		case l == last, l == sweep && i < o.seen, i < len(o.sent)-lookAtMost, closed(m.msg.Nacked()):
			o.watchers.Add(1)
			go r.watch(m.d, m.msg) // ends when the message is settled or ctx ends; main waits for it
		default:
			kept = append(kept, m)
			if l == sweep || i < o.seen {
				seen++
			}
		}
	}
	clear(o.sent[len(kept):])
	o.sent, o.seen = kept, seen
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// watch waits for the outcome of a message.
func (r *channelRun) watch(d *delivery, msg *message.Message) {
	defer r.outcomes.watchers.Done()
	select {
	case <-msg.Acked():
		r.settle(d, nil)
	case <-msg.Nacked():
		failure := d.failure()
		r.messageNacked(d, msg.UUID, failure)
		r.settle(d, failure)
	case <-r.ctx.Done():
	}
}

// sweeper looks at the messages of all channels of a subscription, for
// deliverers and leaders that wait for something else. It rests while there are none.
type sweeper struct {
	rests atomic.Bool
	wake  chan struct{} // capacity 1; has a value when rests was made false for it
}

// stir is called after a message was added.
func (s *sweeper) stir() {
	if s.rests.Load() && s.rests.CompareAndSwap(true, false) {
		s.wake <- struct{}{}
	}
}

// sweep is the sweeper's goroutine. It ends with ctx.
func (s *subscription) sweep(ctx context.Context) {
	timer := time.NewTimer(sweepInterval)
	defer timer.Stop()
	var acked settler
	for {
		select {
		case <-timer.C:
			if !s.sweepOnce(&acked) {
				s.sweeper.rests.Store(true)
				// Once more: what was added meanwhile did not wake anybody.
				if !s.sweepOnce(&acked) || !s.sweeper.rests.CompareAndSwap(true, false) {
					continue
				}
			}
		case <-s.sweeper.wake:
		case <-ctx.Done():
			return
		}
		timer.Reset(sweepInterval)
	}
}

// sweepOnce looks at all channels, and reports whether any has messages left.
func (s *subscription) sweepOnce(acked *settler) (more bool) {
	for _, r := range s.openRuns() {
		acked.run = r
		acked.look(sweep)
		more = more || !r.outcomes.empty()
	}
	acked.run = nil
	return more
}
