package subscriber

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
	"github.com/watermill-ots/watermill-ots/ots"
)

func TestClassify_each_code_of_the_service(t *testing.T) {
	for code, want := range map[string]struct {
		class class
		is    error
	}{
		"OTSResourceGone":            {notOurs, nil},
		"OTSSequenceNumberNotMatch":  {mismatch, nil},
		"OTSTunnelExpired":           {fatal, ots.ErrTunnelExpired},
		"OTSParameterInvalid":        {fatal, ots.ErrTunnelGone},
		"OTSObjectNotExist":          {fatal, ots.ErrTunnelGone},
		"OTSPermissionDenied":        {auth, ots.ErrAuth},
		"OTSAuthFailed":              {auth, ots.ErrAuth},
		"OTSNoPermissionAccess":      {auth, ots.ErrAuth},
		"OTSServerBusy":              {throttled, nil},
		"OTSQuotaExhausted":          {throttled, nil},
		"OTSNotEnoughCapacityUnit":   {throttled, nil},
		"OTSCapacityUnitExhausted":   {throttled, nil},
		"OTSTunnelServerUnavailable": {retry, nil},
		"OTSInternalServerError":     {retry, nil},
		"OTSTimeout":                 {retry, nil},
		"OTSClientError":             {retry, nil},
		"OTSTunnelExist":             {retry, nil},
		"OTSRequestTimeout":          {retry, nil},
		"SomethingNew":               {retry, nil},
		"":                           {retry, nil},
	} {
		err := error(tunnelapi.NewError("read", 400, code, "m", "r"))
		if got := tunnelapi.Classify(err); got != want.class {
			t.Errorf("%q is of class %d, want %d", code, got, want.class)
		}
		if got := tunnelapi.Classify(&ChannelError{Err: fmt.Errorf("wrapped: %w", err)}); got != want.class {
			t.Errorf("%q wrapped is of class %d, want %d", code, got, want.class)
		}
		for _, sentinel := range []error{ots.ErrTunnelExpired, ots.ErrTunnelGone, ots.ErrAuth, ErrClosed} {
			if errors.Is(err, sentinel) != (sentinel == want.is) {
				t.Errorf("%q: errors.Is %q is %t", code, sentinel, errors.Is(err, sentinel))
			}
		}
	}
}

func TestClassify_what_is_no_answer_of_the_service(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want class
	}{
		"network":        {errNetwork, retry},
		"EOF":            {io.ErrUnexpectedEOF, retry},
		"deadline":       {context.DeadlineExceeded, retry},
		"cancelled":      {context.Canceled, retry}, // not by this package: its own contexts say what it gave up
		"credentials":    {service.ErrNoCredentials, retry},
		"malformed page": {errPage, retry},
	} {
		if got := tunnelapi.Classify(fmt.Errorf("op: %w", c.err)); got != c.want {
			t.Errorf("%s is of class %d, want %d", name, got, c.want)
		}
	}
}

func TestErrors_tell_what_was_attempted_on_what(t *testing.T) {
	se := tunnelapi.NewError("readrecords", 503, "OTSServerBusy", "too fast", "req-1")
	if got, want := se.Error(), "readrecords: the service answered OTSServerBusy: too fast (request req-1)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	ce := &ChannelError{Table: "orders", Tunnel: "audit", Channel: "c1", Op: "read", Err: se}
	if got, want := ce.Error(), "orders/audit channel c1: read: "+se.Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var asService *ots.ServiceError
	if !errors.As(error(ce), &asService) || asService != se {
		t.Error("the service's error is not within the channel's")
	}
	if got, want := tunnelapi.NewError("connect", 502, "", "", "").Error(), "connect: the service answered OTSUnknown: HTTP status 502 Bad Gateway"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := tunnelapi.NewError("connect", 400, "OTSParameterInvalid", "", "req-1").Error(), "connect: the service answered OTSParameterInvalid (request req-1)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	called := &calledBack{cause: se}
	if !errors.Is(called, ack.ErrCalledBack) || !errors.As(error(called), &asService) || !strings.HasSuffix(called.Error(), se.Error()) {
		t.Errorf("called back: %v", called)
	}
	if called = new(calledBack); !errors.Is(called, ack.ErrCalledBack) || called.Error() != ack.ErrCalledBack.Error() {
		t.Errorf("called back without a cause: %v", called)
	}
}

func TestServiceError_shows_what_an_answer_says_in_one_short_line(t *testing.T) {
	for _, c := range []struct{ code, message, id, want string }{
		{"OTS\nx", "two\nlines", "r\r", `connect: the service answered OTS\nx: two\nlines (request r\r)`},
		{"a\x00b", "", "", `connect: the service answered a\x00b`},
		{"\xff\xfe", "忙", "", `connect: the service answered \xff\xfe: 忙`},
		{strings.Repeat("c", 101), strings.Repeat("m", 3000), "", "connect: the service answered " + strings.Repeat("c", 100) + "…: " + strings.Repeat("m", 2000) + "…"},
	} {
		se := tunnelapi.NewError("connect", 500, c.code, c.message, c.id)
		if se.Error() != c.want {
			t.Errorf("got %q, want %q", se, c.want)
		}
		if call := failedCallOf("connect", se); call.code != se.Code || len(call.code) > 110 {
			t.Errorf("it is counted as %q", call)
		}
	}
}

func TestFromSDK_gives_each_of_its_errors_our_form(t *testing.T) {
	if tunnelapi.FromSDK("read", nil) != nil {
		t.Error("nil is an error")
	}
	err := tunnelapi.FromSDK("connect", &tunnel.TunnelError{Code: tunnel.ErrCodeTunnelExpired, Message: "m", RequestId: "r"})
	var se *ots.ServiceError
	if !errors.As(err, &se) || se.Op != "connect" || se.RequestID != "r" || !errors.Is(err, ots.ErrTunnelExpired) {
		t.Errorf("a TunnelError became %v", err)
	}
	for want, te := range map[string]*tunnel.TunnelError{
		"connect: the service answered OTSTunnelExpired: m (request r)":           {Code: tunnel.ErrCodeTunnelExpired, Message: "m", RequestId: "r"},
		"connect: OTSResourceGone: tunnel client heartbeat timeout":               {Code: tunnel.ErrCodeResourceGone, Message: "tunnel client heartbeat timeout"},
		"connect: OTSClientError: decode resp failed: unexpected EOF (request r)": {Code: tunnel.ErrCodeClientError, Message: "decode resp failed: unexpected EOF", RequestId: "r"},
	} {
		if got := tunnelapi.FromSDK("connect", te).Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	err = tunnelapi.FromSDK("read", &url.Error{Op: "Post", URL: "http://ots.test", Err: &tunnelapi.CallError{Err: se}})
	if err != error(se) {
		t.Errorf("a service's error through the transport became %v", err)
	}
	err = tunnelapi.FromSDK("read", &url.Error{Op: "Post", URL: "http://ots.test", Err: &tunnelapi.CallError{Err: errNetwork}})
	if !errors.Is(err, errNetwork) || err.Error() != "read: "+errNetwork.Error() {
		t.Errorf("a network's error became %q", err)
	}
	err = tunnelapi.FromSDK("create", errors.New("tunnelType should be ..."))
	if err.Error() != "create: tunnelType should be ..." {
		t.Errorf("another error became %q", err)
	}
}

// The SDK retries in pauses that cannot be cancelled; it must find no reason to.
func TestCall_is_never_retried_by_the_SDK(t *testing.T) {
	for name, c := range map[string]struct {
		reply reply
		want  class
	}{
		"EOF":           {reply{err: io.EOF}, retry},
		"reset":         {reply{err: errors.New("read: Connection reset by peer")}, retry},
		"refused":       {reply{err: errors.New("dial tcp: connect: connection refused")}, retry},
		"reset by peer": {reply{err: errors.New("read: connection reset by peer")}, retry},
		"closed idle":   {reply{err: errors.New("http: server closed idle connection")}, retry},
		"deadline":      {reply{err: context.DeadlineExceeded}, retry},
		"unavailable":   {unavailable, retry},
		"busy":          {errorReply(503, service.CodeServerBusy), throttled},
		"gone":          {gone, notOurs},
		"empty error":   {reply{status: 503}, retry},
		"proxy":         {reply{status: 502, body: []byte("<html>EOF</html>")}, retry},
		"empty answer":  {reply{}, retry},
		"silence":       {reply{hang: true}, retry},
		"redirect":      {reply{status: http.StatusFound}, retry},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := new(fakeService).always("getcheckpoint", c.reply)
				err := fakeEndpoint(f).Call(context.Background(), "getcheckpoint", func(api *tunnel.TunnelApi) error {
					_, _, err := api.GetCheckpoint("tunnel-1", "client-1", "c1")
					return err
				})
				if err == nil || tunnelapi.Classify(err) != c.want || !strings.HasPrefix(err.Error(), "getcheckpoint: ") {
					t.Errorf("got %v of class %d, want class %d", err, tunnelapi.Classify(err), c.want)
				}
				if n := len(f.bodies("getcheckpoint")); n != 1 {
					t.Errorf("called %d times", n)
				}
				if strings.Contains(err.Error(), "hush-hush") {
					t.Error("the secret is in the error")
				}
			})
		})
	}
}

func TestErrors_of_a_subscriber_hold_no_secret(t *testing.T) {
	for name, r := range map[string]reply{
		"auth": errorReply(403, service.CodeAuthFailed), "network": {err: errNetwork}, "gone": errorReply(400, tunnel.ErrCodeParamInvalid), "busy": errorReply(503, service.CodeServerBusy),
	} {
		synctest.Test(t, func(t *testing.T) {
			s := fakeSubscriber(t, new(fakeService).always("describe", r), nil)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_, err := s.Subscribe(ctx, "table/tunnel")
			if err == nil || !strings.Contains(err.Error(), "table/tunnel") || strings.Contains(err.Error(), "hush") {
				t.Errorf("%s: %v", name, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
