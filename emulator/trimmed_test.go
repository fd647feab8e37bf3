package emulator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// TestTrimmedLog has a client that is alive and reads too late. The answers are
// those of the page "Error codes of Tunnel Service".
func TestTrimmedLog(t *testing.T) {
	bubble(t, func(t *testing.T, e *emulator.Emulator, r *raw) {
		tunnel, client, channels := r.openTunnel("t", protocol.TunnelType_Stream)
		var cp protocol.GetCheckpointResponse
		r.must("/tunnel/getcheckpoint", &protocol.GetCheckpointRequest{TunnelId: &tunnel, ClientId: &client, ChannelId: &channels[0]}, &cp)
		if err := r.putInt("t", 1); err != nil {
			t.Fatal(err)
		}
		said := func(_ []byte, err error) string {
			if err == nil {
				return "ok"
			}
			return err.Error()
		}
		beat := func() string {
			return said(r.post("/tunnel/heartbeat", &protocol.HeartbeatRequest{TunnelId: &tunnel, ClientId: &client}))
		}
		read := func() string {
			return said(r.post("/tunnel/readrecords", &protocol.ReadRecordsRequest{TunnelId: &tunnel, ClientId: &client, ChannelId: &channels[0], Token: cp.Checkpoint}))
		}
		for range 7*24 - 1 { // the log keeps a record for 7 days
			time.Sleep(time.Hour - time.Second) // the client's timeout is an hour
			expect(t, "heartbeat", beat(), "ok")
		}
		expect(t, "read", read(), "ok")
		const trimmed = "status 400: OTSTunnelServerUnavailable: OTSTrimmedDataAccess Requested stream data is already trimmed or does not exist"
		for range 3 {
			time.Sleep(30 * time.Minute)
			beat() // one of them finds the tunnel expired
		}
		expect(t, "late read", read(), trimmed)
		expect(t, "and the next", read(), trimmed)
		if got := beat(); !strings.HasPrefix(got, "status 400: OTSTunnelExpired: ") {
			t.Errorf("heartbeat: %s", got)
		}
	})
}
