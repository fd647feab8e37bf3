package letters

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// Letter is a dead letter. Its fields are those of router.DeadLetter, which is
// converted to it and has the documentation of each.
type Letter struct {
	Pipeline string `json:"pipeline"`
	ID       string `json:"id"`
	Identity string `json:"identity,omitempty"`

	Table    string `json:"table"`
	Tunnel   string `json:"tunnel"`
	Channel  string `json:"channel"`
	Type     string `json:"type"`
	Key      string `json:"key"`
	Sequence string `json:"sequence,omitempty"`

	Error    string    `json:"error"`
	Attempts int       `json:"attempts"`
	FailedAt time.Time `json:"failed_at"`

	Metadata map[string]string `json:"metadata"`
	Payload  []byte            `json:"payload"`

	Record *ots.Record `json:"-"`
}

// letterJSON is a Letter together with the parts of it that JSON cannot hold.
type letterJSON struct {
	*letterFields
	Record *storedRecord `json:"record,omitempty"`
	Exact  *exactText    `json:"exact,omitempty"`
}

type letterFields Letter

// MarshalJSON implements json.Marshaler.
func (l *Letter) MarshalJSON() ([]byte, error) {
	readable, exact := exactOf(l, math.MaxInt)
	return json.Marshal(letterJSON{(*letterFields)(readable), storeRecord(l.Record), exact})
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *Letter) UnmarshalJSON(data []byte) error {
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
func (l *Letter) identity() string { return cmp.Or(l.Identity, l.ID) }

// Message returns the message as the pipeline received it, with its record
// (ots.RecordFromMessage).
func (l *Letter) Message() *message.Message {
	msg := message.NewMessage(l.ID, l.Payload)
	for k, v := range l.Metadata {
		msg.Metadata[k] = v
	}
	if l.Record != nil {
		ots.WithRecord(msg, l.Record)
	}
	return msg
}

// Now is the current time in the precision of dead letters: a table keeps milliseconds.
func Now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
