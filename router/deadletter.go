package router

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/internal/letters"
	"github.com/watermill-ots/watermill-ots/ots"
)

// MetadataDeadLetter is the metadata key that marks a published dead letter;
// its value is the name of the pipeline.
const MetadataDeadLetter = letters.MetadataPipeline

// ErrLetterTable is wrapped by errors about an existing dead-letter table that
// cannot hold dead letters.
var ErrLetterTable = letters.ErrTable

// DeadLetter is a message that failed for good, with all that is needed to
// find out why and to handle it again. Its JSON form is the payload of
// a published dead letter; a dead-letter table has the same in columns.
type DeadLetter struct {
	Pipeline string // its name in the configuration
	ID       string // the message's UUID

	// Identity distinguishes the letter from those of other records: the UUID of its
	// record. It differs from ID if the payload format gives messages UUIDs of its
	// own, which need not be unique. Empty: as ID.
	Identity string

	Table    string
	Tunnel   string
	Channel  string
	Type     string // put, update or delete
	Key      string // the primary key's values as a JSON array
	Sequence string // as ots.Sequence.String; empty for base data

	Error    string // of the last attempt
	Attempts int
	FailedAt time.Time

	Metadata map[string]string // as the pipeline received it
	Payload  []byte            // as the pipeline received it

	// Record is the typed record behind the message, if there was one.
	Record *ots.Record
}

// MarshalJSON implements json.Marshaler.
func (l *DeadLetter) MarshalJSON() ([]byte, error) { return (*letters.Letter)(l).MarshalJSON() }

// UnmarshalJSON implements json.Unmarshaler.
func (l *DeadLetter) UnmarshalJSON(data []byte) error {
	return (*letters.Letter)(l).UnmarshalJSON(data)
}

// Message returns the message as the pipeline received it, with its record
// (ots.RecordFromMessage).
func (l *DeadLetter) Message() *message.Message { return (*letters.Letter)(l).Message() }

// errNoLetter is the error for a payload without a pipeline or without an id.
var errNoLetter = errors.New("the payload is not a dead letter: it has no pipeline or no id")

// ParseDeadLetter reads the payload of a published dead letter.
func ParseDeadLetter(payload []byte) (*DeadLetter, error) {
	l := new(DeadLetter)
	if err := json.Unmarshal(payload, l); err != nil {
		return nil, err
	}
	if l.Pipeline == "" || l.ID == "" {
		return nil, errNoLetter
	}
	return l, nil
}
