package subscriber

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

// trimmed is the documented answer to a read of a log that was trimmed.
var trimmed = messageReply(http.StatusBadRequest, tunnel.ErrCodeServerUnavailable, "OTSTrimmedDataAccess Requested stream data is already trimmed or does not exist")

func TestL1_log_that_was_trimmed_ends_the_subscription_with_what_was_lost(t *testing.T) {
	for name, answer := range map[string]reply{
		"the documented answer":      trimmed,
		"a code of its own":          errorReply(http.StatusBadRequest, service.CodeTrimmed),
		"with the status of a fault": messageReply(http.StatusServiceUnavailable, tunnel.ErrCodeServerUnavailable, "OTSTrimmedDataAccess gone"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				written := time.Now().Add(-3 * time.Hour).Truncate(time.Microsecond)
				f := fakeTunnel(0)
				var reads atomic.Int64
				f.on("readrecords", func([]byte) reply {
					if reads.Add(1) == 1 {
						return pageReply("t1", []*protocol.Record{oldRecord(written)})
					}
					return answer
				})
				var raised alarms
				s := fakeSubscriber(t, f, func(c *Config) { c.OnAlarm = raised.add })
				messages := subscribeTo(t, s)
				msg := <-messages
				time.Sleep(time.Second) // the gap is found while the message is with its handler
				msg.Ack()
				if _, open := <-messages; open {
					t.Error("a message from behind the gap")
				}
				var gap *GapError
				err := s.Err()
				if !errors.As(err, &gap) || !errors.Is(err, ots.ErrGap) || errors.Is(err, ots.ErrTunnelExpired) {
					t.Fatalf("the subscription ended with %v", err)
				}
				if gap.Table != "table" || gap.Tunnel != "tunnel" || gap.Channel != "c1" || !gap.Position.Equal(written) {
					t.Errorf("the gap is %+v, at %v; want channel c1 at %v", gap, gap.Position, written)
				}
				for _, part := range []string{"table/tunnel channel c1", written.UTC().Format(time.RFC3339), "BaseAndStream", "OTSTrimmedDataAccess"} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("the error does not name %s: %v", part, err)
					}
				}
				if got := stored(t, f); len(got) != 1 || got[0] != "t1@1" {
					t.Errorf("stored %v: what was in flight is handled and committed", got)
				}
				if n := raised.of(Gap); n != 1 {
					t.Errorf("%d alarms, want 1", n)
				}
				if reads.Load() != 2 {
					t.Errorf("%d reads: it does not help to try again", reads.Load())
				}
				if err := closeWithin(t, s, time.Second); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		})
	}
}

// A tunnel is told from the one that replaces it by when it was created.
func TestOnGapRecreate_needs_to_know_when_the_tunnel_was_created(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeSubscriber(t, fakeTunnel(0), func(c *Config) { c.OnGap = OnGapRecreate })
		if _, err := s.Subscribe(t.Context(), "table/tunnel"); !errors.Is(err, ErrTunnelType) || !strings.Contains(err.Error(), "when the tunnel was created") {
			t.Errorf("Subscribe returned %v", err)
		}
	})
}
