package router

import (
	"sync"
	"sync/atomic"
	"time"
)

// attempts remembers the messages that have failed, from their first failure to
// their success, and judges whether a message fails by itself or because nothing
// works (law L9).
//
// The witness against a message is the success of others, counted at each place
// where messages fail: Process and the middlewares are one place, each batcher
// is another. Between two successes at a place lies a stretch. A stretch in
// which several messages fail for the first time, with no success since, looks
// like an outage: failures in it do not count. A connection that broke or took
// too long looks like one, too, even of a single message with a witness: of these
// failures one counts in each stretch.
//
// A message may leave without logging, when its channel goes to another client
// while it waits for its next attempt. Entries that were not touched for long
// are therefore dropped now and then; if that hits a message which only waited
// long, it gets its attempts once more. So the map holds at most twice the
// messages that failed within keep, or minSweep.
type attempts struct {
	keep time.Duration
	some atomic.Bool // whether there are entries: messages that succeed look here first, which costs them no lock

	mu      sync.Mutex // guards what follows
	entries map[string]*failing
	places  map[string]*stretch // the latest one of each place
	sweepAt int                 // how many entries there may be before the next sweep
}

// failing is what is known of a message that has failed.
type failing struct {
	counted int       // failures that count, without the latest one
	first   time.Time // failure
	touched time.Time // last failure

	place   string   // of the latest failure
	before  uint64   // successes there before the message first failed there
	pending *stretch // of the latest failure, if it may count
}

// stretch is the time between two successes at a place.
type stretch struct {
	after  uint64 // successes before it
	fresh  string // a message that failed in it without a witness
	outage bool   // there were two of these
}

// evidence is what a failure tells.
type evidence struct {
	place         string // batcher; "" for Process and the middlewares
	own           bool   // it is the message's own: it failed alone or was named
	lost          bool   // a connection broke or took too long
	before, after uint64 // successes at the place before the attempt, and when it had failed
}

// judgement is what a message's failures amount to.
type judgement struct {
	attempts int           // that count, with the latest one
	age      time.Duration // since the first failure
	witness  bool          // others succeeded since, and the latest failure does not belong to an outage
}

// minSweep is how many entries are not worth a sweep.
const minSweep = 1024

// newAttempts returns attempts for messages that are redelivered within longest,
// unless something delays them.
func newAttempts(longest, giveUpAfter time.Duration) *attempts {
	return &attempts{
		keep:    max(10*longest+10*time.Minute, 2*giveUpAfter),
		entries: make(map[string]*failing), places: make(map[string]*stretch),
		sweepAt: minSweep,
	}
}

// failed adds one more failure of the message id.
func (a *attempts) failed(id string, ev evidence, now time.Time) judgement {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.entries[id]
	if f == nil {
		f = &failing{first: now, touched: now}
		a.entries[id] = f
		a.some.Store(true)
		a.sweep(now)
	}
	f.touched = now
	if f.place != ev.place || f.before == 0 && f.pending == nil && f.counted == 0 {
		f.place, f.before = ev.place, ev.before
	}
	here := a.stretch(ev)
	witness := ev.after > f.before
	if !witness {
		here.meets(id)
	}
	if !ev.own {
		return judgement{attempts: f.counted, age: now.Sub(f.first)}
	}
	// The one before counts unless its stretch was an outage. Without a witness
	// the failures of one stretch are one, and so are those of connections.
	if f.pending != nil && !f.pending.outage && (f.pending != here || witness && !ev.lost) {
		f.counted++
	}
	f.pending = here
	return judgement{attempts: f.counted + 1, age: now.Sub(f.first), witness: witness && !here.outage}
}

// stretch needs mu. It returns the stretch of a failure.
func (a *attempts) stretch(ev evidence) *stretch {
	s := a.places[ev.place]
	if s == nil || ev.after > s.after {
		s = &stretch{after: ev.after}
		a.places[ev.place] = s
	}
	return s
}

// meets notes that the message failed without a witness.
func (s *stretch) meets(id string) {
	switch s.fresh {
	case "":
		s.fresh = id
	case id:
	default:
		s.outage = true
	}
}

// sweep needs mu. It drops entries that were not touched for long, now and then.
func (a *attempts) sweep(now time.Time) {
	if len(a.entries) < a.sweepAt {
		return
	}
	for id, f := range a.entries {
		if now.Sub(f.touched) > a.keep {
			delete(a.entries, id)
		}
	}
	a.sweepAt = max(minSweep, 2*len(a.entries))
}

// forget ends the failures of id. Those of its own earlier attempts are seen:
// the attempts of a message follow each other.
func (a *attempts) forget(id string) {
	if !a.some.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.entries, id)
	a.some.Store(len(a.entries) > 0)
}
