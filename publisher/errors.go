package publisher

import (
	"errors"
	"fmt"

	"github.com/watermill-ots/watermill-ots/ack"
)

var (
	// ErrClosed is returned by Publish and CreateTable after Close.
	ErrClosed = errors.New("publisher is closed")

	// ErrCloseTimeout is wrapped by the error of Close if Publish calls were still
	// running after CloseTimeout, and by the errors of these calls, which Close ended.
	ErrCloseTimeout = errors.New("publishing took longer than the publisher's CloseTimeout")

	// ErrNotSent is the outcome of a message that was not sent because another one
	// of its Publish call failed.
	ErrNotSent = errors.New("not sent after the failure of another message")

	// ErrMessage is wrapped by the outcome of a message that cannot be stored as a row, for
	// example because its payload is larger than a column.
	ErrMessage = errors.New("message does not fit into a row")

	// ErrNoTable means that the topic's table does not exist.
	ErrNoTable = errors.New("no such table")

	// ErrTable means that the topic's table does not have the key columns that a Publisher
	// writes.
	ErrTable = errors.New("table does not have the key columns for messages")
)

// PublishError is the error of Publish when not all of its messages were stored. Match
// the causes with errors.Is and errors.As.
//
// A failed message may be stored nevertheless if the service's answer was lost;
// publishing it again creates a duplicate with the same UUID.
type PublishError struct {
	Topic, Table string
	Messages     int             // number of messages in the call of Publish
	Failed       []FailedMessage // messages that are not known to be stored, in order
}

// FailedMessage is a message that is not known to be stored.
type FailedMessage struct {
	Index int // in the messages of Publish
	UUID  string
	Err   error // ErrNotSent if it was not sent because another message failed
}

// Error names the first message that failed, and counts the others.
func (e *PublishError) Error() string {
	for _, f := range e.Failed {
		switch {
		case errors.Is(f.Err, ErrNotSent):
		case e.Messages == 1:
			return fmt.Sprintf("publishing message %q to table %s: %v", f.UUID, e.Table, f.Err)
		default:
			return fmt.Sprintf("publishing to table %s: %d of %d messages were not stored, first message %q (number %d): %v",
				e.Table, len(e.Failed), e.Messages, f.UUID, f.Index+1, f.Err)
		}
	}
	return fmt.Sprintf("publishing to table %s: %d of %d messages were not stored", e.Table, len(e.Failed), e.Messages)
}

// MessageErrors implements batching.PartialError: it returns the errors of the messages
// that are not known to be stored, by index. ErrNotSent is marked with ack.Transient.
func (e *PublishError) MessageErrors() map[int]error {
	errs := make(map[int]error, len(e.Failed))
	for _, f := range e.Failed {
		err := f.Err
		if errors.Is(err, ErrNotSent) {
			err = ack.Transient(err)
		}
		errs[f.Index] = err
	}
	return errs
}

// Unwrap returns the outcomes of the messages that failed, without those that were not sent.
func (e *PublishError) Unwrap() []error {
	var causes []error
	for _, f := range e.Failed {
		if !errors.Is(f.Err, ErrNotSent) {
			causes = append(causes, f.Err)
		}
	}
	return causes
}
