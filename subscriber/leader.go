package subscriber

import (
	"sync/atomic"
	"time"
)

// leader is who calls the handlers of a channel, when it is read by Handle.
//
// The goroutine that leads takes the next record and calls its handler itself,
// as long as handlers are quick: nothing is as cheap as a call. A handler that
// is not must hold nobody up, though. So the relief looks every now and then, and
// when the leader is still in the same call, another goroutine takes the lead;
// the old one leaves when its handler returns. From then on, and in the
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
	rests atomic.Bool  // the relief sleeps until somebody wakes it
	wake  chan struct{}
	over  chan struct{}
}

const (
	// quickHandler is the longest that a handler of the quick kind takes.
	quickHandler = 20 * time.Microsecond
	// slowHandler is how long a single one may take without a doubt about its kind: it may
	// have been interrupted by the garbage collector.
	slowHandler = 10 * quickHandler
	// quickInARow is how many quick ones make the leader call them itself.
	quickInARow = 64
	// reliefInterval is the pause between two looks at the leader. A handler
	// that turns slow holds its channel up for twice as long at most.
	reliefInterval = time.Millisecond
)

// startLeader starts the channel's leader and its relief. done is called once
// for both of them.
func (r *channelRun) startLeader(done func()) {
	r.leader.wake = make(chan struct{}, 1)
	r.leader.over = make(chan struct{})
	go r.lead() // ends with ctx, or when the tracker drains; or is relieved
	go func() { // ends after the last leader
		defer done()
		r.relieve()
	}()
}

// lead hands records to their handlers, until nothing is delivered any more or
// another goroutine leads.
func (r *channelRun) lead() {
	l := &r.leader
	for {
		a, ok := r.next()
		if !ok {
			close(l.over)
			return
		}
		d, msg := r.messageOf(a)
		if msg == nil || !r.bind(d) {
			continue
		}
		r.noteDelivered(a)
		r.sub.handlers.Add(1)
		if l.quick.Load() < quickInARow {
			go func() { // ends with the handler; the subscription waits for it
				began := time.Now()
				r.handle(d, msg)
				l.took(time.Since(began), quickHandler)
			}()
			continue
		}
		turn := l.turn.Add(1)
		if l.rests.Load() {
			select {
			case l.wake <- struct{}{}:
			default:
			}
		}
		r.handle(d, msg)
		l.took(time.Since(d.since), slowHandler)
		if !l.turn.CompareAndSwap(turn, turn+1) {
			return
		}
	}
}

// took counts a handler that took so long.
func (l *leader) took(d, limit time.Duration) {
	if d > limit {
		l.quick.Store(0)
	} else if n := l.quick.Load(); n < quickInARow {
		l.quick.Store(n + 1) // a lost update is made up for by the next
	}
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
				l.quick.Store(0)
				go r.lead() // as startLeader's
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
