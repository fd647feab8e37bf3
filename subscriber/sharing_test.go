package subscriber_test

import (
	"context"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// twoChannels is a table of two partitions, 40 keys, and a tunnel over it.
func twoChannels(t *testing.T) *testbed.Bed {
	t.Helper()
	b := testbed.New(t, emulator.Options{})
	b.PutAll(40, 1)
	if err := b.Emulator.Split(testbed.Table); err != nil {
		t.Fatal(err)
	}
	b.CreateTunnel(tunnel.TunnelTypeStream)
	return b
}

func channelOf(msg *message.Message) string {
	r, _ := ots.RecordFromMessage(msg)
	return r.Channel
}

func TestL6_stuck_channel_starves_no_other(t *testing.T) {
	b := twoChannels(t)
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.MaxInFlight = 40 })
	b.PutAll(40, 50) // 1000 records for each channel
	first := receive(t, messages)
	stuck := channelOf(first)
	held := []*message.Message{first} // never settled while the test counts
	for others := 0; others < 900; {
		msg := receive(t, messages)
		if channelOf(msg) == stuck {
			held = append(held, msg)
			continue
		}
		others++
		msg.Ack()
	}
	for _, msg := range held {
		msg.Ack()
	}
}

func TestL6_bytes_in_flight_stop_the_reader(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.MaxInFlightBytes = 1 })
	put(t, b, "a", 1)
	first := receive(t, messages) // one page is read whatever its size
	reads := b.Emulator.Stats().Operations["tunnel/readrecords"].Requests
	put(t, b, "b", 1)
	receiveNone(t, messages, 300*time.Millisecond)
	if more := b.Emulator.Stats().Operations["tunnel/readrecords"].Requests; more != reads {
		t.Errorf("%d reads while the bytes in flight are used up", more-reads)
	}
	first.Ack()
	second := receive(t, messages)
	wantName(t, second, "b/1")
	second.Ack()
}

func TestWorkerSize_connects_clients_that_share_the_channels(t *testing.T) {
	t.Parallel() // it waits in real time
	b := twoChannels(t)
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.WorkerSize = 2 })
	testbed.Eventually(t, 20*time.Second, "two clients have a channel each", func() bool {
		d, err := b.Tunnels.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: testbed.Table, TunnelName: testbed.Tunnel})
		if err != nil {
			t.Fatal(err)
		}
		owners := make(map[string]bool)
		for _, c := range d.Channels {
			if c.ChannelStatus == "OPEN" {
				owners[c.ClientId] = true
			}
		}
		return len(owners) == 2
	})
	b.PutAll(40, 1)
	seen := make(map[string]bool)
	for len(seen) < 40 {
		msg := receive(t, messages)
		seen[name(msg)] = true
		msg.Ack()
	}
}

func TestSubscriptions_of_one_subscriber_are_tunnel_clients_of_their_own(t *testing.T) {
	b := twoChannels(t)
	if _, err := b.Tunnels.CreateTunnel(&tunnel.CreateTunnelRequest{TableName: testbed.Table, TunnelName: "other", Type: tunnel.TunnelTypeStream}); err != nil {
		t.Fatal(err)
	}
	s, err := subscriber.New(testbed.Config(b.Emulator.Endpoint()), testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	one, err := s.Subscribe(ctx, testbed.Topic)
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.Subscribe(context.Background(), testbed.Table+"/other")
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, "a", 1)
	for _, messages := range []<-chan *message.Message{one, other} {
		msg := receive(t, messages)
		wantName(t, msg, "a/1")
		msg.Ack()
	}
	cancel() // ends the first alone
	for msg := range one {
		t.Errorf("message %s after the end of the context", name(msg))
		msg.Nack()
	}
	put(t, b, "a", 2)
	msg := receive(t, other)
	wantName(t, msg, "a/2")
	msg.Ack()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, open := <-other; open {
		t.Error("a message after Close")
	}
}
