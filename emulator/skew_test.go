package emulator_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// TestSkewForwardAndBack sets the emulator's clock an hour ahead for a while.
// internal/store tests what that means for logs and auto-increment.
func TestSkewForwardAndBack(t *testing.T) {
	bubble(t, func(t *testing.T, e *emulator.Emulator, r *raw) {
		e.SkewClock(10 * time.Hour)
		tunnelID, clientID, _ := r.openTunnel("t", protocol.TunnelType_Stream)
		beat := func() error {
			_, err := r.post("/tunnel/heartbeat", &protocol.HeartbeatRequest{TunnelId: &tunnelID, ClientId: &clientID})
			return err
		}
		time.Sleep(40 * time.Minute) // the client's timeout is an hour
		e.SkewClock(0)
		time.Sleep(19 * time.Minute)
		if err := beat(); err != nil {
			t.Errorf("after 59 minutes: %v", err)
		}
		e.SkewClock(10 * time.Hour)
		if err := beat(); err == nil || !strings.Contains(err.Error(), "OTSResourceGone") {
			t.Errorf("after the clock skipped ten hours: %v", err)
		}
	})
	bubble(t, func(t *testing.T, e *emulator.Emulator, r *raw) {
		e.SkewClock(10 * time.Hour)
		tunnelID, clientID, _ := r.openTunnel("t", protocol.TunnelType_Stream)
		time.Sleep(40 * time.Minute)
		e.SkewClock(0)
		time.Sleep(21 * time.Minute)
		_, err := r.post("/tunnel/heartbeat", &protocol.HeartbeatRequest{TunnelId: &tunnelID, ClientId: &clientID})
		if err == nil || !strings.Contains(err.Error(), "OTSResourceGone") {
			t.Errorf("61 minutes without a heartbeat, 40 of them before the step back: %v", err)
		}
	})
}

func TestSkewIsBounded(t *testing.T) {
	e := start(t, emulator.Options{})
	r := newRaw(t, e)
	r.createIntTable("t", 0, 1, true)
	for _, ahead := range []time.Duration{1<<63 - 1, -1 << 63} {
		e.SkewClock(ahead)
		if err := r.putInt("t", 1); err != nil {
			t.Errorf("ahead by %v: %v", ahead, err)
		}
		r.openTunnelNamed(t, fmt.Sprint(ahead))
		resp, err := r.client.Post(r.base+"/ListTable", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		says, err := time.Parse("2006-01-02T15:04:05.000Z", resp.Header.Get("x-ots-date"))
		if err != nil {
			t.Fatal(err)
		}
		if years := time.Until(says).Abs().Hours() / 24 / 365; years > 101 {
			t.Errorf("ahead by %v: the clock is %v years off", ahead, years)
		}
	}
	e.SkewClock(0)
	admin := httptest.NewServer(e.AdminHandler())
	defer admin.Close()
	resp, err := http.Post(admin.URL+"/clock", "application/json", strings.NewReader(`{"ahead":"2000000h"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	expect(t, "status", resp.StatusCode, http.StatusBadRequest)
}

// openTunnelNamed creates a stream tunnel of table t.
func (r *raw) openTunnelNamed(t *testing.T, name string) {
	t.Helper()
	_, err := r.post("/tunnel/create", &protocol.CreateTunnelRequest{Tunnel: &protocol.Tunnel{
		TableName: ptr("t"), TunnelName: &name, TunnelType: protocol.TunnelType_Stream.Enum(),
	}})
	if err != nil {
		t.Error(err)
	}
}

// TestTokensAheadOfTheLog uses a token from another history, such as a data
// directory that has been lost.
func TestTokensAheadOfTheLog(t *testing.T) {
	e := start(t, emulator.Options{})
	r := newRaw(t, e)
	r.createIntTable("t", 0, 1, true)
	tunnel, client, channels := r.openTunnel("t", protocol.TunnelType_Stream)
	channel := channels[0]
	// Token{1: 2, 2: TokenContentV2{2: shard:offset, 3: 0, 4: 0}}
	iterator := channel + ":1000"
	content := append([]byte{2<<3 | 2, byte(len(iterator))}, iterator...)
	content = append(content, 3<<3, 0, 4<<3, 0)
	token := base64.StdEncoding.EncodeToString(append([]byte{1 << 3, 2, 2<<3 | 2, byte(len(content))}, content...))
	_, err := r.post("/tunnel/checkpoint", &protocol.CheckpointRequest{TunnelId: &tunnel, ClientId: &client, ChannelId: &channel, Checkpoint: &token, SequenceNumber: ptr(int64(1))})
	if err == nil || !strings.Contains(err.Error(), "OTSParameterInvalid") || !strings.Contains(err.Error(), "ahead of the log") {
		t.Errorf("a checkpoint: %v", err)
	}
	_, err = r.post("/tunnel/readrecords", &protocol.ReadRecordsRequest{TunnelId: &tunnel, ClientId: &client, ChannelId: &channel, Token: &token})
	if err == nil || !strings.Contains(err.Error(), "OTSParameterInvalid") || !strings.Contains(err.Error(), "ahead of the log") {
		t.Errorf("a read: %v", err)
	}
}
