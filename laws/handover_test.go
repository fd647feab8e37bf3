package laws

import (
	"context"
	"flag"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

var handoverSDK = flag.Duration("handover.sdk", 0, "measure the SDK's own worker at this HeartbeatInterval too, and ours at the same")

// handoverLimit is what a hand-over may take here. The aim is 2 s on an idle
// machine; tests run on busy ones.
const handoverLimit = 6 * time.Second

// extraHeartbeats is what a hand-over may cost in heartbeats beside the first
// ones of the client.
const extraHeartbeats = 12

// event is a record that a consumer was done with.
type event struct {
	at      time.Time
	channel string
	base    bool
}

// events collects events; its methods may be called from any goroutine.
type events struct {
	mu  sync.Mutex
	all []event
}

func (e *events) add(channel string, base bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event{time.Now(), channel, base})
}

// gap returns the time between the last event of the first kind and the first one of the other.
func (e *events) gap(first func(event) bool) (gap time.Duration, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var last, next time.Time
	for _, ev := range e.all {
		if first(ev) {
			last = ev.at
		} else if next.IsZero() {
			next = ev.at
		}
	}
	return next.Sub(last), !last.IsZero() && !next.IsZero()
}

// consumeOurs runs our subscriber until the test ends.
func consumeOurs(t *testing.T, b *testbed.Bed, interval time.Duration, to *events) {
	t.Helper()
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.HeartbeatInterval, cfg.HeartbeatTimeout = interval, 300*time.Second
	s, err := subscriber.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := s.Subscribe(context.Background(), testbed.Topic)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { // ends when the output is closed
		defer close(done)
		for msg := range messages {
			r, _ := subscriber.RecordFromMessage(msg)
			to.add(r.Channel, r.Sequence.IsZero())
			msg.Ack()
		}
	}()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
}

// consumeSDK runs the SDK's own worker until the test ends.
func consumeSDK(t *testing.T, b *testbed.Bed, tunnelID string, interval time.Duration, to *events) {
	t.Helper()
	client := tunnel.NewTunnelClient(b.Emulator.Endpoint(), testbed.Instance, testbed.KeyID, testbed.KeySecret)
	daemon := tunnel.NewTunnelDaemon(client, tunnelID, &tunnel.TunnelWorkerConfig{
		HeartbeatInterval: interval, HeartbeatTimeout: 300 * time.Second,
		LogConfig: &tunnel.DefaultLogConfig, LogWriteSyncer: zapcore.AddSync(io.Discard),
		ProcessorFactory: &tunnel.SimpleProcessFactory{Logger: zap.NewNop(), ProcessFunc: func(c *tunnel.ChannelContext, records []*tunnel.Record) error {
			for _, r := range records {
				to.add(c.ChannelId, r.SequenceInfo == nil)
			}
			return nil
		}},
	})
	done := make(chan error, 1)
	go func() { done <- daemon.Run() }() // ends with Close; awaited below
	t.Cleanup(func() {
		daemon.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func heartbeats(b *testbed.Bed) int64 {
	return b.Emulator.Stats().Operations["tunnel/heartbeat"].Requests
}

// baseToStream measures the switch from four base channels to the stream.
func baseToStream(t *testing.T, consume func(b *testbed.Bed, id string, to *events)) (gap time.Duration, beats int64) {
	b := testbed.New(t, emulator.Options{})
	b.PutAll(1000, 1)
	for range 3 {
		if err := b.Emulator.Split(testbed.Table); err != nil {
			t.Fatal(err)
		}
	}
	id := b.CreateTunnel(tunnel.TunnelTypeBaseStream)
	if err := b.Put("later", 1); err != nil {
		t.Fatal(err)
	}
	seen := new(events)
	consume(b, id, seen)
	ok := false
	testbed.Eventually(t, 2*time.Minute, "a change follows the base data", func() bool {
		gap, ok = seen.gap(func(e event) bool { return e.base })
		return ok
	})
	return gap, heartbeats(b)
}

// atSplit measures how long a partition's split keeps its records waiting.
func atSplit(t *testing.T, consume func(b *testbed.Bed, id string, to *events)) (gap time.Duration, beats int64) {
	b := testbed.New(t, emulator.Options{})
	b.PutAll(100, 1)
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	seen := new(events)
	consume(b, id, seen)
	b.PutAll(100, 2)
	testbed.Eventually(t, time.Minute, "the parent is read", func() bool {
		seen.mu.Lock()
		defer seen.mu.Unlock()
		return len(seen.all) >= 100
	})
	time.Sleep(5 * time.Second) // the heartbeats that the start brings are over
	before := heartbeats(b)
	seen.mu.Lock()
	parent := seen.all[0].channel
	seen.mu.Unlock()
	b.PutAll(100, 3)
	if err := b.Emulator.Split(testbed.Table); err != nil {
		t.Fatal(err)
	}
	b.PutAll(100, 4)
	ok := false
	testbed.Eventually(t, 2*time.Minute, "a child is read", func() bool {
		gap, ok = seen.gap(func(e event) bool { return e.channel == parent })
		return ok
	})
	return gap, heartbeats(b) - before
}

// TestHandover_is_prompt_at_any_HeartbeatInterval asserts that an ended channel is
// known to the service, and what follows it is read, long before the next
// regular heartbeat, which is 30 s away.
func TestHandover_is_prompt_at_any_HeartbeatInterval(t *testing.T) {
	ours := func(t *testing.T, interval time.Duration) func(*testbed.Bed, string, *events) {
		return func(b *testbed.Bed, _ string, to *events) { consumeOurs(t, b, interval, to) }
	}
	sdk := func(t *testing.T, interval time.Duration) func(*testbed.Bed, string, *events) {
		return func(b *testbed.Bed, id string, to *events) { consumeSDK(t, b, id, interval, to) }
	}
	for _, tc := range []struct {
		name    string
		measure func(*testing.T, func(*testbed.Bed, string, *events)) (time.Duration, int64)
	}{{"from_base_data_to_stream", baseToStream}, {"at_a_split", atSplit}} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			gap, beats := tc.measure(t, ours(t, subscriber.DefaultHeartbeatInterval))
			t.Logf("ours at a HeartbeatInterval of %v: %v, %d heartbeats", subscriber.DefaultHeartbeatInterval, gap.Round(time.Millisecond), beats)
			if gap > handoverLimit {
				t.Errorf("the hand-over took %v", gap)
			}
			if beats > extraHeartbeats {
				t.Errorf("%d heartbeats were sent", beats)
			}
		})
		if *handoverSDK > 0 {
			t.Run(tc.name+"_beside_the_SDK", func(t *testing.T) {
				gap, beats := tc.measure(t, ours(t, *handoverSDK))
				t.Logf("ours at a HeartbeatInterval of %v: %v, %d heartbeats", *handoverSDK, gap.Round(time.Millisecond), beats)
				gap, beats = tc.measure(t, sdk(t, *handoverSDK))
				t.Logf("the SDK's worker at a HeartbeatInterval of %v: %v, %d heartbeats", *handoverSDK, gap.Round(time.Millisecond), beats)
			})
		}
	}
}
