package laws

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/ots"
)

// metaRow is the metadata key for the row that the sink receives.
const metaRow = "row"

// row is what the sink receives for a message.
type row struct {
	UUID     string       `json:"uuid"`
	Channel  string       `json:"channel"`
	Sequence ots.Sequence `json:"sequence"`
	Key      string       `json:"key"` // ots.Record.KeyText
	Type     string       `json:"type"`
	Version  int          `json:"version"` // 0 for a delete
	Bad      int          `json:"bad"`     // badAtSink: no request with it ever succeeds
}

// Values of the column "bad".
const (
	good         = 0
	badAtSink    = 1 // the sink refuses each request that has it
	badInProcess = 2 // the processing step fails
)

// request is what a worker sends to a door.
type request struct {
	Process int   `json:"process"`
	Rows    []row `json:"rows"`
}

// fencing says that a worker lost a message's channel while it handled the
// message.
type fencing struct {
	Process int       `json:"process"`
	UUID    string    `json:"uuid"`
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
}

var errBad = errors.New("simulated: a bad row")

// prepare is the processing step of all pipelines. It stores the row for the
// sink in the metadata.
func prepare(msg *message.Message) error {
	r, ok := ots.RecordFromMessage(msg)
	if !ok {
		return fmt.Errorf("message %s has no record", msg.UUID)
	}
	version, _ := r.Column("v")
	bad, _ := r.Column("bad")
	if bad.Int64() == badInProcess {
		return errBad
	}
	text, err := json.Marshal(row{
		UUID: msg.UUID, Channel: r.Channel, Sequence: r.Sequence, Key: r.KeyText(), Type: r.Type.String(),
		Version: int(version.Int64()), Bad: int(bad.Int64()),
	})
	msg.Metadata.Set(metaRow, string(text))
	return err
}

// batcherNames are the batchers of batchedPipe.
var batcherNames = [2]string{"even", "odd"}

// choose alternates the hot key between the batchers with each version, and
// chooses by name for the others.
func choose(msg *message.Message) error {
	r, err := rowOf(msg)
	if err != nil {
		return err
	}
	batcher := batcherOf(r.Key)
	if isHot(r.Key) {
		batcher = batcherNames[r.Version%2]
	}
	batching.SetBatcher(msg, batcher)
	return nil
}

// batcherOf returns the batcher of a key that always has the same one.
func batcherOf(keyText string) string {
	h := fnv.New32a()
	h.Write([]byte(keyText))
	return batcherNames[h.Sum32()%2]
}

func rowOf(msg *message.Message) (r row, err error) {
	if err := json.Unmarshal([]byte(msg.Metadata.Get(metaRow)), &r); err != nil {
		return row{}, fmt.Errorf("the row of message %s: %w", msg.UUID, err)
	}
	return r, nil
}
