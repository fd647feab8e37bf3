package health_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/health"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// snapshot returns the answer of /status.json.
func snapshot(t *testing.T, h http.Handler) (s health.Snapshot) {
	t.Helper()
	if err := json.Unmarshal(get(h, "/status.json").Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestHealth_follows_a_pipeline_from_its_start_to_its_end(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.HeartbeatTimeout = 30 * time.Second
	sub, err := subscriber.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	held, release := make(chan struct{}), make(chan struct{})
	batches, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{"default": {Size: 1, Concurrency: 2, Handler: func(_ context.Context, b *batching.Batch) error {
		switch b.Messages[0].Metadata.Get(subscriber.MetadataKey) {
		case `["poison"]`:
			return errors.New("no such customer")
		case `["held"]`:
			close(held)
			<-release
		}
		return nil
	}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	router.AddMiddleware(batches.Middleware)
	router.AddConsumerHandler("changes", testbed.Topic, sub, func(*message.Message) error { return nil })
	h := newHealth(t, sub)
	h.AddBatching("changes", batches)

	if w := get(h, "/readyz"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("before it runs: %d %s", w.Code, w.Body)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- router.Run(context.Background()) }() // ends with Close below
	<-router.Running()
	testbed.Eventually(t, 20*time.Second, "it is ready", func() bool { return get(h, "/readyz").Code == http.StatusOK })

	for _, key := range []string{"poison", "good", "held"} {
		if err := b.Put(key, 1); err != nil {
			t.Fatal(err)
		}
	}
	<-held
	testbed.Eventually(t, 20*time.Second, "the poisoned record is reported", func() bool {
		s := snapshot(t, h)
		f := s.Subscribers[0].Subscriptions[0].Failing
		return len(f) == 1 && f[0].Key == `["poison"]` && f[0].Attempts > 1 && s.Batchings[0].Batchers[0].Failed > 1
	})
	if s := snapshot(t, h); !s.Ready || !s.Live || s.Batchings[0].Name != "changes" || s.Batchings[0].Batchers[0].Running != 1 {
		t.Errorf("while it works: %+v", s)
	}
	closed := make(chan error, 1)
	go func() { closed <- router.Close() }() // ends when the held message is released
	testbed.Eventually(t, 20*time.Second, "it is not ready: it closes", func() bool { return get(h, "/readyz").Code == http.StatusServiceUnavailable })
	if s := snapshot(t, h); !s.Live {
		t.Errorf("a drain is nothing to restart for: %v", s.NotLive)
	}
	close(release)
	if err := errors.Join(<-closed, <-stopped, batches.Close()); err != nil {
		t.Error(err)
	}
	if s := snapshot(t, h); s.Ready || !s.Live {
		t.Errorf("after its end: %+v", s)
	}
}
