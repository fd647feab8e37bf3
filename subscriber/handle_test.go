package subscriber_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// handling is a Handle of the test's tunnel, and the names of the messages that
// its handler was called with.
type handling struct {
	*subscriber.Subscriber
	done   <-chan struct{}
	cancel context.CancelFunc

	mu    sync.Mutex
	calls []string
}

func (h *handling) seen() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.calls)
}

// handle starts a Handle that ends with the test.
func handle(t *testing.T, b *testbed.Bed, change func(*subscriber.Config), f message.NoPublishHandlerFunc) *handling {
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
	h := &handling{Subscriber: s}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	t.Cleanup(cancel)
	h.done, err = s.Handle(ctx, testbed.Topic, func(msg *message.Message) error {
		h.mu.Lock()
		h.calls = append(h.calls, name(msg))
		h.mu.Unlock()
		return f(msg)
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHandle_acks_what_returns_nil_and_brings_again_in_order_what_failed(t *testing.T) {
	for _, tc := range []struct {
		name string
		fail func(msg *message.Message) error
	}{
		{"an_error", func(*message.Message) error { return errors.New("no") }},
		{"a_panic", func(*message.Message) error { panic("no") }},
		{"an_exit", func(*message.Message) error { runtime.Goexit(); return nil }},
		{"a_Nack_of_its_own", func(msg *message.Message) error { msg.Nack(); return nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := testbed.New(t, emulator.Options{})
			b.CreateTunnel(tunnel.TunnelTypeStream)
			var once sync.Once
			h := handle(t, b, nil, func(msg *message.Message) (err error) {
				failed := false
				if name(msg) == "a/2" {
					once.Do(func() { failed = true })
				}
				if failed {
					return tc.fail(msg)
				}
				return nil
			})
			put(t, b, "a", 1, 2, 3)
			testbed.Eventually(t, 10*time.Second, "all are handled", func() bool { return len(h.seen()) >= 4 })
			if got := h.seen(); !slices.Equal(got, []string{"a/1", "a/2", "a/2", "a/3"}) {
				t.Errorf("handled %v", got)
			}
		})
	}
}

func TestHandle_keeps_an_Ack_that_the_handler_gave_before_it_failed(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	h := handle(t, b, nil, func(msg *message.Message) error {
		msg.Ack()
		return errors.New("too late")
	})
	put(t, b, "a", 1, 2)
	testbed.Eventually(t, 10*time.Second, "both are handled", func() bool { return len(h.seen()) == 2 })
	if got := h.seen(); !slices.Equal(got, []string{"a/1", "a/2"}) {
		t.Errorf("handled %v", got)
	}
}

func TestHandle_lets_handlers_finish_when_its_context_ends(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	release := make(chan struct{})
	alive := make(chan error, 1)
	h := handle(t, b, nil, func(msg *message.Message) error {
		<-release
		alive <- msg.Context().Err()
		return nil
	})
	put(t, b, "a", 1)
	testbed.Eventually(t, 10*time.Second, "the handler runs", func() bool { return len(h.seen()) == 1 })
	h.cancel()
	select {
	case <-h.done:
		t.Fatal("done while a handler ran")
	case <-time.After(300 * time.Millisecond):
	}
	close(release)
	select {
	case <-h.done:
	case <-time.After(10 * time.Second):
		t.Fatal("not done although the handler has returned")
	}
	if err := <-alive; err != nil {
		t.Errorf("the message's context ended during the drain: %v", err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	_, messages := subscribe(t, b, nil) // the ack was committed
	put(t, b, "a", 2)
	next := receive(t, messages)
	wantName(t, next, "a/2")
	next.Ack() // or closing would wait for it
}

func TestHandle_leaves_a_handler_alone_that_goes_on_after_its_context(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	h := handle(t, b, func(c *subscriber.Config) { c.CloseTimeout = 200 * time.Millisecond }, func(*message.Message) error {
		<-release
		return nil
	})
	put(t, b, "a", 1)
	testbed.Eventually(t, 10*time.Second, "the handler runs", func() bool { return len(h.seen()) == 1 })
	closed := make(chan error, 1)
	go func() { closed <- h.Close() }()
	select {
	case err := <-closed:
		if !errors.Is(err, subscriber.ErrDrainTimeout) {
			t.Errorf("Close: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Close waits for a handler that never returns")
	}
}

func TestHandle_refuses_a_missing_handler_and_what_Subscribe_refuses(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	s, err := subscriber.New(testbed.Config(b.Emulator.Endpoint()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Handle(context.Background(), testbed.Topic, nil); err == nil || !strings.Contains(err.Error(), "handler is nil") {
		t.Errorf("without a handler: %v", err)
	}
	if _, err := s.Handle(context.Background(), testbed.Topic, func(*message.Message) error { return nil }); !errors.Is(err, ots.ErrTunnelGone) {
		t.Errorf("without a tunnel: %v", err)
	}
}

// TestHandle_handler_that_turns_slow_holds_nobody_up: quick handlers are called
// by the goroutine that hands out the records; one that blocks all of a sudden must
// not keep the records behind it from theirs.
func TestHandle_handler_that_turns_slow_holds_nobody_up(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	release := make(chan struct{})
	h := handle(t, b, nil, func(msg *message.Message) error {
		if name(msg) == "slow/1" {
			<-release
		}
		return nil
	})
	b.PutAll(2000, 1) // quick
	testbed.Eventually(t, 10*time.Second, "the quick ones are handled", func() bool { return len(h.seen()) == 2000 })
	put(t, b, "slow", 1)
	b.PutAll(500, 1)
	testbed.Eventually(t, 10*time.Second, "those behind the slow one are handled", func() bool { return len(h.seen()) == 2501 })
	put(t, b, "slow", 2)
	close(release)
	testbed.Eventually(t, 10*time.Second, "the slow one's successor is handled", func() bool { return len(h.seen()) == 2502 })
	h.cancel()
	<-h.done
}

func TestHandle_slow_handler_does_not_keep_the_channel_from_draining(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	h := handle(t, b, func(c *subscriber.Config) { c.CloseTimeout = 500 * time.Millisecond }, func(msg *message.Message) error {
		if name(msg) == "slow/1" {
			<-msg.Context().Done()
		}
		return nil
	})
	b.PutAll(2000, 1)
	testbed.Eventually(t, 10*time.Second, "the quick ones are handled", func() bool { return len(h.seen()) == 2000 })
	put(t, b, "slow", 1)
	testbed.Eventually(t, 10*time.Second, "the slow one is called", func() bool { return len(h.seen()) == 2001 })
	if err := h.Close(); !errors.Is(err, subscriber.ErrDrainTimeout) {
		t.Errorf("Close: %v", err)
	}
}
