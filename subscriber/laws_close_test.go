package subscriber_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestL7_Close_waits_neither_for_a_pause_nor_for_a_service_that_fails(t *testing.T) {
	for name, fault := range map[string]emulator.Fault{
		"in the pause between sessions":         {Operation: "tunnel/connect", Code: tunnel.ErrCodeServerUnavailable, Times: -1},
		"in the pause before a checkpoint read": {Operation: "tunnel/getcheckpoint", Code: tunnel.ErrCodeServerUnavailable, Times: -1},
	} {
		t.Run(name, func(t *testing.T) {
			b := testbed.New(t, emulator.Options{})
			b.CreateTunnel(tunnel.TunnelTypeStream)
			b.Emulator.Inject(fault)
			long := func() backoff.BackOff { return backoff.NewConstantBackOff(time.Hour) }
			s, _ := subscribe(t, b, func(c *subscriber.Config) { c.ReconnectBackoff, c.ReadBackoff = long, long })
			testbed.Eventually(t, 10*time.Second, "the call failed", func() bool { return b.Emulator.Stats().Faults > 0 })
			time.Sleep(100 * time.Millisecond) // it pauses
			began := time.Now()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("Close took %v", took)
			}
		})
	}
}

func TestL7_Close_counts_the_unsettled_messages_of_all_channels(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	if err := b.Emulator.SplitAt(testbed.Table, "m"); err != nil {
		t.Fatal(err)
	}
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, func(c *subscriber.Config) { c.CloseTimeout = 50 * time.Millisecond })
	put(t, b, "a", 1)
	put(t, b, "z", 1)
	receive(t, messages)
	receive(t, messages)
	if err := s.Close(); !errors.Is(err, subscriber.ErrDrainTimeout) || !strings.Contains(err.Error(), "2 messages still unsettled") {
		t.Errorf("Close with two unsettled messages returned %v", err)
	}
}

func TestL7_Close_counts_unsettled_messages_when_a_commit_hangs(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/checkpoint", Hang: true, Times: -1})
	s, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.CloseTimeout = 50 * time.Millisecond
		c.HeartbeatInterval, c.HeartbeatTimeout = 30*time.Second, 300*time.Second // also the call's own bound
	})
	put(t, b, "a", 1)
	first := receive(t, messages)
	put(t, b, "b", 1) // in a page of its own
	receive(t, messages)
	first.Ack()
	testbed.Eventually(t, 5*time.Second, "a commit hangs", func() bool { return b.Emulator.Stats().Faults > 0 })
	if err := s.Close(); !errors.Is(err, subscriber.ErrDrainTimeout) {
		t.Errorf("Close with an unsettled message returned %v", err)
	}
}

func TestL7_client_is_ended_although_the_first_shutdown_call_fails(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	long := func(c *subscriber.Config) { c.HeartbeatInterval, c.HeartbeatTimeout = 30*time.Second, 300*time.Second }
	s, messages := subscribe(t, b, long)
	put(t, b, "a", 1)
	receive(t, messages).Ack()
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/shutdown", Code: tunnel.ErrCodeServerUnavailable})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, b, "b", 1)
	_, messages = subscribe(t, b, long)
	receive(t, messages).Ack() // within 10 s: only an ended client frees its channels so soon
}

func TestL7_Close_leaves_no_connection_behind(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	service, err := url.Parse(b.Emulator.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	var open atomic.Int32
	front := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(service))
	front.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	front.Start()
	defer front.Close()
	s, messages := subscribe(t, b, func(c *subscriber.Config) { c.Endpoint = front.URL })
	put(t, b, "a", 1)
	receive(t, messages).Ack()
	if open.Load() == 0 {
		t.Fatal("the subscriber has no connection")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, 5*time.Second, "all connections are closed", func() bool { return open.Load() == 0 })
}
