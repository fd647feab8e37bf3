package router

import (
	"sync"
	"sync/atomic"
	"time"
)

// attempts keeps the messages that have failed, from their first failure to their
// success, and decides whether a message itself fails or nothing works (law L9).
//
// The witness against a message is the success of others, counted at each place
// where messages fail: Process and the middlewares are one place, each batcher
// is another. A stretch is the time between two successes at a place. If several
// messages fail for the first time in one stretch, it looks like an outage: failures
// in it do not count. A lost connection looks like an outage too, even if a single
// message with a witness has it: of such failures one counts in each stretch.
//
// A message may disappear while it waits for its next attempt, when its channel goes
// to another client. Old entries are therefore removed from time to time. If that
// removes a message that only waited long, its attempts start again. So the map holds
// at most twice the messages that failed within keep, or minCleanup.
type attempts struct {
	keep time.Duration
	some atomic.Bool // whether there are entries; messages that succeed read it without the lock

	mu        sync.Mutex // guards what follows
	entries   map[string]*failing
	places    map[string]*stretch // the latest one of each place
	cleanUpAt int                 // number of entries that triggers the next cleanup
}

// failing is the record of a message that has failed.
type failing struct {
	counted int       // failures that count, without the latest
	first   time.Time // failure
	touched time.Time // last failure

	place   string   // of the latest failure
	before  uint64   // successes there before the message first failed there
	pending *stretch // of the latest failure, if it may count
}

// stretch is the time between two successes at a place.
type stretch struct {
	after  uint64 // successes before it
	fresh  string // the first message that failed in it without a witness
	outage bool   // there was a second one
}

// evidence is what a failure shows.
type evidence struct {
	place         string // batcher; "" for Process and the middlewares
	own           bool   // the message itself failed: alone, or named by Batch.Fail
	lost          bool   // a connection broke or took too long
	before, after uint64 // successes at the place before the attempt and after it
}

// judgement is the result of a message's failures.
type judgement struct {
	attempts int           // failures that count, including the latest
	age      time.Duration // since the first failure
	witness  bool          // others succeeded since, and the latest failure does not belong to an outage
}

// minCleanup is the number of entries below which none are removed.
const minCleanup = 1024

// newAttempts returns attempts for messages that are redelivered within longest,
// unless something delays them.
func newAttempts(longest, giveUpAfter time.Duration) *attempts {
	return &attempts{
		keep:    max(10*longest+10*time.Minute, 2*giveUpAfter),
		entries: make(map[string]*failing), places: make(map[string]*stretch),
		cleanUpAt: minCleanup,
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
		a.cleanUp(now)
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
	// The failure before counts unless its stretch was an outage. Without a witness,
	// the failures of one stretch count as one, and so do lost connections.
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

// meets records that the message failed without a witness.
func (s *stretch) meets(id string) {
	switch s.fresh {
	case "":
		s.fresh = id
	case id:
	default:
		s.outage = true
	}
}

// cleanUp needs mu. It removes old entries if there are many.
func (a *attempts) cleanUp(now time.Time) {
	if len(a.entries) < a.cleanUpAt {
		return
	}
	for id, f := range a.entries {
		if now.Sub(f.touched) > a.keep {
			delete(a.entries, id)
		}
	}
	a.cleanUpAt = max(minCleanup, 2*len(a.entries))
}

// forget removes the failures of id. It needs no lock to see those of earlier attempts:
// the attempts of a message do not overlap.
func (a *attempts) forget(id string) {
	if !a.some.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.entries, id)
	a.some.Store(len(a.entries) > 0)
}
