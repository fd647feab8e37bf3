package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/subscriber"
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

	Table    string `json:"table"`
	Tunnel   string `json:"tunnel"`
	Channel  string `json:"channel"`
	Type     string `json:"type"`               // put, update or delete
	Key      string `json:"key"`                // the primary key's values as a JSON array
	Sequence string `json:"sequence,omitempty"` // as subscriber.Sequence.String; empty for base data

	Error    string    `json:"error"` // of the last attempt
	Attempts int       `json:"attempts"`
	FailedAt time.Time `json:"failed_at"`

	Metadata map[string]string `json:"metadata"` // as the message came
	Payload  []byte            `json:"payload"`  // as the message came

	// Record is the typed record behind the message, if there was one.
	Record *subscriber.Record `json:"-"`
}

// letterJSON is DeadLetter with a Record that JSON can hold.
type letterJSON struct {
	*letterFields
	Record *storedRecord `json:"record,omitempty"`
}

type letterFields DeadLetter

// MarshalJSON implements json.Marshaler.
func (l *DeadLetter) MarshalJSON() ([]byte, error) {
	return json.Marshal(letterJSON{(*letterFields)(l), storeRecord(l.Record)})
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *DeadLetter) UnmarshalJSON(data []byte) error {
	j := letterJSON{letterFields: (*letterFields)(l)}
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("reading a dead letter: %w", err)
	}
	var err error
	l.Record, err = j.Record.restore()
	return err
}

// Message returns the message as it came to the pipeline, with its record
// (subscriber.RecordFromMessage).
func (l *DeadLetter) Message() *message.Message {
	msg := message.NewMessage(l.ID, l.Payload)
	for k, v := range l.Metadata {
		msg.Metadata[k] = v
	}
	if l.Record != nil {
		subscriber.WithRecord(msg, l.Record)
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

// topicLetters publishes dead letters.
type topicLetters struct {
	publisher message.Publisher
	topic     string
}

// put publishes the letter. Its UUID is that of the message, so that a consumer can
// tell when it comes twice.
func (t *topicLetters) put(ctx context.Context, l *DeadLetter) error {
	payload, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode a dead letter: %w", err)
	}
	msg := message.NewMessage(l.ID, payload)
	msg.Metadata[MetadataDeadLetter] = l.Pipeline
	msg.SetContext(ctx)
	if err := t.publisher.Publish(t.topic, msg); err != nil {
		return fmt.Errorf("publish to %q: %w", t.topic, err)
	}
	return nil
}

// now is the time as dead letters have it: a table keeps milliseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
