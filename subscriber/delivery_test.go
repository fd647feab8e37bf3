package subscriber_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
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

// subscribe starts a subscription that ends with the test.
func subscribe(t *testing.T, b *testbed.Bed, change func(*subscriber.Config)) (*subscriber.Subscriber, <-chan *message.Message) {
	t.Helper()
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(10 * time.Millisecond) }
	if change != nil {
		change(&cfg)
	}
	s, err := subscriber.New(cfg, testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	messages, err := s.Subscribe(context.Background(), testbed.Topic)
	if err != nil {
		t.Fatal(err)
	}
	return s, messages
}

// testLogger writes to the test's log until the test ends.
func testLogger(t *testing.T) watermill.LoggerAdapter {
	if !testing.Verbose() {
		return watermill.NopLogger{}
	}
	return watermill.NewStdLogger(true, false)
}

// receive takes a message or fails the test.
func receive(t *testing.T, messages <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, ok := <-messages:
		if !ok {
			t.Fatal("the output is closed")
		}
		return msg
	case <-time.After(10 * time.Second):
		t.Fatal("no message within 10s")
	}
	return nil
}

// receiveNone fails the test when a message comes within a while.
func receiveNone(t *testing.T, messages <-chan *message.Message, d time.Duration) {
	t.Helper()
	select {
	case msg, ok := <-messages:
		if ok {
			t.Fatalf("unexpected message %s", name(msg))
		}
		t.Fatal("the output is closed")
	case <-time.After(d):
	}
}

// name is "key/version" of a message.
func name(msg *message.Message) string {
	r, ok := ots.RecordFromMessage(msg)
	if !ok {
		return "no record"
	}
	v, _ := r.Column("v")
	return fmt.Sprintf("%s/%d", r.PrimaryKey[0].Value, v.Int64())
}

func put(t *testing.T, b *testbed.Bed, k string, versions ...int) {
	t.Helper()
	for _, v := range versions {
		if err := b.Put(k, v); err != nil {
			t.Fatal(err)
		}
	}
}

func wantName(t *testing.T, msg *message.Message, want string) {
	t.Helper()
	if got := name(msg); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

func TestMessage_carries_record_payload_and_metadata(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, nil)
	put(t, b, "a", 1)
	msg := receive(t, messages)
	r, ok := ots.RecordFromMessage(msg)
	if !ok {
		t.Fatal("no record in the message's context")
	}
	if r.Instance != testbed.Instance || r.Table != testbed.Table || r.Tunnel != testbed.Tunnel || r.Channel == "" || r.Type != ots.Put || r.Attempt != 1 {
		t.Errorf("record is %+v", r)
	}
	if age := time.Since(time.UnixMicro(r.Sequence.Timestamp)); age < 0 || age > time.Minute {
		t.Errorf("sequence timestamp %d is not the time of the change", r.Sequence.Timestamp)
	}
	for key, want := range map[string]string{
		"ots.table": testbed.Table, "ots.tunnel": testbed.Tunnel, "ots.channel": r.Channel, "ots.type": "put",
		"ots.timestamp": fmt.Sprint(r.Sequence.Timestamp), "ots.key": `["a"]`, "ots.phase": "stream", "ots.snapshot": "",
	} {
		if got := msg.Metadata.Get(key); got != want {
			t.Errorf("metadata %s is %q, want %q", key, got, want)
		}
	}
	want := fmt.Sprintf(`{"type":"put","key":{"k":"a"},"columns":{"v":1},"timestamp":%d,"sequence":"%s"}`, r.Sequence.Timestamp, r.Sequence)
	if string(msg.Payload) != want {
		t.Errorf("payload is\n%s, want\n%s", msg.Payload, want)
	}
	msg.Ack()
}

func TestL2_uuid_is_the_same_on_every_delivery_and_differs_between_records(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, func(c *subscriber.Config) { c.CloseTimeout = 500 * time.Millisecond })
	put(t, b, "a", 1, 2)
	first := receive(t, messages)
	first.Nack()
	again := receive(t, messages)
	wantName(t, again, "a/1")
	if again.UUID != first.UUID {
		t.Errorf("redelivered with UUID %s, first with %s", again.UUID, first.UUID)
	}
	if err := s.Close(); !errors.Is(err, subscriber.ErrDrainTimeout) {
		t.Fatalf("Close with an unsettled message returned %v", err)
	}
	_, messages = subscribe(t, b, nil)
	other := receive(t, messages)
	wantName(t, other, "a/1")
	if other.UUID != first.UUID {
		t.Errorf("another subscription delivered UUID %s, the first one %s", other.UUID, first.UUID)
	}
	other.Ack()
	next := receive(t, messages)
	wantName(t, next, "a/2")
	if next.UUID == first.UUID {
		t.Error("two records have one UUID")
	}
	next.Ack()
}

func TestL3_next_record_of_a_key_waits_for_the_ack_while_other_keys_flow(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, nil)
	put(t, b, "a", 1, 2)
	put(t, b, "b", 1)
	a1, b1 := receive(t, messages), receive(t, messages)
	wantName(t, a1, "a/1")
	wantName(t, b1, "b/1")
	receiveNone(t, messages, 200*time.Millisecond)
	a1.Ack()
	a2 := receive(t, messages)
	wantName(t, a2, "a/2")
	a2.Ack()
	b1.Ack()
}

func TestL3_nacked_record_comes_again_before_its_successors_with_its_attempt_counted(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, nil)
	put(t, b, "a", 1, 2)
	for attempt := 1; attempt <= 4; attempt++ {
		msg := receive(t, messages)
		wantName(t, msg, "a/1")
		if r, _ := ots.RecordFromMessage(msg); r.Attempt != attempt {
			t.Errorf("delivery %d has Attempt %d", attempt, r.Attempt)
		}
		if attempt < 4 {
			msg.Nack()
		} else {
			msg.Ack()
		}
	}
	msg := receive(t, messages)
	wantName(t, msg, "a/2")
	msg.Ack()
}

func TestOrderByChannel_delivers_one_message_at_a_time(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.Ordering = subscriber.OrderByChannel })
	for i := range 5 {
		put(t, b, testbed.Key(i), 1)
	}
	for i := range 5 {
		msg := receive(t, messages)
		wantName(t, msg, testbed.Key(i)+"/1")
		if i == 2 {
			receiveNone(t, messages, 100*time.Millisecond)
		}
		msg.Ack()
	}
}

func TestUnordered_delivers_a_key_side_by_side(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.Ordering = subscriber.Unordered })
	put(t, b, "a", 1, 2, 3)
	var held []*message.Message
	for range 3 {
		held = append(held, receive(t, messages))
	}
	for _, msg := range held {
		msg.Ack()
	}
}

func TestL8_failing_message_holds_back_only_its_key_and_the_checkpoint(t *testing.T) {
	t.Parallel()
	b := testbed.New(t, emulator.Options{})
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	// Before anything is read: a page that is read while a record is being written tells the
	// record's own time as the one up to which nothing more comes, and may be committed.
	put(t, b, "poison", 1, 2)
	for i := range 300 {
		put(t, b, testbed.Key(i), 1)
	}
	_, messages := subscribe(t, b, nil)
	poisoned, others := 0, 0
	var changed time.Time
	for others < 300 || poisoned < 5 {
		msg := receive(t, messages)
		r, _ := ots.RecordFromMessage(msg)
		if r.PrimaryKey[0].Value.String() == "poison" {
			wantName(t, msg, "poison/1")
			changed = time.UnixMicro(r.Sequence.Timestamp)
			poisoned++
			msg.Nack()
			continue
		}
		others++
		msg.Ack()
	}
	time.Sleep(200 * time.Millisecond) // several checkpoint intervals
	for channel, at := range b.Committed(id) {
		if !at.Before(changed) {
			t.Errorf("L1: channel %s is committed up to %v, the failing record is of %v", channel, at, changed)
		}
	}
}

func TestMessageContext_ends_with_the_settlement_and_outlives_the_subscription_context(t *testing.T) {
	t.Parallel()
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, err := subscriber.New(testbed.Config(b.Emulator.Endpoint()), testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, "value"))
	defer cancel()
	messages, err := s.Subscribe(ctx, testbed.Topic)
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, "a", 1)
	put(t, b, "b", 1)
	first, second := receive(t, messages), receive(t, messages)
	if got := first.Context().Value(key{}); got != "value" {
		t.Errorf("the value of Subscribe's context is %v in the message's", got)
	}
	first.Ack()
	<-first.Context().Done()
	if cause := context.Cause(first.Context()); !errors.Is(cause, subscriber.ErrSettled) {
		t.Errorf("cause after the ack is %v", cause)
	}
	cancel()
	receiveEnd := time.After(300 * time.Millisecond)
	select {
	case <-second.Context().Done():
		t.Fatalf("the context of an unsettled message ended with Subscribe's: %v", context.Cause(second.Context()))
	case <-messages:
		t.Fatal("the output closed although a message is unsettled")
	case <-receiveEnd:
	}
	second.Ack()
	if _, open := <-messages; open {
		t.Error("a message came after the context ended")
	}
}

func TestL6_in_flight_records_stay_within_MaxInFlight_and_a_page(t *testing.T) {
	t.Parallel()
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	b.PutAll(1000, 3)
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.MaxInFlight = 100 })
	var mu sync.Mutex
	var held []*message.Message
	for range 100 { // at least that many are delivered without any ack
		msg := receive(t, messages)
		mu.Lock()
		held = append(held, msg)
		mu.Unlock()
	}
	reads := b.Emulator.Stats().Operations["tunnel/readrecords"].Requests
	time.Sleep(300 * time.Millisecond)
	if more := b.Emulator.Stats().Operations["tunnel/readrecords"].Requests; more != reads {
		t.Errorf("%d reads were made although the window is full", more-reads)
	}
	for _, msg := range held {
		msg.Ack()
	}
	for n := len(held); n < 3000; n++ { // reading starts again by itself
		receive(t, messages).Ack()
	}
}
