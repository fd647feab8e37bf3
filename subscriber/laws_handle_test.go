package subscriber_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestL3_Handle_record_called_back_while_its_message_is_made_is_not_handled_before_its_turn(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	halt := &haltingJSON{reached: make(chan struct{}), resume: make(chan struct{})}
	first := true
	h := handle(t, b, func(c *subscriber.Config) { c.Unmarshaler = halt }, func(msg *message.Message) error {
		if !first { // one key: one call at a time, unless the law is broken
			return nil
		}
		first = false
		d := deliveryOf(t, msg)
		d.HandOff()
		<-halt.reached
		d.CallBack(errors.New("the batch failed"))
		close(halt.resume)
		time.Sleep(100 * time.Millisecond) // the other one would be handled meanwhile
		return errors.New("the batch failed")
	})
	put(t, b, "a", 1, 2)
	testbed.Eventually(t, 10*time.Second, "both are handled", func() bool { return slices.Contains(h.seen(), "a/2") && len(h.seen()) >= 3 })
	if got := h.seen(); !slices.Equal(got, []string{"a/1", "a/1", "a/2"}) {
		t.Errorf("handled %v", got)
	}
}

func TestL8_Handle_errors_of_handlers_are_in_the_log_with_key_and_attempt(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(10 * time.Millisecond) }
	lines := new(recorded[logLine])
	s, err := subscriber.New(cfg, keepLogger{lines: lines})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var calls atomic.Int32
	if _, err := s.Handle(t.Context(), testbed.Topic, func(*message.Message) error {
		if calls.Add(1) <= 2 {
			return errors.New("no")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	put(t, b, "a", 1)
	testbed.Eventually(t, 10*time.Second, "the record is handled", func() bool { return calls.Load() == 3 })
	var attempts []any
	for _, l := range lines.get() {
		if l.level == watermill.ErrorLogLevel && l.fields["key"] == `["a"]` {
			attempts = append(attempts, l.fields["attempt"])
		}
	}
	if !slices.Equal(attempts, []any{1, 2}) {
		t.Errorf("errors are logged for the attempts %v, want 1 and 2", attempts)
	}
}

func TestL7_Handle_waits_for_handlers_that_return_when_their_contexts_end(t *testing.T) {
	t.Parallel()
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	var returned atomic.Bool
	h := handle(t, b, func(c *subscriber.Config) { c.CloseTimeout = 50 * time.Millisecond }, func(msg *message.Message) error {
		<-msg.Context().Done()
		time.Sleep(200 * time.Millisecond) // it cleans up
		returned.Store(true)
		return msg.Context().Err()
	})
	put(t, b, "a", 1)
	testbed.Eventually(t, 10*time.Second, "the handler runs", func() bool { return len(h.seen()) == 1 })
	if err := h.Close(); !errors.Is(err, subscriber.ErrDrainTimeout) {
		t.Errorf("Close: %v", err)
	}
	if !returned.Load() {
		t.Error("Close has returned while a handler runs")
	}
}

func TestL4_Handle_outcome_after_the_loss_counts_for_nothing(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	w := newWire(t)
	var acked atomic.Int32
	returned := make(chan struct{})
	h := handle(t, b, func(c *subscriber.Config) {
		c.Transport = w
		c.OnAck = func(subscriber.Acked) { acked.Add(1) }
	}, func(msg *message.Message) error {
		<-msg.Context().Done()
		close(returned)
		return nil
	})
	put(t, b, "a", 1)
	testbed.Eventually(t, 10*time.Second, "the handler runs", func() bool { return len(h.seen()) == 1 })
	time.Sleep(150 * time.Millisecond) // what was read before it, which is nothing, may be committed
	before := len(w.all("stored "))
	w.tell(protocol.ChannelStatus_CLOSE) // the channel does not come back
	select {
	case <-returned:
	case <-time.After(10 * time.Second):
		t.Fatal("the handler's context does not end with its channel")
	}
	time.Sleep(200 * time.Millisecond) // several checkpoint intervals
	if n := acked.Load(); n != 0 {
		t.Error("the handler's success after the loss counts as an ack")
	}
	if stored := w.all("stored "); len(stored) > before {
		t.Errorf("it was committed: %v", stored[before:])
	}
}
