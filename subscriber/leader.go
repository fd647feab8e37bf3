package subscriber

import (
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// leader is who calls the handlers of a channel, when it is read by Handle.
//
// The goroutine that leads takes the next record and calls its handler itself,
// as long as handlers are quick: nothing is as cheap as a call. A handler that
// is not must hold nobody up, though. So the relief looks every now and then, and
// when the leader is still in the same call, another goroutine takes the lead;
// the old one leaves when its handler returns. When that happens often, and in the
// beginning, handlers are slow until many in a row have been quick, and each has a
// goroutine of its own.
//
// Invariants:
//   - turn is odd while the leader is in a call. Whoever makes it even, by
//     compare-and-swap, leads: the leader itself after the call, or the
//     goroutine that the relief starts.
//   - over is closed by the last leader, once.
type leader struct {
	turn  atomic.Uint64
	quick atomic.Int64 // handlers in a row that were quick
	asked atomic.Int64 // so many in a row make the leader call handlers itself
	calls atomic.Int64 // that it has made itself since
	slow  int          // of who leads: slow calls, each worth slowWeight quick ones
	rests atomic.Bool  // the relief sleeps until somebody wakes it
	wake  chan struct{}
	over  chan struct{}
}

const (
	// quickHandler is the longest that a handler of the quick kind takes.
	quickHandler = 20 * time.Microsecond
	// slowHandler is how long a call by the leader may take without a doubt about
	// its kind, and one in slowWeight calls may take longer: it may have been
	// interrupted by the garbage collector.
	slowHandler = 10 * quickHandler
	slowWeight  = 32
	// reliefInterval is the pause between two looks at the leader. A handler
	// that is slow holds its channel up for twice as long at most, and when handlers turn
	// slow, two of them do so.
	reliefInterval = time.Millisecond
)

const (
	// quickInARow is how many quick ones make the leader call them itself. It is
	// doubled, up to mostInARow, each time that this was of use for fewer than
	// steadyCalls calls.
	quickInARow = 64
	mostInARow  = 1 << 12
	steadyCalls = 1 << 10
)

// startLeader starts the channel's leader and its relief. done is called once
// for both of them.
func (r *channelRun) startLeader(done func()) {
	r.leader.wake = make(chan struct{}, 1)
	r.leader.over = make(chan struct{})
	r.leader.asked.Store(quickInARow)
	r.sub.handlers.Go(r.lead) // ends with ctx, or when the tracker drains; or is relieved
	go func() {               // ends after the last leader
		defer done()
		r.relieve()
	}()
}

// lead hands records to their handlers, until nothing is delivered any more or
// another goroutine leads. When an Unmarshaler ends the goroutine (runtime.Goexit),
// another one leads; when a handler does that in its call, the relief sees to it.
func (r *channelRun) lead() {
	l := &r.leader
	leads := true
	defer func() {
		if leads {
			r.sub.handlers.Go(r.lead) // as startLeader's
		}
	}()
	acked := &settler{run: r}
	defer acked.look(last)
	soon := func(d *delivery, failure error) {
		if failure != nil {
			r.settle(d, failure)
		} else if r.outcomes.noteAcked(d) {
			acked.look(passing)
		}
	}
	now := time.Now() // read once a record
	for {
		r.awaitStrays()
		a, at, ok := r.next(acked, now)
		if !ok {
			leads = false
			close(l.over)
			return
		}
		d, msg := r.messageOf(a, at)
		if msg == nil || !r.bind(d) {
			now = time.Now()
			continue
		}
		r.noteDelivered(a)
		if l.quick.Load() < l.asked.Load() {
			r.sub.handlers.Go(func() { r.handleAside(d, msg) }) // ends with the handler
			now = time.Now()
			continue
		}
		call := l.turn.Add(1)
		leads = false // for sure
		if l.rests.Load() {
			select {
			case l.wake <- struct{}{}:
			default:
			}
		}
		r.handle(d, msg, soon)
		r.sub.sweeper.stir()
		if !l.turn.CompareAndSwap(call, call+1) {
			return
		}
		leads = true
		now = time.Now()
		l.called(now.Sub(r.sub.started) - d.at)
	}
}

// handleAside calls a handler in a goroutine of its own, which may have begun late: after
// the process was suspended, say.
func (r *channelRun) handleAside(d *delivery, msg *message.Message) {
	began := time.Now()
	if r.leaseOver(began) {
		r.session.expire()
		return
	}
	r.handle(d, msg, r.settle)
	r.leader.took(time.Since(began))
}

// took counts a handler that took so long in a goroutine of its own.
func (l *leader) took(d time.Duration) {
	if d > quickHandler {
		l.quick.Store(0)
	} else {
		l.quick.Store(l.quick.Load() + 1) // a lost update is made up for by the next
	}
}

// called counts a handler that the leader called itself, and that took so long.
func (l *leader) called(d time.Duration) {
	l.calls.Add(1)
	if d <= slowHandler {
		l.slow = max(0, l.slow-1)
	} else if l.slow += slowWeight; l.slow > slowWeight {
		l.slow = 0
		l.doubt()
	}
}

// doubt is said when a handler that the leader called took long. The first time
// in a long while may be no fault of the handler's: the processor was busy elsewhere.
// Otherwise handlers get goroutines of their own.
func (l *leader) doubt() {
	if l.calls.Swap(0) >= steadyCalls {
		l.asked.Store(quickInARow)
		return
	}
	l.asked.Store(min(2*l.asked.Load(), mostInARow))
	l.quick.Store(0)
}

// relieve starts another leader when the one there is stays in one call.
func (r *channelRun) relieve() {
	l := &r.leader
	look := time.NewTimer(reliefInterval)
	defer look.Stop()
	var seen uint64
	for {
		select {
		case <-look.C:
		case <-l.wake:
			l.rests.Store(false)
			look.Reset(reliefInterval)
			continue
		case <-l.over:
			return
		}
		turn := l.turn.Load()
		switch {
		case turn != seen:
			seen = turn
		case turn%2 == 1:
			if l.turn.CompareAndSwap(turn, turn+1) {
				l.doubt()
				r.sub.handlers.Go(r.lead) // as startLeader's
			}
		default: // no calls since the last look: the next one wakes the relief
			l.rests.Store(true)
			if l.turn.Load() == turn {
				continue
			}
			l.rests.Store(false)
		}
		look.Reset(reliefInterval)
	}
}
