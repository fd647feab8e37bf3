// Package closing has the parts that the Close methods of subscribers, batchers,
// publishers, routers and emulators share.
//
// All of them promise the same: Close may be called any number of times, from several
// goroutines at once and before anything was started; each call waits for the end and
// returns the same error; and the wait is bounded, whatever user code or the service
// does. The package's test holds all of them to it.
package closing

import (
	"sync"
	"time"
)

// Once ends something once. The zero value is ready for use. It waits on a channel, as
// sync.Once does not: callers that wait for a lock would stop the clock of a synctest bubble.
type Once struct {
	mu    sync.Mutex    // guards ended
	ended chan struct{} // made by the first Do; closed when its end has returned
	err   error         // written before ended is closed
}

// Do calls end if it is the first call. All calls wait until that end has returned, and
// return its error.
func (o *Once) Do(end func() error) error {
	if ended := o.begin(); ended != nil {
		<-ended
		return o.err
	}
	defer close(o.ended)
	o.err = end()
	return o.err
}

// begin returns nil for the first call, and for others what they wait for.
func (o *Once) begin() (ended <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended != nil {
		return o.ended
	}
	o.ended = make(chan struct{})
	return nil
}

// Uses counts the calls that use something, which begin until it is closed. The zero value
// is ready for use.
//
// Invariant: once closed is set, n does not grow.
type Uses struct {
	mu     sync.Mutex // guards what follows
	n      int
	closed bool
	unused chan struct{} // made by Close; closed when n is 0
}

// Begin begins a use, unless Close was called, and reports whether it did. The caller ends
// the use with End.
func (u *Uses) Begin() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false
	}
	u.n++
	return true
}

// End ends a use.
func (u *Uses) End() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n--
	if u.closed && u.n == 0 {
		close(u.unused)
	}
}

// Close lets no more uses begin. It returns a channel that is closed when all have ended.
func (u *Uses) Close() (unused <-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.closed {
		u.closed, u.unused = true, make(chan struct{})
		if u.n == 0 {
			close(u.unused)
		}
	}
	return u.unused
}

// Closed reports whether Close was called.
func (u *Uses) Closed() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.closed
}

// Within waits until done is closed, but at most for limit, and reports whether it was closed.
func Within(limit time.Duration, done <-chan struct{}) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
