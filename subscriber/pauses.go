package subscriber

import (
	"context"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// stoppedPause is the pause where a BackOff says Stop: a subscriber never gives
// up, and never retries in a tight loop.
const stoppedPause = 30 * time.Second

// throttlePause is the least pause when the service says that it is asked too often.
const throttlePause = time.Second

// nextPause returns the next pause of a BackOff.
func nextPause(b backoff.BackOff) time.Duration {
	if d := b.NextBackOff(); d != backoff.Stop {
		return d
	}
	return stoppedPause
}

// pauseAfter returns the pause after a call that failed.
func pauseAfter(pauses backoff.BackOff, err error) time.Duration {
	pause := nextPause(pauses)
	if tunnelapi.Classify(err) == throttled {
		return max(pause, throttlePause)
	}
	return pause
}

// sleep waits for d; false when ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// closed reports whether a channel of Go is closed.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

const (
	// closeGrace is the time for the last calls to the service, counted from the end of
	// CloseTimeout. With handlersGrace and service.CredentialsGrace it stays below the five
	// seconds that the documentation promises.
	closeGrace = 3500 * time.Millisecond
	// lastCommitTimeout is the part of it for the last commits.
	lastCommitTimeout = 2500 * time.Millisecond

	// handlersGrace is how long handlers may take to return once the contexts of
	// their messages have ended, and callbacks once the subscription has.
	handlersGrace = time.Second
)

// endsWithin waits for goroutines that are to end, and reports whether they have. The
// user's code in them may not return; then they are left alone.
func endsWithin(goroutines *sync.WaitGroup, d time.Duration) bool {
	ended := make(chan struct{})
	go func() { defer close(ended); goroutines.Wait() }() // ends with them
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ended:
		return true
	case <-timer.C:
		return false
	}
}
