package router

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// MetadataDeadLetter is the metadata key that marks a published dead letter;
// its value is the name of the pipeline.
const MetadataDeadLetter = "ots.dead_letter"

// DeadLetter is a message that failed for good, with all that is needed to
// find out why and to handle it again. Its JSON form is the payload of
// a published dead letter; a dead-letter table has the same in columns.
type DeadLetter struct {
	Pipeline string `json:"pipeline"` // its name in the configuration
	ID       string `json:"id"`       // the message's UUID

	// Identity tells the letter from those of other records: the UUID of its
	// record. It differs from ID if the payload format gives messages UUIDs of its
	// own, which may repeat. Empty: as ID.
	Identity string `json:"identity,omitempty"`

	Table    string `json:"table"`
	Tunnel   string `json:"tunnel"`
	Channel  string `json:"channel"`
	Type     string `json:"type"`               // put, update or delete
	Key      string `json:"key"`                // the primary key's values as a JSON array
	Sequence string `json:"sequence,omitempty"` // as ots.Sequence.String; empty for base data

	Error    string    `json:"error"` // of the last attempt
	Attempts int       `json:"attempts"`
	FailedAt time.Time `json:"failed_at"`

	Metadata map[string]string `json:"metadata"` // as the message came
	Payload  []byte            `json:"payload"`  // as the message came

	// Record is the typed record behind the message, if there was one.
	Record *ots.Record `json:"-"`
}

// letterJSON is DeadLetter with what JSON cannot hold of it beside it.
type letterJSON struct {
	*letterFields
	Record *storedRecord `json:"record,omitempty"`
	Exact  *exactText    `json:"exact,omitempty"`
}

type letterFields DeadLetter

// MarshalJSON implements json.Marshaler.
func (l *DeadLetter) MarshalJSON() ([]byte, error) {
	readable, exact := exactOf(l, math.MaxInt)
	return json.Marshal(letterJSON{(*letterFields)(readable), storeRecord(l.Record), exact})
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *DeadLetter) UnmarshalJSON(data []byte) error {
	j := letterJSON{letterFields: (*letterFields)(l)}
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("reading a dead letter: %w", err)
	}
	j.Exact.restore(l)
	var err error
	l.Record, err = j.Record.restore()
	return err
}

// identity returns what the letter is kept under.
func (l *DeadLetter) identity() string { return cmp.Or(l.Identity, l.ID) }

// Message returns the message as it came to the pipeline, with its record
// (ots.RecordFromMessage).
func (l *DeadLetter) Message() *message.Message {
	msg := message.NewMessage(l.ID, l.Payload)
	for k, v := range l.Metadata {
		msg.Metadata[k] = v
	}
	if l.Record != nil {
		ots.WithRecord(msg, l.Record)
	}
	return msg
}

// errNoLetter is what a payload without a pipeline and an id gives.
var errNoLetter = errors.New("the payload is no dead letter: it has no pipeline or no id")

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

// now is the time as dead letters have it: a table keeps milliseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
