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

// Once ends something once. The zero value is ready for use.
type Once struct {
	once sync.Once
	err  error // written by once
}

// Do calls end if it is the first call. All calls wait until that end has returned, and
// return its error.
func (o *Once) Do(end func() error) error {
	o.once.Do(func() { o.err = end() })
	return o.err
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
