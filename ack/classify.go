package ack

import (
	"errors"
	"net"
)

// transientError marks a failure that says nothing about the message.
type transientError struct{ err error }

// Transient marks err as a failure of something that the handler needs, not of
// the message: a pipeline retries the message and never counts the attempt
// towards giving it up. The opposite is backoff.Permanent of
// github.com/cenkalti/backoff/v4, which gives a message up at once. Transient
// returns nil for a nil error.
func Transient(err error) error {
	if err == nil {
		return nil
	}
	return &transientError{err}
}

func (e *transientError) Error() string { return e.err.Error() }

func (e *transientError) Unwrap() error { return e.err }

// IsTransient reports whether err, or an error that it wraps, was marked with Transient, or
// is that of a connection that could not be made (a *net.OpError of a dial): nothing of
// the message was sent, so the failure says nothing about it.
func IsTransient(err error) bool {
	var t *transientError
	if errors.As(err, &t) {
		return true
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
