package subscriber

import (
	"errors"
	"sync"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/ack"
)

// callbacks calls one of the user's functions (OnPhase, OnAlarm), one call at a time and in
// order, in a goroutine of its own. So a function that is slow, panics, ends its
// goroutine or calls Close holds up nothing but its own next call. Safe for
// concurrent use; the zero value is ready.
//
// Invariants:
//   - While calls wait there is a goroutine that makes them; without any there is none.
//   - waiting has at most maxCallbacks calls.
type callbacks struct {
	mu      sync.Mutex
	waiting []callback
	running bool

	calling sync.WaitGroup // the goroutine; the subscription waits for it, up to handlersGrace
}

type callback struct {
	call func()
	made chan struct{} // closed when it has returned
}

// maxCallbacks bounds the calls that wait for one that does not return.
const maxCallbacks = 256

// enqueue adds a call, which is made in its turn. made is closed when it has returned. It is false if
// there are too many waiting calls.
func (c *callbacks) enqueue(logger watermill.LoggerAdapter, name string, call func()) (made <-chan struct{}, ok bool) {
	done := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) >= maxCallbacks {
		return nil, false
	}
	c.waiting = append(c.waiting, callback{call: call, made: done})
	if !c.running {
		c.running = true
		c.start(logger, name)
	}
	return done, true
}

// start starts the goroutine that makes the calls. When one of them ends the
// goroutine (runtime.Goexit), another goroutine takes over.
func (c *callbacks) start(logger watermill.LoggerAdapter, name string) {
	c.calling.Go(func() { // ends when no call waits; the user's code is in it
		over := false
		defer func() {
			if !over {
				c.start(logger, name)
			}
		}()
		for c.next(logger, name) {
		}
		over = true
	})
}

// next makes one call. It is false when none waits.
func (c *callbacks) next(logger watermill.LoggerAdapter, name string) (more bool) {
	c.mu.Lock()
	if len(c.waiting) == 0 {
		c.running = false
		c.mu.Unlock()
		return false
	}
	next := c.waiting[0]
	c.waiting = c.waiting[1:]
	c.mu.Unlock()
	returned := false
	defer func() {
		v := recover()
		switch {
		case v != nil:
			err := ack.NewPanicError(name, v)
			logger.Error("A callback of the configuration panicked", err, withStack(watermill.LogFields{"callback": name}, err))
			more = true
		case !returned:
			logger.Error("A callback of the configuration panicked", errCallbackExited, watermill.LogFields{"callback": name})
		}
		close(next.made)
	}()
	next.call()
	returned = true
	return true // the next call of next finds out
}

// giveUp drops the calls that wait: the subscription is over, and the call before them
// does not return.
func (c *callbacks) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = nil
}

var errCallbackExited = errors.New("callback exited without returning (runtime.Goexit)")
