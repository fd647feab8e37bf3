package subscriber_test

import (
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// keeper is an Unmarshaler that keeps its records, as it may.
type keeper struct {
	mu   sync.Mutex
	kept map[string]*ots.Record // by what their UUIDs were
}

func (k *keeper) Unmarshal(r *ots.Record) (*message.Message, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept[r.UUID] = r
	return message.NewMessage(r.UUID, message.Payload(r.KeyText())), nil
}

func TestL2_records_that_an_Unmarshaler_keeps_stay_as_they_were(t *testing.T) {
	const keys = 20
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	k := &keeper{kept: make(map[string]*ots.Record)}
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.Unmarshaler = k })
	b.PutAll(keys, 1)
	for range keys {
		msg := receive(t, messages)
		k.mu.Lock()
		kept := k.kept[msg.UUID]
		k.mu.Unlock()
		asked, ok := ots.RecordFromMessage(msg)
		if !ok || asked.UUID != msg.UUID || asked.Attempt != 1 || asked.KeyText() != string(msg.Payload) {
			t.Errorf("the message of %s has the record %s, attempt %d", msg.Payload, asked.KeyText(), asked.Attempt)
		}
		if kept.UUID != msg.UUID || kept.KeyText() != string(msg.Payload) {
			t.Errorf("the record of %s, kept by the Unmarshaler, has become that of %s", msg.Payload, kept.KeyText())
		}
		msg.Ack()
	}
}
