package subscriber_test

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// hurried reports whether a batch that waits is to hurry.
func hurried(d ack.Delivery) bool {
	select {
	case <-d.Hurry():
		return true
	default:
		return false
	}
}

func TestL6_L7_waiting_messages_are_hurried_by_a_full_window_and_by_the_drain(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	s, messages := subscribe(t, b, func(c *subscriber.Config) { c.MaxInFlight = 1 })
	put(t, b, "a", 1)
	msg := receive(t, messages)
	d := deliveryOf(t, msg)
	d.HandOff()
	testbed.Eventually(t, 5*time.Second, "the only message that fits is hurried", func() bool { return hurried(d) })
	d.Begin()
	if hurried(d) {
		t.Error("a batch that runs is hurried: it waits for nothing")
	}
	hurry := d.Hurry()
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case <-hurry:
	case <-time.After(5 * time.Second):
		t.Error("the drain does not hurry a message that waits")
	}
	msg.Ack()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

func TestL6_bytes_in_flight_stay_within_MaxInFlightBytes_and_a_page(t *testing.T) {
	t.Parallel()
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, func(c *subscriber.Config) { c.MaxInFlightBytes = 1 })
	put(t, b, "a", 1)
	first := receive(t, messages)
	put(t, b, "b", 1)
	receiveNone(t, messages, 300*time.Millisecond)
	first.Ack()
	msg := receive(t, messages)
	wantName(t, msg, "b/1")
	msg.Ack()
}

// fill writes one record after the other to each of the keys, acks nothing, and
// returns how many messages there are when no more come.
func fill(t *testing.T, b *testbed.Bed, messages <-chan *message.Message, rounds int, prefixes ...string) (n int) {
	t.Helper()
	for i := range rounds {
		for _, p := range prefixes {
			put(t, b, p+testbed.Key(i), 1)
			select {
			case <-messages:
				n++
			case <-time.After(150 * time.Millisecond):
			}
		}
	}
	for {
		select {
		case <-messages:
			n++
		case <-time.After(300 * time.Millisecond):
			return n
		}
	}
}

func TestL6_ended_channel_gives_its_share_back(t *testing.T) {
	t.Parallel() // it waits in real time
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	_, messages := subscribe(t, b, func(c *subscriber.Config) {
		c.MaxInFlight, c.CloseTimeout = 10, 10*time.Millisecond
		c.ReconnectBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(10 * time.Millisecond) }
	})
	b.Emulator.Inject(emulator.Fault{Operation: "tunnel/readrecords", Code: tunnel.ErrCodeResourceGone, Times: 6})
	testbed.Eventually(t, 10*time.Second, "the channel was lost and opened six times", func() bool { return b.Emulator.Stats().Faults == 6 })
	if n := fill(t, b, messages, 12, "a"); n < 10 {
		t.Errorf("%d messages are in flight with MaxInFlight 10 and one channel that is open", n)
	}
}
