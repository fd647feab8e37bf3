package subscriber_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// TestRunRouter_continues_while_a_tunnel_is_recreated: the router's subscription has not ended, although it has no tunnel
// for a while.
func TestRunRouter_continues_while_a_tunnel_is_recreated(t *testing.T) {
	for _, heals := range []bool{true, false} {
		t.Run(map[bool]string{true: "healed", false: "given up"}[heals], func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.create(tunnel.TunnelTypeStream)
				c := w.consumer(nil)
				router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 15 * time.Second}, watermill.NopLogger{})
				if err != nil {
					t.Fatal(err)
				}
				router.AddConsumerHandler("mirror", testbed.Topic, c.sub, w.sink.handle)
				ended := make(chan error, 1)
				go func() { ended <- subscriber.RunRouter(context.WithoutCancel(t.Context()), router, c.sub) }() // ends with the router
				w.put(1, 1)
				w.settles()
				w.inject(emulator.Fault{Operation: "tunnel/create", Code: "OTSServerBusy", Times: 10})
				if !heals {
					w.inject(denied("tunnel/create"))
				}
				w.gap()
				w.await("the tunnel is recreated", c.recreating)
				synctest.Wait()
				select {
				case err := <-ended:
					t.Fatalf("RunRouter returned %v", err)
				default:
				}
				if heals {
					w.put(2, 2)
					w.settles()
					if err := router.Close(); err != nil {
						t.Error(err)
					}
				}
				err = <-ended
				if heals && err != nil || !heals && !(errors.Is(err, ots.ErrGap) && errors.Is(err, ots.ErrAuth)) {
					t.Errorf("RunRouter returned %v", err)
				}
			})
		})
	}
}

// sharing is an Unmarshaler whose messages all have the same metadata.
type sharing struct{ metadata message.Metadata }

func (s sharing) Unmarshal(r *ots.Record) (*message.Message, error) {
	msg := message.NewMessage("", nil)
	msg.Metadata = s.metadata
	return msg, nil
}

func TestOnGapRecreate_marks_the_messages_of_any_Unmarshaler(t *testing.T) {
	for name, u := range map[string]ots.Unmarshaler{
		"JSON": subscriber.JSON{}, "Raw": subscriber.Raw{}, "None": subscriber.None{}, "CloudEvents": subscriber.CloudEvents{}, "Debezium": subscriber.Debezium{},
		"one of the user's": sharing{message.Metadata{"mine": "yes"}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				want := ""
				c := w.consumer(func(cfg *subscriber.Config) { cfg.Unmarshaler = u }).handle(func(msg *message.Message) error {
					if got := msg.Metadata.Get(subscriber.MetadataSnapshot); got != want || want == "" {
						t.Errorf("the snapshot is %q, want %q", got, want)
					}
					return w.sink.handle(msg)
				})
				want = snapshot(w.described().CreateTime.UnixNano())
				w.put(1, 1)
				w.put(2, 1)
				w.settles()
				if s, ok := u.(sharing); ok && len(s.metadata) != 1 {
					t.Errorf("the Unmarshaler's own metadata is %v", s.metadata)
				}
				c.ends()
			})
		})
	}
}
