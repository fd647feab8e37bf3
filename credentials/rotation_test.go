package credentials

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/publisher"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// sessions accepts requests that are signed with a session of cloud and carry its token,
// and counts the sessions.
type sessions struct {
	testing.TB
	cloud *cloud
	base  http.RoundTripper
	mu    sync.Mutex
	seen  map[string]int
}

func (s *sessions) RoundTrip(req *http.Request) (*http.Response, error) {
	id, token := req.Header.Get("x-ots-accesskeyid"), req.Header.Get("x-ots-ststoken")
	s.cloud.mu.Lock()
	given, known := s.cloud.given[id]
	s.cloud.mu.Unlock()
	if !known || given != token {
		s.Errorf("%s is signed by %q with the token %q", req.URL.Path, id, token)
	}
	s.mu.Lock()
	s.seen[id]++
	s.mu.Unlock()
	return s.base.RoundTrip(req)
}

// A publisher and a subscriber share a provider whose sessions change every few
// milliseconds. No message is lost, and no request mixes two sessions.
func TestRotation_under_load(t *testing.T) {
	nowhere(t)
	metadata := newCloud(t, httptest.NewServer)
	metadata.valid = lasts - time.Second // each request gets other keys
	p := provider(t, Config{Proxy: metadata.URL, RoleName: "worker-role"})
	p.lasts = time.Minute + 5*time.Millisecond // clients ask again a minute before the end

	em, err := emulator.Start(emulator.Options{}) // which accepts any keys
	if err != nil {
		t.Fatal(err)
	}
	defer em.Close()
	base := new(http.Transport)
	defer base.CloseIdleConnections()
	requests := &sessions{TB: t, cloud: metadata, base: base, seen: make(map[string]int)}
	pub, err := publisher.New(publisher.Config{Endpoint: em.Endpoint(), Instance: "i", Credentials: p, Transport: requests, CreateTables: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer pub.Close()
	sub, err := subscriber.New(subscriber.Config{
		Endpoint: em.Endpoint(), Instance: "i", Credentials: p, Transport: requests, Unmarshaler: publisher.Unmarshaler{},
		MaxPollInterval: 5 * time.Millisecond, CheckpointInterval: 5 * time.Millisecond,
		SignatureVersion: ots.SignatureV4, Region: "cn-hangzhou", Tunnel: subscriber.TunnelSpec{Type: subscriber.BaseAndStream},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if err := pub.CreateTable(context.Background(), "events"); err != nil {
		t.Fatal(err)
	}
	if err := sub.SubscribeInitialize("events/all"); err != nil {
		t.Fatal(err)
	}
	messages, err := sub.Subscribe(context.Background(), "events/all")
	if err != nil {
		t.Fatal(err)
	}

	const rotations = 20
	stop := make(chan struct{})
	published := make(chan int)
	go func() { // ends with stop
		n := 0
		for {
			select {
			case <-stop:
				published <- n
				return
			default:
			}
			if err := pub.Publish("events", message.NewMessage(fmt.Sprint(n), nil)); err != nil {
				t.Errorf("message %d: %v", n, err)
			}
			n++
		}
	}()
	received := make(map[string]bool)
	give := time.After(time.Minute)
	total := -1
	for stopped := stop; total < 0 || len(received) < total; {
		select {
		case msg := <-messages:
			received[msg.UUID] = true
			msg.Ack()
		case total = <-published:
		case <-give:
			t.Fatalf("%d of %d messages after a minute", len(received), total)
		}
		requests.mu.Lock()
		enough := len(requests.seen) >= rotations
		requests.mu.Unlock()
		if enough && stopped != nil {
			close(stopped)
			stopped = nil
		}
	}
	requests.mu.Lock()
	defer requests.mu.Unlock()
	t.Logf("%d messages, %d sessions signed requests", total, len(requests.seen))
}
