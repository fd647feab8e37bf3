package subscriber_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// TestOnGapRecreate_survives_a_crash_at_any_step kills the process at each call of the procedure: before the call
// arrives, and after it had its effect. The next start heals what it left.
func TestOnGapRecreate_survives_a_crash_at_any_step(t *testing.T) {
	for _, step := range []string{"describe", "delete", "create", "connect"} {
		for _, arrives := range []bool{false, true} {
			name := "before_" + step
			if arrives {
				name = "after_" + step
			}
			t.Run(name, func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					former := w.create(tunnel.TunnelTypeStream)
					c := w.starts()
					for i := range 10 {
						w.put(i, 1)
					}
					w.settles()
					c.ends()
					w.change(2)
					time.Sleep(logKept)
					w.change(3)

					ctx, crash := context.WithCancelCause(t.Context())
					c = w.consumer(func(cfg *subscriber.Config) {
						cfg.Transport = crashTransport{cfg.Transport, "/tunnel/" + step, arrives, func() { crash(errCrashed) }}
					})
					go func() { // ends with the crash
						<-ctx.Done()
						c.cut.dead.Store(true)
					}()
					if done, err := c.sub.Handle(ctx, testbed.Topic, w.sink.handle); err == nil { // it crashes later
						<-done
					} else if !errors.Is(err, errCrashed) {
						t.Errorf("Handle returned %v", err)
					}
					c.dies()

					w.change(4)
					w.starts()
					w.settles()
					w.put(1, 9)
					w.settles()
					if info := w.described(); info.TunnelId == former {
						t.Error("the former tunnel is still there")
					}
					if n := w.count("create 200"); n > 2 {
						t.Errorf("%d tunnels were created", n)
					}
				})
			})
		}
	}
}

// TestOnGapRecreate_heals_although_calls_fail_and_answers_are_lost: each call of the procedure fails in each way that may pass.
func TestOnGapRecreate_heals_although_calls_fail_and_answers_are_lost(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]emulator.Fault{
		"busy":                 {Code: "OTSServerBusy"},
		"throttled":            {Code: "OTSFlowControl"},
		"internal error":       {Code: "OTSInternalServerError"},
		"request lost":         {Break: emulator.BeforeRequest},
		"answer lost":          {Break: emulator.BeforeAnswer},
		"answer cut":           {Break: emulator.MidAnswer},
		"delivered twice":      {Duplicate: true},
		"an answer comes late": {Delay: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				former := w.create(tunnel.TunnelTypeStream)
				c := w.starts()
				for i := range 10 {
					w.put(i, 1)
				}
				w.settles()
				for _, op := range []string{"tunnel/describe", "tunnel/delete", "tunnel/create"} {
					f := fault
					f.Operation, f.Times = op, 2
					w.inject(f)
				}
				w.change(2)
				w.gap()
				began := time.Now()
				w.await("the tunnel is recreated", func() bool { return c.sub.Status().Subscriptions[0].Totals.Recreations == 1 })
				if took := time.Since(began); took > 4*time.Minute && !fault.Duplicate { // six calls that get no answer take three; the second deletion looks like another process's
					t.Errorf("it took %v: it waits for clients of another process, and there is none", took)
				}
				w.change(3)
				w.settles()
				if info := w.described(); info.TunnelId == former || info.TunnelType != string(subscriber.BaseAndStream) {
					t.Errorf("the tunnel is %+v", info)
				}
				w.em.ClearFaults()
				c.ends()
			})
		})
	}
}

// TestOnGapRecreate_creates_a_missing_tunnel_with_all_rows: it may be one whose recreation a crash has
// interrupted. So it is BaseAndStream, also where the configuration says Stream, and with Initialize.
func TestOnGapRecreate_creates_a_missing_tunnel_with_all_rows(t *testing.T) {
	for name, initialize := range map[string]bool{"Handle": false, "Initialize": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.put(1, 1)
				c := w.consumer(func(cfg *subscriber.Config) { cfg.Tunnel.Type = subscriber.Stream })
				if initialize {
					if err := c.sub.Initialize(t.Context(), testbed.Topic); err != nil {
						t.Fatal(err)
					}
				}
				c.handle(nil)
				w.settles()
				if typ := w.described().TunnelType; typ != string(subscriber.BaseAndStream) {
					t.Errorf("the tunnel is of type %s", typ)
				}
				if c.raised(subscriber.Recreate) != 0 {
					t.Error("an alarm for a tunnel that did not exist yet")
				}
				c.ends()
			})
		})
	}
}

func TestOnGapRecreate_without_the_table_fails_at_once(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		began := time.Now()
		_, err := w.consumer(nil).sub.Subscribe(t.Context(), "elsewhere/"+testbed.Tunnel)
		if !errors.Is(err, ots.ErrTunnelGone) || time.Since(began) > time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestOnGapRecreate_takes_only_tunnels_that_it_can_recreate(t *testing.T) {
	for _, typ := range []tunnel.TunnelType{tunnel.TunnelTypeBaseData, tunnel.TunnelTypeStream} {
		t.Run(string(typ), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				end := uint64(time.Now().Add(time.Hour).UnixNano())
				if _, err := w.tunnels.CreateTunnel(&tunnel.CreateTunnelRequest{
					TableName: testbed.Table, TunnelName: testbed.Tunnel, Type: typ, StreamTunnelConfig: &tunnel.StreamTunnelConfig{EndOffset: end},
				}); err != nil {
					t.Fatal(err)
				}
				c := w.consumer(nil)
				if _, err := c.sub.Subscribe(t.Context(), testbed.Topic); !errors.Is(err, subscriber.ErrTunnelType) {
					t.Errorf("Subscribe returned %v", err)
				}
				if err := c.sub.Initialize(t.Context(), testbed.Topic); !errors.Is(err, subscriber.ErrTunnelType) {
					t.Errorf("Initialize returned %v", err)
				}
			})
		})
	}
}

// TestOnGapRecreate_ends_with_Close_and_with_its_context: the procedure may take long.
func TestOnGapRecreate_ends_with_Close_and_with_its_context(t *testing.T) {
	for _, byClose := range []bool{false, true} {
		t.Run(map[bool]string{false: "context", true: "Close"}[byClose], func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.create(tunnel.TunnelTypeStream)
				c := w.consumer(nil)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done, err := c.sub.Handle(ctx, testbed.Topic, w.sink.handle)
				if err != nil {
					t.Fatal(err)
				}
				w.put(1, 1)
				w.settles()
				w.inject(always(emulator.Fault{Operation: "tunnel/create", Code: "OTSServerBusy"}))
				w.gap()
				w.await("the status shows it", c.recreating)
				if err := c.sub.Err(); err != nil {
					t.Errorf("Err while the tunnel is recreated: %v", err)
				}
				time.Sleep(time.Minute)
				began := time.Now()
				if byClose {
					if err := c.sub.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
				} else {
					cancel()
				}
				<-done
				if took := time.Since(began); took > time.Second {
					t.Errorf("it took %v", took)
				}
				if err := c.sub.Err(); !errors.Is(err, ots.ErrGap) {
					t.Errorf("Err: %v, and the gap is not healed", err)
				}
				w.em.ClearFaults()
				w.starts()
				w.put(2, 2)
				w.settles()
			})
		})
	}
}

var errCrashed = errors.New("crashed")

// crashTransport has the process crash at the first request to a path.
type crashTransport struct {
	http.RoundTripper
	path    string
	arrives bool
	crash   func()
}

func (c crashTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Path != c.path {
		return c.RoundTripper.RoundTrip(req)
	}
	defer c.crash()
	if c.arrives {
		if resp, err := c.RoundTripper.RoundTrip(req); err == nil {
			resp.Body.Close()
		}
	}
	return nil, errCrashed
}
