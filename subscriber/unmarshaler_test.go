package subscriber_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// unmarshalerFunc makes a function an Unmarshaler.
type unmarshalerFunc func(r *ots.Record) (*message.Message, error)

func (f unmarshalerFunc) Unmarshal(r *ots.Record) (*message.Message, error) { return f(r) }

func TestUnmarshaler_that_skips_a_record_acks_it(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.Unmarshaler = unmarshalerFunc(func(r *ots.Record) (*message.Message, error) {
			if v, _ := r.Column("v"); v.Int64()%2 == 1 {
				return nil, fmt.Errorf("odd: %w", ots.ErrSkip)
			}
			return subscriber.JSON{}.Unmarshal(r)
		})
	})
	put(t, b, "a", 1, 2, 3, 4, 5)
	for _, want := range []string{"a/2", "a/4"} {
		msg := receive(t, messages)
		wantName(t, msg, want)
		msg.Ack()
	}
	testbed.Eventually(t, 10*time.Second, "the checkpoint is behind the last record, which was skipped", func() bool {
		return b.CommittedRecords(id) == 5
	})
}

func TestUnmarshaler_sees_the_uuid_of_the_message_on_every_delivery(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	var seen atomic.Value
	_, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.Unmarshaler = unmarshalerFunc(func(r *ots.Record) (*message.Message, error) {
			seen.Store(r.UUID)
			return subscriber.JSON{}.Unmarshal(r)
		})
	})
	put(t, b, "a", 1)
	first := receive(t, messages)
	for msg := first; ; msg = receive(t, messages) {
		r, ok := ots.RecordFromMessage(msg)
		if !ok || r.UUID == "" || r.UUID != msg.UUID || r.UUID != seen.Load() || r.UUID != first.UUID {
			t.Fatalf("record has %q, message %q, Unmarshal saw %q, the first was %q", r.UUID, msg.UUID, seen.Load(), first.UUID)
		}
		if r.Attempt == 3 {
			msg.Ack()
			return
		}
		msg.Nack()
	}
}
