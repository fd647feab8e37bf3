package ots

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"
)

// ErrSkip is what an Unmarshaler returns, wrapped or not, for a record that
// makes no message: it counts as acked.
var ErrSkip = errors.New("the record makes no message")

// Unmarshaler makes a message of a record. The subscriber sets the message's UUID when
// it is empty, and its context, and caps the payload. An error other than ErrSkip counts
// as a failed message: it is logged and the record is redelivered after NackBackoff. The
// same goes for a panic, also one with ErrSkip, and for runtime.Goexit.
//
// Make each message with message.NewMessage. A message that was made otherwise, or
// that was acked or nacked before, is replaced by a copy with the same UUID, payload and metadata.
//
// Unmarshal is called from one goroutine for each channel. The record stays
// valid for as long as somebody holds it, but see Record on what it pins.
type Unmarshaler interface {
	Unmarshal(r *Record) (*message.Message, error)
}

type recordKey struct{}

// RecordKey is the context key under which RecordFromMessage looks. A context type of
// one's own may answer it in its Value method instead of using WithRecord. It must not
// be changed.
var RecordKey any = recordKey{}

// RecordFromMessage returns the typed record that the message was made of. It is
// false for a message of another source, and for copies made without their context.
func RecordFromMessage(msg *message.Message) (*Record, bool) {
	r, ok := msg.Context().Value(recordKey{}).(*Record)
	return r, ok
}

// WithRecord gives msg's context a record, as the subscriber does. It is for
// tests of handlers that call RecordFromMessage.
func WithRecord(msg *message.Message, r *Record) {
	msg.SetContext(context.WithValue(msg.Context(), recordKey{}, r))
}
