package subscriber

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"
)

// shortClose is the CloseTimeout of tests that wait for it in real time.
const shortClose = 200 * time.Millisecond

func TestL7_Close_is_bounded_although_OnAck_hangs(t *testing.T) {
	t.Parallel() // it waits in real time
	for _, way := range []string{"Subscribe", "Handle"} {
		t.Run(way, func(t *testing.T) {
			release, entered := make(chan struct{}), make(chan struct{}, 100)
			s := fakeSubscriber(t, fakeTunnel(3), func(c *Config) {
				c.CloseTimeout = shortClose
				c.OnAck = func(Acked) { entered <- struct{}{}; <-release }
			})
			if way == "Handle" {
				if _, err := s.Handle(t.Context(), "table/tunnel", func(*message.Message) error { return nil }); err != nil {
					t.Fatal(err)
				}
			} else {
				messages := subscribeTo(t, s)
				go func() {
					for m := range messages {
						m.Ack()
					}
				}()
			}
			<-entered
			closed, began := make(chan error, 1), time.Now()
			go func() { closed <- s.Close() }()
			select {
			case err := <-closed:
				t.Logf("Close took %v: %v", time.Since(began), err)
			case <-time.After(shortClose + 5*time.Second):
				t.Error("Close does not return within CloseTimeout + 5 s")
			}
			close(release)
			<-s.subscriptionsDone()
		})
	}
}

func TestOnAck_may_call_Close(t *testing.T) {
	t.Parallel()
	var s *Subscriber
	ready, closed := make(chan struct{}), make(chan struct{})
	s = fakeSubscriber(t, fakeTunnel(1), func(c *Config) {
		c.CloseTimeout = shortClose
		c.OnAck = func(Acked) { <-ready; _ = s.Close(); close(closed) }
	})
	messages := subscribeTo(t, s)
	close(ready)
	(<-messages).Ack()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("a Close in OnAck waits for ever for its own goroutine")
	}
}

func TestL7_Close_is_bounded_although_NackBackoff_hangs(t *testing.T) {
	t.Parallel() // it waits in real time
	release, entered := make(chan struct{}), make(chan struct{}, 100)
	s := fakeSubscriber(t, fakeTunnel(1), func(c *Config) {
		c.CloseTimeout = shortClose
		c.NackBackoff = func() backoff.BackOff { entered <- struct{}{}; <-release; return &backoff.ZeroBackOff{} }
	})
	messages := subscribeTo(t, s)
	(<-messages).Nack()
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case <-closed:
	case <-time.After(shortClose + 5*time.Second):
		t.Error("Close does not return within CloseTimeout + 5 s")
	}
	close(release)
	<-s.subscriptionsDone()
}

// subscriptionsDone waits until nothing runs any more, so that the test leaves no goroutine.
func (s *Subscriber) subscriptionsDone() <-chan struct{} {
	done := make(chan struct{})
	go func() { _ = s.Close(); close(done) }()
	return done
}
