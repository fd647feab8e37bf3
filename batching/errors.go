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

	// ErrClosed is returned for a message that comes after Close was called.
	ErrClosed = errors.New("batching: closed")

	// ErrCloseTimeout is returned by Close when batch handlers still run after
	// CloseTimeout, by the middleware for messages whose batch could not begin
	// in that time, and is the cause (context.Cause) with which the contexts of
	// running batch handlers end then.
	ErrCloseTimeout = errors.New("batching: close timeout exceeded")

	// ErrAllEnded is the cause (context.Cause) with which a batch handler's
	// context ends when every message of its batch was fenced or called back,
	// so that nobody waits for the outcome any more.
	ErrAllEnded = errors.New("batching: all messages of the batch have ended")

	// ErrOutage is the outcome of a message that was not handled because its
	// batcher is down (Batcher.Probe) when its subscriber drains.
	ErrOutage = errors.New("batching: not handled: nothing that the batch handler was given succeeded")

	// errHandlerExited is the outcome of a batch whose handler called
	// runtime.Goexit, as testing.T.FailNow does.
	errHandlerExited = errors.New("batch handler ended its goroutine with runtime.Goexit")

	// errProcessPanicked is the reason with which later messages are called back
	// when the processing step panics; the panic itself goes on.
	errProcessPanicked = errors.New("processing step panicked")

	// errFailedWithoutError stands in when Batch.Fail is called with a nil
	// error: the caller said that the message failed, so it must not be acked.
	errFailedWithoutError = errors.New("message failed, no error was given")
)

// IsFailure reports whether err, which the middleware returned, says something
// about the message: true for what a processing step or a batch handler
// returned, false for nil and for what only says that the message was not
// handled to its end (its context ended, Close was called), so that it is
// redelivered. It is meant for middleware.PoisonQueueWithFilter, which should not
// take a shutdown for a poisoned message, and for middleware.Retry.
//
// A call of the handler's own that was cancelled is a failure. Of an error that
// wraps context.Canceled and did not pass the middleware while the message's own
// context was alive, that cannot be known; it counts as a cancellation.
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

// UnknownBatcherError is returned by the middleware for a message that names a
// batcher which is not configured, or names none while there is no batcher
// called DefaultBatcher. Only this message fails.
type UnknownBatcherError struct {
	Batcher string // the name that was asked for
}

// Error implements error.
func (e *UnknownBatcherError) Error() string {
	return fmt.Sprintf("batching: no batcher is called %q", e.Batcher)
}
