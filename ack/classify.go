package ack

import (
	"errors"
	"net"
)

// transientError marks a failure that the message did not cause.
type transientError struct{ err error }

// Transient marks err as a failure of something that the handler depends on, not
// of the message: a pipeline retries the message, and the attempt does not count
// towards its limit. The opposite is backoff.Permanent of
// github.com/cenkalti/backoff/v4, after which a message is not retried at all.
// Transient returns nil for a nil error.
func Transient(err error) error {
	if err == nil {
		return nil
	}
	return &transientError{err}
}

func (e *transientError) Error() string { return e.err.Error() }

func (e *transientError) Unwrap() error { return e.err }

// IsTransient reports whether err, or an error that it wraps, was marked with
// Transient or is a failed dial (a *net.OpError): the connection was never made,
// so the message was not sent and cannot be the cause.
func IsTransient(err error) bool {
	var t *transientError
	if errors.As(err, &t) {
		return true
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
