package router

import (
	"context"
	"errors"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// orderMessage is a message with the UUID of an order, as an Unmarshaler may give it to
// the messages of several records.
func orderMessage(recordUUID string) *message.Message {
	msg := message.NewMessage("order-17", []byte("{}"))
	ots.WithRecord(msg, &ots.Record{UUID: recordUUID, Type: ots.Put})
	return msg
}

// Many rows that fail are an outage, although their messages have one UUID.
func TestGate_tells_records_apart_whose_messages_have_one_UUID(t *testing.T) {
	stopping := make(chan struct{})
	defer close(stopping)
	g := newGate(stopping, watermill.NopLogger{})
	h := g.around(func(msg *message.Message) ([]*message.Message, error) {
		msg.SetContext(context.Background()) // as a middleware may do
		return nil, errors.New("down")
	})
	for i := range failuresInARow {
		if g.shut.Load() {
			t.Fatalf("shut after %d failures", i)
		}
		if _, err := h(orderMessage(string(rune('a' + i)))); err == nil {
			t.Fatal("no error")
		}
	}
	if !g.shut.Load() {
		t.Error("not shut: the messages were taken for one")
	}
}
