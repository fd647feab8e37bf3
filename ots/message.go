package ots

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"
)

// ErrSkip is returned by an Unmarshaler, wrapped or not, to skip a record: the
// record counts as acked.
var ErrSkip = errors.New("the record is skipped")

// Unmarshaler turns a record into a message. The subscriber sets the message's UUID
// when it is empty, sets its context, and limits the payload's capacity to its length.
// An error other than ErrSkip counts as a failed message: it is logged and the record
// is redelivered after NackBackoff. So does a panic, even with ErrSkip, and
// runtime.Goexit.
//
// Create each message with message.NewMessage. A message that was created otherwise,
// or that was acked or nacked before, is replaced by a copy with the same UUID, payload
// and metadata.
//
// Unmarshal is called from one goroutine for each channel. The record stays valid
// while it is referenced, but see Record on the memory that it keeps.
type Unmarshaler interface {
	Unmarshal(r *Record) (*message.Message, error)
}

type recordKey struct{}

// RecordKey is the context key that RecordFromMessage looks up. A custom context type
// may answer it in its Value method instead of using WithRecord. It must not be
// changed.
var RecordKey any = recordKey{}

// RecordFromMessage returns the record that the message was built from. It returns
// false for a message from another source, and for a copy without the original's
// context.
func RecordFromMessage(msg *message.Message) (*Record, bool) {
	r, ok := msg.Context().Value(recordKey{}).(*Record)
	return r, ok
}

// WithRecord adds a record to msg's context, as the subscriber does. It is for
// testing handlers that call RecordFromMessage.
func WithRecord(msg *message.Message, r *Record) {
	msg.SetContext(context.WithValue(msg.Context(), recordKey{}, r))
}
