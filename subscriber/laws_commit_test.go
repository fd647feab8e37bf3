package subscriber_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestL1_record_that_is_held_out_when_the_drain_begins_comes_again(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, nil)
	put(t, b, "a", 1)
	receive(t, messages).Ack()
	put(t, b, "b", 1)
	served(t, b, 2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, messages = subscribe(t, b, nil)
	msg := receive(t, messages)
	wantName(t, msg, "b/1")
	msg.Ack()
}

func TestL1_record_called_back_before_anybody_took_it_comes_again(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, nil)
	put(t, b, "a", 1, 2)
	first := receive(t, messages)
	d := deliveryOf(t, first)
	d.HandOff()
	served(t, b, 2)
	d.CallBack(errors.New("the batch failed"))
	first.Nack()
	for _, want := range []string{"a/1", "a/2"} {
		msg := receive(t, messages)
		wantName(t, msg, want)
		msg.Ack()
	}
}

// haltingJSON halts in the Unmarshaler at the first record with version 2.
type haltingJSON struct {
	once            sync.Once
	reached, resume chan struct{}
}

func (h *haltingJSON) Unmarshal(r *ots.Record) (*message.Message, error) {
	if v, _ := r.Column("v"); v.Int64() == 2 {
		h.once.Do(func() {
			close(h.reached)
			<-h.resume
		})
	}
	return subscriber.JSON{}.Unmarshal(r)
}

func TestL1_record_called_back_while_its_message_is_made_comes_again(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	halt := &haltingJSON{reached: make(chan struct{}), resume: make(chan struct{})}
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.Unmarshaler = halt })
	put(t, b, "a", 1, 2)
	first := receive(t, messages)
	d := deliveryOf(t, first)
	d.HandOff()
	<-halt.reached
	d.CallBack(errors.New("the batch failed"))
	close(halt.resume)
	first.Nack()
	for _, want := range []string{"a/1", "a/2"} {
		msg := receive(t, messages)
		wantName(t, msg, want)
		msg.Ack()
	}
}

func TestL1_L2_checkpoint_whose_answer_is_lost_is_found_and_the_next_ones_follow(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, nil)
	put(t, b, "warm", 1)
	receive(t, messages).Ack()
	testbed.Eventually(t, 5*time.Second, "a checkpoint is stored", func() bool { return requests(b, "checkpoint") > 0 })
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/checkpoint", Break: emulator.BeforeAnswer})
	var changed time.Time
	for v := 1; v <= 2; v++ {
		put(t, b, "a", v)
		msg := receive(t, messages)
		r, _ := ots.RecordFromMessage(msg)
		changed = time.UnixMicro(r.Sequence.Timestamp)
		msg.Ack()
		testbed.Eventually(t, 5*time.Second, "the acked record is committed", func() bool {
			for _, at := range b.Committed(id) {
				if at.Before(changed) {
					return false
				}
			}
			return b.Emulator.Stats().Faults > 0
		})
	}
}

func TestL2_checkpoint_that_was_refused_with_a_mismatch_does_not_count_as_stored(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, func(c *subscriber.Config) { c.CheckpointInterval = time.Hour })
	put(t, b, "a", 1)
	receive(t, messages).Ack()
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/checkpoint", Code: tunnel.ErrCodeSequenceNotMatch})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, b, "b", 1)
	_, messages = subscribe(t, b, nil)
	msg := receive(t, messages) // not a/1 again: the drain stored it at its second try
	wantName(t, msg, "b/1")
	msg.Ack()
}

// TestL2_uuid_is_what_anybody_can_compute asserts the UUID against a second
// implementation, fed with what the service knows: so also the tunnel's and the
// channel's id are in it.
func TestL2_uuid_is_what_anybody_can_compute(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, nil)
	put(t, b, "a", 1)
	msg := receive(t, messages)
	r, _ := ots.RecordFromMessage(msg)
	var row plainbuffer.Row
	key := plainbuffer.AppendPrimaryKey(nil, []plainbuffer.Cell{{Name: "k", Value: plainbuffer.StringValue("a"), HasValue: true}})
	if err := plainbuffer.Decode(key, &row); err != nil {
		t.Fatal(err)
	}
	var names []byte
	for _, s := range []string{id, r.Channel} {
		names = append(binary.LittleEndian.AppendUint64(names, uint64(len(s))), s...)
	}
	seed := sha256.Sum256(names)
	whole := append(seed[:], byte(r.Type))
	whole = binary.LittleEndian.AppendUint32(whole, uint32(r.Sequence.Epoch))
	whole = binary.LittleEndian.AppendUint64(whole, uint64(r.Sequence.Timestamp))
	whole = binary.LittleEndian.AppendUint32(whole, uint32(r.Sequence.RowIndex))
	sum := sha256.Sum256(append(whole, row.KeyBytes...))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	if got := strings.ReplaceAll(msg.UUID, "-", ""); got != hex.EncodeToString(sum[:16]) {
		t.Errorf("UUID is %s, want the digits %x", msg.UUID, sum[:16])
	}
	msg.Ack()
}
