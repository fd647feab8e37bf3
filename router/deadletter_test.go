package router

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/ots"
)

// The payload of a published letter gives back the letter, and says what is in it by these keys.
func TestDeadLetter_JSON(t *testing.T) {
	l := &DeadLetter{
		Pipeline: "p", ID: "i", Identity: "r", Table: "t", Tunnel: "u", Channel: "c", Type: "put", Key: `["a"]`, Sequence: "s",
		Error: "boom", Attempts: 3, FailedAt: time.UnixMilli(1).UTC(), Metadata: map[string]string{"a": "b"}, Payload: []byte("{}"),
		Record: &ots.Record{UUID: "r", Type: ots.Put, Attempt: 1, PrimaryKey: []ots.Column{{Name: "k", Value: ots.StringValue("a")}}},
	}
	payload, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseDeadLetter(payload); err != nil || !reflect.DeepEqual(got, l) {
		t.Errorf("got %+v, %v of %+v", got, err, l)
	}
	var keys map[string]any
	if err := json.Unmarshal(payload, &keys); err != nil {
		t.Fatal(err)
	}
	want := []string{"attempts", "channel", "error", "failed_at", "id", "identity", "key", "metadata", "payload", "pipeline", "record", "sequence", "table", "tunnel", "type"}
	if got := names(keys); !reflect.DeepEqual(got, want) {
		t.Errorf("the payload has the keys %v, not %v", got, want)
	}
}
