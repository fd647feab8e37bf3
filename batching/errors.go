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

// IsFailure reports whether err says something about the message: true for what
// a processing step or a batch handler returned, false for nil and for what only
// says that the message was not handled to its end (its context was cancelled,
// Close was called), so that it will come again. It is meant for
// middleware.PoisonQueueWithFilter, which should not take a shutdown for a
// poisoned message, and for middleware.Retry.
func IsFailure(err error) bool {
	if err == nil {
		return false
	}
	for _, end := range []error{context.Canceled, ack.ErrCalledBack, ErrClosed, ErrCloseTimeout, ErrAllEnded} {
		if errors.Is(err, end) {
			return false
		}
	}
	return true
}

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

// PanicError is what becomes of a panic in a batch handler: the outcome of all
// messages of its batch.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // the goroutine's stack, as from runtime/debug.Stack
}

// Error implements error. It has the value but not the stack, since error texts
// end up in metadata (Watermill's PoisonQueue puts them there).
func (e *PanicError) Error() string {
	return fmt.Sprintf("batch handler panicked: %v", e.Value)
}

// Unwrap returns the value when the handler panicked with an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
