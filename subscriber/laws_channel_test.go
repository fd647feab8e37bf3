package subscriber_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"github.com/cenkalti/backoff/v4"
	"google.golang.org/protobuf/proto"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestL4_channel_is_fenced(t *testing.T) {
	t.Parallel() // it waits in real time
	for name, lose := range map[string]func(b *testbed.Bed, w *wire, first *message.Message){
		"when a checkpoint says that it is gone": func(b *testbed.Bed, _ *wire, first *message.Message) {
			b.Emulator.Inject(emulator.Fault{Operation: "tunnel/checkpoint", Code: tunnel.ErrCodeResourceGone})
			first.Ack() // is to be committed
		},
		"when the service says CLOSE":      func(_ *testbed.Bed, w *wire, _ *message.Message) { w.tell(protocol.ChannelStatus_CLOSE) },
		"when the service says TERMINATED": func(_ *testbed.Bed, w *wire, _ *message.Message) { w.tell(protocol.ChannelStatus_TERMINATED) },
	} {
		t.Run(name, func(t *testing.T) {
			b := testbed.New(t, emulator.Options{})
			b.CreateTunnel(tunnel.TunnelTypeStream)
			w := newWire(t)
			_, messages := subscribe(t, b, func(c *subscriber.Config) { c.Transport = w })
			put(t, b, "a", 1)
			first := receive(t, messages)
			put(t, b, "b", 1)
			held := receive(t, messages)
			lose(b, w, first)
			select {
			case <-held.Context().Done():
			case <-time.After(5 * time.Second):
				t.Fatal("the context of a message in flight does not end")
			}
			if cause := context.Cause(held.Context()); !errors.Is(cause, subscriber.ErrChannelLost) {
				t.Errorf("its cause is %v", cause)
			}
			before := w.all("stored ")
			held.Ack()
			time.Sleep(200 * time.Millisecond) // several checkpoint intervals
			if after := w.all("stored "); !slices.Equal(after, before) && name != "when a checkpoint says that it is gone" {
				t.Errorf("the ack after the loss stored %v", after[len(before):])
			}
		})
	}
}

func TestL5_closing_meets_a_finish_token_that_is_not_stored(t *testing.T) {
	t.Parallel() // it waits in real time
	for name, c := range map[string]struct {
		closing func(*testbed.Bed)
		report  string
		stored  []string
	}{
		"nor can be":        {func(*testbed.Bed) {}, "reported CLOSE", nil},
		"but can be by now": {func(b *testbed.Bed) { b.Emulator.ClearFaults() }, "reported TERMINATED", []string{"stored " + tunnel.FinishTag}},
	} {
		t.Run(name, func(t *testing.T) {
			b := testbed.New(t, emulator.Options{})
			b.PutAll(3, 1)
			b.CreateTunnel(tunnel.TunnelTypeBaseData)
			b.Emulator.Inject(emulator.Fault{Operation: "tunnel/checkpoint", Code: tunnel.ErrCodeServerUnavailable, Times: -1})
			w := newWire(t)
			_, messages := subscribe(t, b, func(c *subscriber.Config) {
				c.Transport = w
				c.CheckpointInterval = time.Hour // only the finish token is committed
				// Longer than the tries of a drain's last commit: it has one.
				c.ReadBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(6 * time.Second) }
			})
			for range 3 {
				receive(t, messages).Ack()
			}
			testbed.Eventually(t, 5*time.Second, "the finish token is refused", func() bool { return requests(b, "checkpoint") > 0 })
			c.closing(b)
			w.tell(protocol.ChannelStatus_CLOSING)
			if report, stored := w.firstReport(t); report != c.report || !slices.Equal(stored, c.stored) {
				t.Errorf("%s after %v, want %s after %v", report, stored, c.report, c.stored)
			}
		})
	}
}

func TestL5_channel_whose_finish_token_is_stored_is_terminated_without_a_read(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.PutAll(3, 1)
	b.CreateTunnel(tunnel.TunnelTypeBaseData)
	w := newWire(t)
	w.onAnswer("getcheckpoint", func([]byte) []byte {
		return encode(&protocol.GetCheckpointResponse{Checkpoint: proto.String(tunnel.FinishTag), SequenceNumber: proto.Int64(1)})
	})
	subscribe(t, b, func(c *subscriber.Config) { c.Transport = w })
	if report, _ := w.firstReport(t); report != "reported TERMINATED" {
		t.Errorf("%s", report)
	}
	if n := len(w.all("read")); n > 0 {
		t.Errorf("%d reads of a channel that is at its end", n)
	}
}

func TestL5_channel_whose_checkpoint_cannot_be_read_is_given_back_not_terminated(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.PutAll(3, 1)
	b.CreateTunnel(tunnel.TunnelTypeBaseData)
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/getcheckpoint", Code: tunnel.ErrCodeParamInvalid})
	w := newWire(t)
	subscribe(t, b, func(c *subscriber.Config) { c.Transport = w })
	if report, _ := w.firstReport(t); report != "reported CLOSE" {
		t.Errorf("%s", report)
	}
}

func TestL5_finish_token_refused_with_a_lost_channel_is_not_reported_as_terminated(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.PutAll(3, 1)
	b.CreateTunnel(tunnel.TunnelTypeBaseData)
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/checkpoint", Code: tunnel.ErrCodeResourceGone})
	w := newWire(t)
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.Transport, c.CheckpointInterval = w, time.Hour })
	for range 6 { // all rows are redelivered, to the channel's next run
		receive(t, messages).Ack()
	}
	want := []string{"stored " + tunnel.FinishTag}
	if report, stored := w.firstReport(t); report != "reported TERMINATED" || !slices.Equal(stored, want) {
		t.Errorf("%s after %v, want TERMINATED after %v", report, stored, want)
	}
}
