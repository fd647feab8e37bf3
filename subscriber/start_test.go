package subscriber

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

// transient are answers for which a start waits.
var transient = map[string]reply{
	"unreachable":      {err: errNetwork},
	"unavailable":      unavailable,
	"busy":             errorReply(http.StatusServiceUnavailable, service.CodeServerBusy),
	"throttled":        errorReply(http.StatusForbidden, service.CodeQuotaExhausted),
	"internal error":   errorReply(http.StatusInternalServerError, "OTSInternalServerError"),
	"no answer":        {hang: true},
	"empty answer":     {},
	"someone else's":   {status: http.StatusBadGateway, body: []byte("<html>bad gateway</html>")},
	"wraps a cancel":   {err: fmt.Errorf("hedging transport: %w", context.Canceled)},
	"answers too late": {after: time.Hour},
}

// permanent are answers for which it fails, and how.
var permanent = map[string]struct {
	reply reply
	is    error
}{
	"auth":          {errorReply(http.StatusForbidden, service.CodeAuthFailed), ots.ErrAuth},
	"no permission": {errorReply(http.StatusForbidden, service.CodeNoPermission), ots.ErrAuth},
	"no tunnel":     {errorReply(http.StatusBadRequest, tunnel.ErrCodeParamInvalid), ots.ErrTunnelGone},
	"no table":      {errorReply(http.StatusNotFound, service.CodeObjectNotExist), ots.ErrTunnelGone},
	"expired":       {tunnelReply("Stream", true, nil), ots.ErrTunnelExpired},
	"another type":  {tunnelReply("Stream", false, nil), ErrTunnelType},
}

// tunnelReply is the answer to describe.
func tunnelReply(typ string, expired bool, stream *protocol.StreamTunnelConfig) reply {
	s := func(v string) *string { return &v }
	return reply{body: marshal(&protocol.DescribeTunnelResponse{Tunnel: &protocol.TunnelInfo{
		TunnelId: s("tunnel-1"), TunnelType: &typ, TableName: s("table"), InstanceName: s("inst"), StreamId: s(""), Stage: s("ProcessStream"),
		Expired: &expired, StreamTunnelConfig: stream,
	}})}
}

// starts are the ways to start. Each returns when it did, and with what.
var starts = map[string]func(ctx context.Context, s *Subscriber) error{
	"Subscribe": func(ctx context.Context, s *Subscriber) error {
		_, err := s.Subscribe(ctx, "table/tunnel")
		return err
	},
	"Handle": func(ctx context.Context, s *Subscriber) error {
		_, err := s.Handle(ctx, "table/tunnel", func(*message.Message) error { return nil })
		return err
	},
	"Initialize":          func(ctx context.Context, s *Subscriber) error { return s.Initialize(ctx, "table/tunnel") },
	"SubscribeInitialize": func(_ context.Context, s *Subscriber) error { return s.SubscribeInitialize("table/tunnel") },
}

// creates reports whether a way to start creates the tunnel.
func creates(way string) bool { return way == "Initialize" || way == "SubscribeInitialize" }

func TestStart_what_may_pass_is_tried_with_backoff_and_logged_once(t *testing.T) {
	t.Parallel()
	for what, failure := range transient {
		for way, start := range starts {
			for _, op := range []string{"describe", "create"} {
				if op == "create" && !creates(way) {
					continue
				}
				t.Run(way+"/"+op+"/"+what, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						f, began, lasts := fakeTunnel(0), time.Now(), 20*time.Second
						if !creates(way) {
							lasts = time.Hour
						}
						if op == "create" {
							f.always("describe", permanent["no tunnel"].reply)
						}
						good := describeReply("tunnel-1")
						if op == "create" {
							id := "tunnel-1"
							good = reply{body: marshal(&protocol.CreateTunnelResponse{TunnelId: &id})}
						}
						f.on(op, func([]byte) reply {
							if time.Since(began) < lasts {
								return failure
							}
							return good
						})
						s := fakeSubscriber(t, f, nil)
						logger := watermill.NewCaptureLogger()
						s.logger = logger
						if err := start(t.Context(), s); err != nil {
							t.Fatal(err)
						}
						at := f.times(op, began)
						if err := s.Close(); err != nil { // then nothing is logged any more
							t.Error(err)
						}
						if took := at[len(at)-1]; took < lasts || took > lasts+40*time.Second {
							t.Errorf("it succeeded after %v, could after %v", took, lasts)
						}
						if least := int(lasts / (40 * time.Second)); len(at) < least || len(at) > int(lasts/(4*time.Second))+10 {
							t.Errorf("%d calls in %v", len(at), lasts)
						}
						lines := linesOf(logger, watermill.ErrorLogLevel, "Start failed; retrying")
						if len(lines) != 1 || lines[0].Err == nil || lines[0].Fields["operation"] != op || lines[0].Fields["topic"] != "table/tunnel" {
							t.Errorf("logged at Error: %+v", lines)
						}
						if n := len(linesOf(logger, watermill.DebugLogLevel, "Start failed; retrying")); n != len(at)-2 {
							t.Errorf("%d of %d failures are logged at Debug, want all but the first", n, len(at)-1)
						}
						if n := len(linesOf(logger, watermill.InfoLogLevel, "Calls succeed again")); n != 1 {
							t.Errorf("the end is logged %d times", n)
						}
					})
				})
			}
		}
	}
}

func TestStart_what_cannot_pass_fails_at_once(t *testing.T) {
	for what, c := range permanent {
		for way, start := range starts {
			if creates(way) && (errors.Is(c.is, ots.ErrTunnelGone) || errors.Is(c.is, ots.ErrTunnelExpired)) {
				continue // it creates what is missing, and leaves what is there
			}
			t.Run(way+"/"+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f, began := fakeTunnel(0).always("describe", c.reply), time.Now()
					s := fakeSubscriber(t, f, func(cfg *Config) { cfg.Tunnel.Type = BaseData })
					err := start(t.Context(), s)
					if !errors.Is(err, c.is) || !strings.Contains(err.Error(), "table/tunnel") {
						t.Errorf("got %v, want %v", err, c.is)
					}
					if took, n := time.Since(began), len(f.bodies("describe")); took != 0 || n != 1 {
						t.Errorf("it took %v and %d calls", took, n)
					}
					if errors.Is(err, ErrTunnelType) && (!strings.Contains(err.Error(), "Stream") || !strings.Contains(err.Error(), "BaseData")) {
						t.Errorf("the error does not name both types: %v", err)
					}
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

func TestStart_that_is_tried_again_ends_with_its_context_and_with_Close(t *testing.T) {
	stopped := errors.New("stopped by the test")
	for _, failure := range []string{"unreachable", "no answer"} {
		for way, start := range starts {
			for _, by := range []string{"context", "Close"} {
				if by == "context" && way == "SubscribeInitialize" {
					continue
				}
				t.Run(way+"/"+failure+"/"+by, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := fakeSubscriber(t, fakeTunnel(0).always("describe", transient[failure]), nil)
						ctx, cancel := context.WithCancelCause(t.Context())
						defer cancel(nil)
						began, want := time.Now(), ErrClosed
						if by == "context" {
							want = stopped
						}
						go func() {
							time.Sleep(17 * time.Second)
							if by == "context" {
								cancel(stopped)
							} else {
								_ = s.Close()
							}
						}()
						err := start(ctx, s)
						if took := time.Since(began); took != 17*time.Second || !errors.Is(err, want) {
							t.Errorf("after %v: %v", took, err)
						}
						if err := s.Close(); err != nil {
							t.Error(err)
						}
					})
				})
			}
		}
	}
}

func TestSubscribeInitialize_gives_up_after_a_minute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, began := fakeSubscriber(t, fakeTunnel(0).always("describe", transient["unreachable"]), nil), time.Now()
		err := s.SubscribeInitialize("table/tunnel")
		if took := time.Since(began); took != time.Minute || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errNetwork) {
			t.Errorf("after %v: %v", took, err)
		}
		if !strings.Contains(err.Error(), "Config.Endpoint") {
			t.Errorf("the error says not what to check: %v", err)
		}
	})
}

func TestStart_service_that_is_asked_too_often_is_asked_less_often(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, began, n := fakeTunnel(0), time.Now(), 0
		f.on("describe", func([]byte) reply {
			if n++; n > 3 {
				return describeReply("tunnel-1")
			}
			return transient["busy"]
		})
		s := fakeSubscriber(t, f, nil)
		subscribeTo(t, s)
		at := f.times("describe", began)
		for i := 1; i < len(at); i++ {
			if pause := at[i] - at[i-1]; pause < throttlePause {
				t.Errorf("pause %d is %v", i, pause)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestStart_each_kind_of_failure_is_logged_once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, n := fakeTunnel(0), 0
		f.on("describe", func([]byte) reply {
			if n++; n > 9 {
				return describeReply("tunnel-1")
			}
			return transient[[]string{"unreachable", "busy", "unavailable"}[n%3]]
		})
		s := fakeSubscriber(t, f, nil)
		logger := watermill.NewCaptureLogger()
		s.logger = logger
		subscribeTo(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if n := len(linesOf(logger, watermill.ErrorLogLevel, "Start failed; retrying")); n != 3 {
			t.Errorf("three kinds of failures are logged in %d lines", n)
		}
	})
}

func TestStart_type_that_is_not_configured_is_any(t *testing.T) {
	for _, typ := range []string{"Stream", "BaseAndStream", "BaseData"} {
		for way, start := range starts {
			synctest.Test(t, func(t *testing.T) {
				s := fakeSubscriber(t, fakeTunnel(0).always("describe", tunnelReply(typ, false, nil)), nil)
				if err := start(t.Context(), s); err != nil {
					t.Errorf("%s of a tunnel of type %s: %v", way, typ, err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestStart_tunnel_of_other_times_is_logged_and_used(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	config := func(flag protocol.StartOffsetFlag, start, end time.Time) *protocol.StreamTunnelConfig {
		c := &protocol.StreamTunnelConfig{Flag: &flag}
		if !start.IsZero() {
			ns := uint64(start.UnixNano())
			c.StartOffset = &ns
		}
		if !end.IsZero() {
			ns := uint64(end.UnixNano())
			c.EndOffset = &ns
		}
		return c
	}
	const latest, earliest = protocol.StartOffsetFlag_LATEST, protocol.StartOffsetFlag_EARLIEST
	var none time.Time
	for name, c := range map[string]struct {
		have *protocol.StreamTunnelConfig
		want TunnelSpec
		told watermill.LogFields // nil: nothing
	}{
		"nothing is configured":                   {config(earliest, none, at), TunnelSpec{}, nil},
		"the same start":                          {config(latest, at, none), TunnelSpec{Start: at}, nil},
		"the same in another zone and less exact": {config(latest, at, none), TunnelSpec{Start: at.In(time.FixedZone("east", 8*3600)).Add(time.Microsecond)}, nil},
		"the same start and end":                  {config(latest, at, at.Add(time.Hour)), TunnelSpec{Start: at, End: at.Add(time.Hour)}, nil},
		"earliest as configured":                  {config(earliest, none, none), TunnelSpec{Earliest: true}, nil},
		"another start":                           {config(latest, at.Add(time.Second), none), TunnelSpec{Start: at}, watermill.LogFields{"tunnel_start": "2026-03-01T12:00:01Z", "config_start": "2026-03-01T12:00:00Z"}},
		"no start":                                {config(latest, none, none), TunnelSpec{Start: at}, watermill.LogFields{"tunnel_start": "latest", "config_start": "2026-03-01T12:00:00Z"}},
		"not from the earliest on":                {nil, TunnelSpec{Earliest: true}, watermill.LogFields{"tunnel_start": "latest", "config_start": "earliest"}},
		"another end":                             {config(latest, none, at), TunnelSpec{End: at.Add(time.Hour)}, watermill.LogFields{"tunnel_end": "2026-03-01T12:00:00Z", "config_end": "2026-03-01T13:00:00Z"}},
		"an end that is not configured":           {config(latest, at, at.Add(time.Hour)), TunnelSpec{Start: at}, watermill.LogFields{"tunnel_end": "2026-03-01T13:00:00Z", "config_end": "none"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := fakeSubscriber(t, fakeTunnel(1).always("describe", tunnelReply("Stream", false, c.have)), func(cfg *Config) { cfg.Tunnel = c.want })
				logger := watermill.NewCaptureLogger()
				s.logger = logger
				(<-subscribeTo(t, s)).Ack()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				lines := linesOf(logger, watermill.ErrorLogLevel, "Tunnel starts or ends at another time than the configuration says; it stays as it is")
				switch {
				case c.told == nil && len(lines) > 0:
					t.Errorf("logged %+v", lines)
				case c.told != nil && len(lines) != 1:
					t.Errorf("logged in %d lines", len(lines))
				case c.told != nil:
					c.told["topic"] = "table/tunnel"
					if got := fmt.Sprint(lines[0].Fields); got != fmt.Sprint(c.told) {
						t.Errorf("logged %v, want %v", got, c.told)
					}
				}
			})
		})
	}
}
