package subscriber_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// awaitClosed wants the output to be closed, and no message before.
func awaitClosed(t *testing.T, messages <-chan *message.Message) {
	t.Helper()
	select {
	case msg, open := <-messages:
		if open {
			t.Fatalf("unexpected message %s", name(msg))
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the output is not closed within 20s")
	}
}

// wantFinished wants a subscription that has ended well.
func wantFinished(t *testing.T, s *subscriber.Subscriber, acked uint64) {
	t.Helper()
	st := only(t, s)
	if !st.Ended || !st.Finished || st.Fatal != "" || st.Totals.Acked != acked {
		t.Errorf("the status is %+v, want Ended, Finished and %d acked", st, acked)
	}
	if err := s.Err(); err != nil {
		t.Errorf("Err is %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestFinish_base_data_that_are_read_end_the_subscription_of_every_process(t *testing.T) {
	t.Parallel()
	b := testbed.New(t, emulator.Options{})
	if err := b.Emulator.SplitAt(testbed.Table, testbed.Key(30), testbed.Key(60)); err != nil {
		t.Fatal(err)
	}
	b.PutAll(100, 1)
	b.CreateTunnel(tunnel.TunnelTypeBaseData)
	log := watermill.NewCaptureLogger()
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.WorkerSize = 2
	s, err := subscriber.New(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	done, err := s.Handle(t.Context(), testbed.Topic, func(*message.Message) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the subscription has not ended")
	}
	wantFinished(t, s, 100)
	said := slices.ContainsFunc(log.Captured()[watermill.InfoLogLevel], func(m watermill.CapturedMessage) bool {
		return m.Msg == "Tunnel was read to its end; the subscription ends" && m.Fields["topic"] == testbed.Topic
	})
	if errs := log.Captured()[watermill.ErrorLogLevel]; !said || len(errs) > 0 {
		t.Errorf("the end was said: %v; errors: %v", said, errs)
	}

	// A job that is started again finds nothing to do.
	again, messages := subscribe(t, b, nil)
	awaitClosed(t, messages)
	wantFinished(t, again, 0)
}

func TestFinish_process_without_a_channel_ends_too_and_none_before_the_last_ack(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.PutAll(3, 1)
	b.CreateTunnel(tunnel.TunnelTypeBaseData)
	one, messages := subscribe(t, b, nil)
	first := receive(t, messages)
	two, none := subscribe(t, b, nil)
	receive(t, messages).Ack()
	last := receive(t, messages)
	first.Ack()
	receiveNone(t, none, time.Second) // several looks
	last.Ack()
	awaitClosed(t, messages)
	awaitClosed(t, none)
	wantFinished(t, one, 3)
	wantFinished(t, two, 0)
}

func TestFinish_tunnel_with_an_end_ends_after_it_although_a_partition_splits(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for heartbeats, in real time; -short leaves it out")
	}
	t.Parallel() // it waits for heartbeats, in real time
	b := testbed.New(t, emulator.Options{})
	cfg := testbed.Config(b.Emulator.Endpoint())
	end := time.Now().Add(2 * time.Second)
	cfg.Tunnel = subscriber.TunnelSpec{Type: subscriber.Stream, End: end}
	s, err := subscriber.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.SubscribeInitialize(testbed.Topic); err != nil {
		t.Fatal(err)
	}
	messages, err := s.Subscribe(context.Background(), testbed.Topic)
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, "a", 1)
	receive(t, messages).Ack()
	if err := b.Emulator.Split(testbed.Table); err != nil {
		t.Fatal(err)
	}
	put(t, b, "a", 2)
	receive(t, messages).Ack()
	awaitClosed(t, messages)
	if early := time.Until(end); early > 0 {
		t.Errorf("the subscription ended %v before the tunnel's end", early)
	}
	wantFinished(t, s, 2)
}
