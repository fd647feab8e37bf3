package subscriber_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestL3_Handle_record_called_back_while_its_message_is_made_is_not_handled_before_its_turn(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	halt := &haltingJSON{reached: make(chan struct{}), resume: make(chan struct{})}
	first := true
	h := handle(t, b, func(c *subscriber.Config) { c.Unmarshaler = halt }, func(msg *message.Message) error {
		if !first { // one key: one call at a time, unless the law is broken
			return nil
		}
		first = false
		d := deliveryOf(t, msg)
		d.HandOff()
		<-halt.reached
		d.CallBack(errors.New("the batch failed"))
		close(halt.resume)
		time.Sleep(100 * time.Millisecond) // the other one would be handled meanwhile
		return errors.New("the batch failed")
	})
	put(t, b, "a", 1, 2)
	testbed.Eventually(t, 10*time.Second, "both are handled", func() bool { return slices.Contains(h.seen(), "a/2") && len(h.seen()) >= 3 })
	if got := h.seen(); !slices.Equal(got, []string{"a/1", "a/1", "a/2"}) {
		t.Errorf("handled %v", got)
	}
}
