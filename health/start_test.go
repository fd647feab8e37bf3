package health_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/health"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Subscribe retries a start without limit while the service cannot be reached. Within 15 s
// the page is red and names the topic and the cause.
func TestReady_names_the_cause_of_a_start_that_fails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close() // then it refuses connections
	s, err := subscriber.New(subscriber.Config{Endpoint: "http://" + addr, Instance: "inst", AccessKeyID: "id", AccessKeySecret: "secret"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := health.New(health.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h.AddSubscriber(s)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := s.Handle(ctx, "table/tunnel", func(*message.Message) error { return nil })
		ended <- err
	}()
	red := func() bool {
		snap := h.Snapshot()
		return !snap.Ready && snap.Live && snap.Fault && strings.Contains(strings.Join(snap.NotReady, " "), "table/tunnel: not connected: the service cannot be reached")
	}
	for deadline := time.Now().Add(15 * time.Second); !red(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 15 s: %+v", h.Snapshot())
		}
	}
	cancel()
	<-ended
	_ = s.Close()
}
