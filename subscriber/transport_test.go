package subscriber

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/service/servicetest"
	"github.com/watermill-ots/watermill-ots/ots"
)

func TestEndpoint_read_returns_the_undecoded_answer(t *testing.T) {
	// The SDK's own decoder would panic on a row that is only a header.
	want := pageReply("next", []*protocol.Record{{ActionType: protocol.ActionType_PUT_ROW.Enum(), Record: plainbuffer.AppendHeader(nil)}})
	f := new(fakeService).always("readrecords", want)
	body, err := fakeEndpoint(f).Read(context.Background(), maxCallTimeout, &tunnel.ReadRecordRequest{TunnelId: "t", ClientId: "c", ChannelId: "ch", Token: "tok"})
	if err != nil || !bytes.Equal(body, want.body) {
		t.Errorf("got %x, %v; want %x", body, err, want.body)
	}
}

func TestEndpoint_calls_end_with_their_context_and_say_why(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeEndpoint(new(fakeService).always("readrecords", reply{hang: true}))
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(time.Second, func() { cancel(ErrChannelLost) })
		start := time.Now()
		_, err := e.Read(ctx, maxCallTimeout, new(tunnel.ReadRecordRequest))
		if !errors.Is(err, ErrChannelLost) || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		_, err = e.Read(context.Background(), maxCallTimeout, new(tunnel.ReadRecordRequest))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second+e.Timeout {
			t.Errorf("without an answer, after %v: %v", time.Since(start)-time.Second, err)
		}
	})
}

func TestEndpoint_refused_credentials_are_asked_for_again(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fakeService).always("readrecords", errorReply(http.StatusForbidden, service.CodeAuthFailed))
		e := fakeEndpoint(f)
		cache, s, _ := servicetest.Scripted(t, servicetest.Gives("a", 0), servicetest.Gives("b", 0))
		e.Creds = cache
		for range 2 {
			if _, err := e.Read(context.Background(), maxCallTimeout, new(tunnel.ReadRecordRequest)); !errors.Is(err, ots.ErrAuth) {
				t.Errorf("got %v", err)
			}
			time.Sleep(service.AskPause)
		}
		if n := s.Questions(); n != 2 || f.calls[0].key != "a" || f.calls[1].key != "b" {
			t.Errorf("%d questions; signed by %s, then %s", n, f.calls[0].key, f.calls[1].key)
		}
	})
}

func TestEndpoint_without_credentials_calls_nothing(t *testing.T) {
	f := new(fakeService)
	e := fakeEndpoint(f)
	e.Creds, _, _ = servicetest.Scripted(t, servicetest.Failing)
	if _, err := e.Read(context.Background(), maxCallTimeout, new(tunnel.ReadRecordRequest)); !errors.Is(err, servicetest.ErrProvider) || len(f.calls) != 0 {
		t.Errorf("%v with %d calls", err, len(f.calls))
	}
}
