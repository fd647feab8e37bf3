package batching

import (
	"context"
	"errors"
	"fmt"

	"github.com/watermill-ots/watermill-ots/ack"
)

var (
	// ErrInvalidConfig is wrapped by every error that New and NewPublisher
	// return. The error lists all faults at once.
	ErrInvalidConfig = errors.New("batching: invalid config")

	// ErrClosed is returned for a message that arrives after Close was called.
	ErrClosed = errors.New("batching: closed")

	// ErrCloseTimeout is returned by Close when batch handlers still run after
	// CloseTimeout, and by the middleware for messages whose batch could not start
	// in that time. It is also the cause (context.Cause) with which the contexts of
	// batch handlers that still run are cancelled.
	ErrCloseTimeout = errors.New("batching: close timeout exceeded")

	// ErrAllEnded is the cause (context.Cause) with which a batch handler's
	// context is cancelled when every message of its batch was fenced or called
	// back, so that the outcome is no longer needed.
	ErrAllEnded = errors.New("batching: all messages of the batch have ended")

	// ErrOutage is the outcome of a message that was not handled because its
	// batcher is down (Batcher.Probe) when its subscriber drains.
	ErrOutage = errors.New("batching: not handled: all recent calls of the batch handler failed")

	// errEndedBefore keeps a deferred item from joining. It is not its outcome.
	errEndedBefore = errors.New("batching: message ended before it joined")

	// errFailedExited is the outcome of a message whose Deferral.Failed ended its goroutine.
	errFailedExited = errors.New("batching: Deferral.Failed ended its goroutine with runtime.Goexit")

	// errHandlerExited is the outcome of a batch whose handler called
	// runtime.Goexit, as testing.T.FailNow does.
	errHandlerExited = errors.New("batch handler ended its goroutine with runtime.Goexit")

	// errProcessPanicked is the reason with which later messages are called back
	// when the processing step panics. The panic itself propagates.
	errProcessPanicked = errors.New("processing step panicked")

	// errFailedWithoutError replaces the nil error in a call of Batch.Fail: the
	// caller reported that the message failed, so it must not be acked.
	errFailedWithoutError = errors.New("message failed, no error was given")
)

// IsFailure reports whether err, which the middleware returned, is a failure of the
// message: true for errors of a processing step or a batch handler, false for nil
// and for errors that only say that the message was not completely handled (its
// context ended, Close was called), so that it is redelivered. Use it with
// middleware.PoisonQueueWithFilter, which should not treat a shutdown as a poisoned
// message, and with middleware.Retry.
//
// If a call that the handler made was cancelled, that is a failure. An error that
// wraps context.Canceled counts as a cancellation instead, unless it went through the
// middleware while the message's own context was alive: it does not show which
// context was cancelled.
func IsFailure(err error) bool {
	var f *Failure
	switch {
	case err == nil, errors.Is(err, ack.ErrCalledBack): // before Failure: a call-back wraps that of the message that failed
		return false
	case errors.As(err, &f):
		return !f.Interrupted
	case errors.As(err, new(*stepError)):
		return true
	}
	for _, end := range []error{context.Canceled, ErrClosed, ErrCloseTimeout, ErrAllEnded, ErrOutage} {
		if errors.Is(err, end) {
			return false
		}
	}
	return true
}

// stepError marks the error of a processing step whose message was alive.
type stepError struct{ err error }

func (e *stepError) Error() string { return e.err.Error() }

func (e *stepError) Unwrap() error { return e.err }

// UnknownBatcherError is returned by the middleware for a message whose batcher is
// not configured. That includes messages that do not name a batcher if there is none
// called DefaultBatcher. Only this message fails.
type UnknownBatcherError struct {
	Batcher string // the name that the message asked for
}

// Error implements error.
func (e *UnknownBatcherError) Error() string {
	return fmt.Sprintf("batching: there is no batcher called %q", e.Batcher)
}
