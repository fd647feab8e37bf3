package subscriber_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"go.uber.org/goleak"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// TestSubscribe_bad_input asserts that each fault gives one error at once that
// names what is wrong and can be distinguished.
func TestSubscribe_bad_input(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	for _, tc := range []struct {
		name   string
		topic  string
		change func(*subscriber.Config)
		is     error
		says   []string
	}{
		{name: "no slash in the topic", topic: "orders", is: subscriber.ErrTopic, says: []string{`"orders"`, "table/tunnel"}},
		{name: "no table in the topic", topic: "/changes", is: subscriber.ErrTopic, says: []string{"table's name is empty"}},
		{name: "no tunnel in the topic", topic: "orders/", is: subscriber.ErrTopic, says: []string{"tunnel's name is empty"}},
		{name: "unknown table", topic: "nowhere/" + testbed.Tunnel, is: ots.ErrTunnelGone, says: []string{"nowhere/" + testbed.Tunnel, `no table "nowhere"`, "check the topic"}},
		{name: "unknown tunnel", topic: testbed.Table + "/nothing", is: ots.ErrTunnelGone, says: []string{testbed.Table + "/nothing", "exists and the tunnel does not", "SubscribeInitialize"}},
		{name: "wrong secret", change: func(c *subscriber.Config) { c.AccessKeySecret = "wrong-secret" }, is: ots.ErrAuth, says: []string{"AccessKeySecret", testbed.Topic}},
		{name: "wrong key", change: func(c *subscriber.Config) { c.AccessKeyID = "wrong-id" }, is: ots.ErrAuth, says: []string{"AccessKeyID", testbed.Topic}},
		{name: "wrong instance", change: func(c *subscriber.Config) { c.Instance = "elsewhere" }, is: ots.ErrAuth, says: []string{"elsewhere"}},
		{name: "tunnel of another type", change: func(c *subscriber.Config) { c.Tunnel.Type = subscriber.BaseData }, is: subscriber.ErrTunnelType, says: []string{"Stream", "BaseData", testbed.Topic}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := testbed.Config(b.Emulator.Endpoint())
			if tc.change != nil {
				tc.change(&cfg)
			}
			s, err := subscriber.New(cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			topic := tc.topic
			if topic == "" {
				topic = testbed.Topic
			}
			began := time.Now()
			messages, err := s.Subscribe(t.Context(), topic)
			if err == nil || messages != nil {
				t.Fatalf("Subscribe returned %v, %v", messages, err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("the error took %v", took)
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("%v is not %v", err, tc.is)
			}
			for _, want := range tc.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
			for _, secret := range []string{testbed.KeySecret, "wrong-secret"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error shows a secret: %v", err)
				}
			}
		})
	}
}

func TestSubscribe_after_Close_is_refused(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, err := subscriber.New(testbed.Config(b.Emulator.Endpoint()), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Subscribe(t.Context(), testbed.Topic); !errors.Is(err, subscriber.ErrClosed) {
		t.Errorf("Subscribe after Close returned %v", err)
	}
	if err := s.SubscribeInitialize(testbed.Topic); !errors.Is(err, subscriber.ErrClosed) {
		t.Errorf("SubscribeInitialize after Close returned %v", err)
	}
}

func TestSubscribeInitialize_creates_the_tunnel_once(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.Tunnel = subscriber.TunnelSpec{Type: subscriber.BaseData}
	s, err := subscriber.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var group sync.WaitGroup
	for range 4 { // the second one finds it made
		group.Add(1)
		go func() {
			defer group.Done()
			if err := s.SubscribeInitialize(testbed.Topic); err != nil {
				t.Error(err)
			}
		}()
	}
	group.Wait()
	d, err := b.Tunnels.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: testbed.Table, TunnelName: testbed.Tunnel})
	if err != nil {
		t.Fatal(err)
	}
	if d.Tunnel.TunnelType != "BaseData" {
		t.Errorf("the tunnel's type is %s", d.Tunnel.TunnelType)
	}
	if err := s.SubscribeInitialize("nowhere/" + testbed.Tunnel); !errors.Is(err, ots.ErrTunnelGone) {
		t.Errorf("a tunnel of a missing table: %v", err)
	}
}

func TestL5_base_data_ends_after_everything_is_acked_and_the_finish_token_is_committed(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.PutAll(500, 1)
	b.CreateTunnel(tunnel.TunnelTypeBaseData)
	_, messages := subscribe(t, b, nil)
	var last *message.Message
	for range 500 {
		if last != nil {
			last.Ack()
		}
		last = receive(t, messages)
	}
	time.Sleep(500 * time.Millisecond) // several heartbeats and checkpoint intervals
	if got := channelStatus(t, b); got["TERMINATED"] > 0 {
		t.Errorf("a channel ended while a message was unsettled: %v", got)
	}
	last.Ack()
	testbed.Eventually(t, 5*time.Second, "the base channel is TERMINATED", func() bool { return channelStatus(t, b)["TERMINATED"] == 1 })
	awaitClosed(t, messages)
}

func channelStatus(t *testing.T, b *testbed.Bed) map[string]int {
	t.Helper()
	d, err := b.Tunnels.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: testbed.Table, TunnelName: testbed.Tunnel})
	if err != nil {
		t.Fatal(err)
	}
	count := make(map[string]int)
	for _, c := range d.Channels {
		count[c.ChannelStatus]++
	}
	return count
}

func TestBaseAndStream_delivers_the_rows_and_then_the_changes(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.PutAll(300, 1)
	b.CreateTunnel(tunnel.TunnelTypeBaseStream)
	put(t, b, "later", 1, 2)
	_, messages := subscribe(t, b, nil)
	base := make(map[string]bool)
	deadline := time.After(10 * time.Second)
	for stream := 0; stream < 2; {
		select {
		case msg := <-messages:
			r, _ := ots.RecordFromMessage(msg)
			if r.Sequence.IsZero() {
				if stream > 0 {
					t.Errorf("base row %s came after a change", name(msg))
				}
				base[r.PrimaryKey[0].Value.String()] = true
			} else {
				stream++
			}
			msg.Ack()
		case <-deadline:
			t.Fatalf("%d base rows and %d changes within 10s", len(base), stream)
		}
	}
	if len(base) < 300 {
		t.Errorf("%d of 300 rows were delivered", len(base))
	}
}

func TestL7_Close_lets_messages_finish_commits_and_frees_the_channels_at_once(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) }) // after everything else is closed
	b := testbed.New(t, emulator.Options{})
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.HeartbeatInterval, c.HeartbeatTimeout = 30*time.Second, 300*time.Second
		c.CheckpointInterval = time.Hour // only the drain commits
	})
	put(t, b, "a", 1)
	put(t, b, "b", 1)
	first, second := receive(t, messages), receive(t, messages)
	put(t, b, "c", 1) // is read, never delivered
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		t.Fatalf("Close returned %v while messages were unsettled", err)
	case <-time.After(200 * time.Millisecond):
	}
	if first.Context().Err() != nil {
		t.Error("a message's context ended while draining")
	}
	first.Ack()
	second.Ack()
	if err := <-closed; err != nil {
		t.Fatalf("Close: %v", err)
	}
	for msg := range messages {
		t.Errorf("delivered while draining: %s", name(msg))
		msg.Nack()
	}
	r, _ := ots.RecordFromMessage(second)
	for channel, at := range b.Committed(id) {
		if at.Before(time.UnixMicro(r.Sequence.Timestamp)) {
			t.Errorf("channel %s is committed up to %v, the acked record is of %v", channel, at, time.UnixMicro(r.Sequence.Timestamp))
		}
	}
	// The heartbeat timeout is 300 s: only a client that was ended frees its channels.
	began := time.Now()
	_, messages = subscribe(t, b, nil)
	msg := receive(t, messages)
	wantName(t, msg, "c/1")
	msg.Ack()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("another subscription got the channel after %v", took)
	}
}

func TestL7_Close_gives_up_after_CloseTimeout_and_says_what_is_unsettled(t *testing.T) {
	t.Parallel()
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, func(c *subscriber.Config) { c.CloseTimeout = 300 * time.Millisecond })
	put(t, b, "a", 1)
	msg := receive(t, messages)
	began := time.Now()
	err := s.Close()
	if took := time.Since(began); took < 300*time.Millisecond || took > 5*time.Second {
		t.Errorf("Close took %v", took)
	}
	if !errors.Is(err, subscriber.ErrDrainTimeout) || !strings.Contains(err.Error(), testbed.Topic) {
		t.Errorf("Close returned %v", err)
	}
	select {
	case <-msg.Context().Done():
	default:
		t.Error("the message's context still lives after Close")
	}
	if cause := context.Cause(msg.Context()); !errors.Is(cause, subscriber.ErrDrainTimeout) {
		t.Errorf("its cause is %v", cause)
	}
	msg.Ack() // changes nothing: the record is redelivered
	_, messages = subscribe(t, b, nil)
	again := receive(t, messages)
	wantName(t, again, "a/1")
	again.Ack()
}

func TestChannels_move_to_a_second_subscriber_after_what_is_in_flight_is_settled(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.PutAll(20, 1)
	if err := b.Emulator.Split(testbed.Table); err != nil {
		t.Fatal(err)
	}
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, one := subscribe(t, b, nil)
	for i := range 20 {
		put(t, b, testbed.Key(i), 2)
	}
	channels := make(map[string]bool)
	for range 20 {
		msg := receive(t, one)
		r, _ := ots.RecordFromMessage(msg)
		channels[r.Channel] = true
		msg.Ack()
	}
	if len(channels) != 2 {
		t.Fatalf("the first subscriber has %d channels, want 2", len(channels))
	}
	_, two := subscribe(t, b, nil)
	seen := make(map[string]int)
	for version := 3; seen["two"] == 0; version++ {
		if version > 100 {
			t.Fatal("the second subscriber got no channel")
		}
		for i := range 20 {
			put(t, b, testbed.Key(i), version)
		}
		for range 20 {
			select {
			case msg := <-one:
				seen["one"]++
				msg.Ack()
			case msg := <-two:
				seen["two"]++
				msg.Ack()
			case <-time.After(10 * time.Second):
				t.Fatalf("version %d: a record is missing, seen %v", version, seen)
			}
		}
	}
}

func TestSubscription_ends_and_tells_why_when_its_tunnel_is_deleted(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, nil)
	put(t, b, "a", 1)
	receive(t, messages).Ack()
	if _, err := b.Tunnels.DeleteTunnel(&tunnel.DeleteTunnelRequest{TableName: testbed.Table, TunnelName: testbed.Tunnel}); err != nil {
		t.Fatal(err)
	}
	select {
	case msg, open := <-messages:
		if open {
			t.Fatalf("message %s of a deleted tunnel", name(msg))
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the output did not close")
	}
	if err := s.Err(); !errors.Is(err, ots.ErrTunnelGone) || !strings.Contains(err.Error(), testbed.Topic) {
		t.Errorf("Err returned %v", err)
	}
}

func TestInitialize_of_a_missing_table_says_that_the_table_must_exist(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	s, err := subscriber.New(testbed.Config(b.Emulator.Endpoint()), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	err = s.Initialize(t.Context(), "nowhere/"+testbed.Tunnel)
	if !errors.Is(err, ots.ErrTunnelGone) || !strings.Contains(err.Error(), "the table must exist") || strings.Contains(err.Error(), "SubscribeInitialize") {
		t.Errorf("got %v", err)
	}
}
