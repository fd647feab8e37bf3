package subscriber_test

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestL8_failed_record_pauses_while_other_keys_flow(t *testing.T) {
	t.Parallel() // it waits in real time
	const pause = time.Second
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(pause) }
	})
	put(t, b, "poison", 1)
	first := receive(t, messages)
	held, _ := ots.RecordFromMessage(first)
	failed := time.Now()
	first.Nack()
	time.Sleep(100 * time.Millisecond) // the pause has begun
	put(t, b, "other", 1)
	other := receive(t, messages)
	wantName(t, other, "other/1")
	other.Ack()
	again := receive(t, messages)
	wantName(t, again, "poison/1")
	if took := time.Since(failed); took < pause {
		t.Errorf("it was redelivered after %v, want %v at least", took, pause)
	}
	if r, _ := ots.RecordFromMessage(again); r.Attempt != 2 || held.Attempt != 1 {
		t.Errorf("attempt %d, and %d in the record that the first handler holds", r.Attempt, held.Attempt)
	}
	again.Ack()
}

func TestL8_record_that_failed_keeps_its_pauses_when_it_is_called_back(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	var made atomic.Int32
	_, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.NackBackoff = func() backoff.BackOff {
			made.Add(1)
			return backoff.NewConstantBackOff(10 * time.Millisecond)
		}
	})
	put(t, b, "a", 1, 2)
	first := receive(t, messages)
	d := deliveryOf(t, first)
	d.HandOff()
	receive(t, messages).Nack() // a/2 fails by itself
	second := receive(t, messages)
	d.CallBack(errors.New("the batch failed"))
	second.Nack() // the end of a called-back delivery
	first.Nack()
	again := receive(t, messages)
	wantName(t, again, "a/1")
	again.Ack()
	second = receive(t, messages)
	wantName(t, second, "a/2")
	second.Nack()
	second = receive(t, messages)
	wantName(t, second, "a/2")
	second.Ack()
	if n := made.Load(); n != 2 {
		t.Errorf("%d backoffs were made for two records that failed", n)
	}
}

// refuseOnce refuses the first record that it sees.
type refuseOnce struct{ once sync.Once }

func (u *refuseOnce) Unmarshal(r *ots.Record) (msg *message.Message, err error) {
	u.once.Do(func() { err = errors.New("refused") })
	if err != nil {
		return nil, err
	}
	return subscriber.JSON{}.Unmarshal(r)
}

func TestL8_failures_are_in_the_log_with_key_and_attempt(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(10 * time.Millisecond) }
	cfg.Unmarshaler = new(refuseOnce)
	lines := new(recorded[logLine])
	s, err := subscriber.New(cfg, keepLogger{lines: lines})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	messages, err := s.Subscribe(t.Context(), testbed.Topic)
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, "a", 1)
	receive(t, messages).Nack()
	receive(t, messages).Ack()
	logged := func(level watermill.LogLevel, attempt int) bool {
		return slices.ContainsFunc(lines.get(), func(l logLine) bool {
			return l.level == level && l.fields["key"] == `["a"]` && l.fields["attempt"] == attempt
		})
	}
	if !logged(watermill.ErrorLogLevel, 1) {
		t.Error("the record that the Unmarshaler refused is not in the log")
	}
	testbed.Eventually(t, 5*time.Second, "the message that was nacked is in the log", func() bool { return logged(watermill.DebugLogLevel, 2) })
}
