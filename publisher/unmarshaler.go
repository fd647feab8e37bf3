package publisher

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// Unmarshaler turns the rows that a Publisher stored back into messages, as they were
// published: UUID, payload and metadata, nothing added. A message that was published
// without a UUID has its record's UUID. It copies the data, so that a kept message does
// not keep its page in memory.
//
// Deletes, and updates that do not write the payload column, are skipped (ots.ErrSkip).
// A put without a payload is an error, unless Outbox is set: the Columns or the table are
// wrong.
type Unmarshaler struct {
	// Columns must be those of the Publisher, or of Columns.WriteTo.
	Columns Columns

	// Outbox is for your own tables, in which only some writes carry a message: the
	// other writes are skipped.
	Outbox bool
}

var _ ots.Unmarshaler = Unmarshaler{}

// Unmarshal returns the message of a record.
func (u Unmarshaler) Unmarshal(r *ots.Record) (*message.Message, error) {
	columns := u.Columns.withDefaults()
	payload, ok := r.Column(columns.Payload)
	if r.Type == ots.Delete || !ok && (u.Outbox || r.Type == ots.Update) {
		return nil, ots.ErrSkip
	}
	if !ok {
		return nil, u.refuse(r, "has no column %q; check Unmarshaler.Columns, and set Outbox if only some rows of the table carry a message", columns.Payload)
	}
	if k := payload.Kind(); k != ots.KindBinary && k != ots.KindString {
		return nil, u.refuse(r, "has a payload column %q of type %s, not binary or string", columns.Payload, k)
	}
	msg := message.NewMessage("", payload.Bytes())
	if uuid, ok := r.Column(columns.UUID); ok {
		if uuid.Kind() != ots.KindString {
			return nil, u.refuse(r, "has a UUID column %q of type %s, not string", columns.UUID, uuid.Kind())
		}
		msg.UUID = strings.Clone(uuid.String())
	}
	if metadata, ok := r.Column(columns.Metadata); ok {
		if err := json.Unmarshal(metadata.Bytes(), &msg.Metadata); err != nil || msg.Metadata == nil {
			return nil, u.refuse(r, "has a metadata column %q that is not a JSON object of strings", columns.Metadata)
		}
	}
	return msg, nil
}

func (u Unmarshaler) refuse(r *ots.Record, format string, args ...any) error {
	return fmt.Errorf("row %s of table %s %s", r.KeyText(), r.Table, fmt.Sprintf(format, args...))
}
