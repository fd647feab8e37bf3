package laws

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

var handoverSDK = flag.Duration("handover.sdk", 0, "measure the SDK's own worker at this HeartbeatInterval too, and ours at the same and, at a rebalance, at its default")

// handoverLimit is how long a hand-over may take in this test. The aim is 2 s
// on an idle machine; tests run on busy ones.
const handoverLimit = 6 * time.Second

// extraHeartbeats is how many heartbeats a hand-over may cost in addition to
// the client's first ones.
const extraHeartbeats = 12

// event is a record that a consumer has finished.
type event struct {
	at      time.Time
	channel string
	base    bool
}

// events collects events; its methods may be called concurrently.
type events struct {
	mu  sync.Mutex
	all []event
}

func (e *events) add(channel string, base bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event{time.Now(), channel, base})
}

func (e *events) len() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.all)
}

// first returns the time of the first event.
func (e *events) first() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.all[0].at
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

// worker is a tunnel client that consumes: our subscriber, or the SDK's own worker.
type worker struct {
	interval time.Duration // between heartbeats
	sdk      bool
}

func (w worker) String() string {
	name := "ours"
	if w.sdk {
		name = "the SDK's worker"
	}
	return fmt.Sprintf("%s at a HeartbeatInterval of %v", name, w.interval)
}

// start runs the worker until the test ends. Its requests go through rt, unless
// that is nil.
func (w worker) start(t *testing.T, b *testbed.Bed, tunnelID string, rt http.RoundTripper, to *events) {
	t.Helper()
	if w.sdk {
		w.startSDK(t, b, tunnelID, rt, to)
		return
	}
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.HeartbeatInterval, cfg.HeartbeatTimeout, cfg.Transport = w.interval, 300*time.Second, rt
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
			r, _ := ots.RecordFromMessage(msg)
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

func (w worker) startSDK(t *testing.T, b *testbed.Bed, tunnelID string, rt http.RoundTripper, to *events) {
	t.Helper()
	conf := *tunnel.DefaultTunnelConfig
	if rt != nil {
		conf.Transport = rt
	}
	client := tunnel.NewTunnelClientWithConfig(b.Emulator.Endpoint(), testbed.Instance, testbed.KeyID, testbed.KeySecret, &conf)
	daemon := tunnel.NewTunnelDaemon(client, tunnelID, &tunnel.TunnelWorkerConfig{
		HeartbeatInterval: w.interval, HeartbeatTimeout: 300 * time.Second,
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
func baseToStream(t *testing.T, w worker) (gap time.Duration, beats int64) {
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
	w.start(t, b, id, nil, seen)
	ok := false
	testbed.Eventually(t, 2*time.Minute, "a change follows the base data", func() bool {
		gap, ok = seen.gap(func(e event) bool { return e.base })
		return ok
	})
	return gap, heartbeats(b)
}

// atSplit measures how long records wait because of a partition's split.
func atSplit(t *testing.T, w worker) (gap time.Duration, beats int64) {
	b := testbed.New(t, emulator.Options{})
	b.PutAll(100, 1)
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	seen := new(events)
	w.start(t, b, id, nil, seen)
	b.PutAll(100, 2)
	testbed.Eventually(t, time.Minute, "the parent is read", func() bool { return seen.len() >= 100 })
	time.Sleep(5 * time.Second) // until the heartbeats of the start are over
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

// TestHandover_is_prompt_at_any_HeartbeatInterval checks that the service
// learns of an ended channel, and that the channels after it are read, long
// before the next regular heartbeat, which is 30 s away.
func TestHandover_is_prompt_at_any_HeartbeatInterval(t *testing.T) {
	t.Parallel() // it waits in real time
	regular := worker{interval: subscriber.DefaultHeartbeatInterval}
	for _, tc := range []struct {
		name    string
		measure func(*testing.T, worker) (time.Duration, int64)
	}{{"from_base_data_to_stream", baseToStream}, {"at_a_split", atSplit}} {
		measure := func(t *testing.T, w worker) (time.Duration, int64) {
			gap, beats := tc.measure(t, w)
			t.Logf("%v: %v, %d heartbeats", w, gap.Round(time.Millisecond), beats)
			return gap, beats
		}
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			gap, beats := measure(t, regular)
			if gap > handoverLimit {
				t.Errorf("the hand-over took %v", gap)
			}
			if beats > extraHeartbeats {
				t.Errorf("%d heartbeats were sent", beats)
			}
		})
		if *handoverSDK > 0 {
			t.Run(tc.name+"_beside_the_SDK", func(t *testing.T) {
				measure(t, worker{interval: *handoverSDK})
				measure(t, worker{interval: *handoverSDK, sdk: true})
			})
		}
	}
}
