package subscriber

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/service/servicetest"
)

// worker drives a workerTransport as the SDK's worker does: connect, then a
// heartbeat each tick with the channels that it has.
type worker struct {
	t         *testing.T
	service   *fakeService
	transport *workerTransport
	cancel    context.CancelCauseFunc
	start     time.Time // of the first heartbeat
	report    []string
}

func newWorker(t *testing.T, f *fakeService, interval, timeout time.Duration) *worker {
	ctx, cancel := context.WithCancelCause(context.Background())
	f.always("connect", clientReply("client-1"))
	w := &worker{t: t, service: f, cancel: cancel, transport: newWorkerTransport(ctx, fakeEndpoint(f), interval, timeout, watermill.NopLogger{})}
	if _, err := call(w.transport, "connect", nil); err != nil {
		t.Fatal(err)
	}
	w.start = time.Now()
	return w
}

// beat is one tick: the answer's channels, its status, or the error.
func (w *worker) beat() (list []string, status int, err error) {
	w.t.Helper()
	tunnelID, clientID := "tunnel-1", "client-1"
	resp, err := call(w.transport, "heartbeat", marshal(&protocol.HeartbeatRequest{TunnelId: &tunnelID, ClientId: &clientID, Channels: channelList(w.report...)}))
	if err != nil {
		return nil, 0, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		var e protocol.Error
		unmarshal(w.t, body, &e)
		return []string{e.GetCode()}, resp.StatusCode, nil
	}
	var r protocol.HeartbeatResponse
	unmarshal(w.t, body, &r)
	return listed(r.Channels), resp.StatusCode, nil
}

// tickFor beats every tick for d; the last beat is just before d is over.
func (w *worker) tickFor(d time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(tick) {
		if _, status, err := w.beat(); err != nil || status != http.StatusOK {
			w.t.Fatalf("%v after the start: status %d, error %v", time.Since(w.start), status, err)
		}
	}
}

// sent returns when heartbeats reached the service since the last call of sent.
func (w *worker) sent() []time.Duration {
	at := w.service.times("heartbeat", w.start)
	w.service.mu.Lock()
	defer w.service.mu.Unlock()
	w.service.calls = slices.DeleteFunc(w.service.calls, func(c fakeCall) bool { return c.op == "heartbeat" })
	return at
}

func (w *worker) wantSent(what string, want ...time.Duration) {
	w.t.Helper()
	if got := w.sent(); !slices.Equal(got, want) {
		w.t.Errorf("%s: heartbeats at %v, want %v", what, got, want)
	}
}

const ms = time.Millisecond

func TestHeartbeat_ticks_without_news_are_local_until_the_interval_is_over(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t, new(fakeService).always("heartbeat", heartbeatReply("c1:1:OPEN")), 30*time.Second, 300*time.Second)
		w.report = []string{"c1:1:OPEN"}
		w.tickFor(2 * time.Minute)
		// The first one is news, so some follow soon, each twice as late; all on a tick.
		w.wantSent("two minutes", 0, 400*ms, 1000*ms, 2000*ms, 4000*ms, 34*time.Second, 64*time.Second, 94*time.Second)
		list, _, err := w.beat()
		if err != nil || !slices.Equal(list, []string{"c1:1:OPEN"}) {
			t.Errorf("a local answer is %v, %v; want the last real one", list, err)
		}
		w.tickFor(time.Hour)
		if n := len(w.sent()); n > 121 {
			t.Errorf("%d heartbeats in an hour without news, interval 30s", n)
		}
	})
}

func TestHeartbeat_a_client_without_channels_asks_again_soon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t, new(fakeService), 30*time.Second, 300*time.Second)
		w.tickFor(10 * time.Second)
		w.wantSent("first answer empty", 0, 400*ms, 1000*ms, 2000*ms, 4000*ms)
	})
}

func TestHeartbeat_news_leave_at_the_next_tick_and_a_burst_follows(t *testing.T) {
	for name, report := range map[string][]string{
		"finished":  {"c1:2:TERMINATED", "c2:7:OPEN"},
		"closed":    {"c1:2:CLOSE", "c2:7:OPEN"},
		"new":       {"c1:1:OPEN", "c2:7:OPEN", "c3:1:OPEN"},
		"gone":      {"c2:7:OPEN"},
		"version":   {"c1:1:OPEN", "c2:8:OPEN"},
		"all gone":  {},
		"two at it": {"c1:2:CLOSE", "c2:8:CLOSE"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorker(t, new(fakeService).always("heartbeat", heartbeatReply("c1:1:OPEN", "c2:7:OPEN")), time.Hour, 2*time.Hour)
				w.report = []string{"c1:1:OPEN", "c2:7:OPEN"}
				w.tickFor(time.Minute)
				w.sent()
				w.start = time.Now()
				w.report = report
				w.tickFor(time.Minute)
				var sent protocol.HeartbeatRequest
				unmarshal(t, w.service.bodies("heartbeat")[0], &sent)
				if got := listed(sent.Channels); !slices.Equal(got, listed(channelList(report...))) {
					t.Errorf("reported %v, want %v", got, report)
				}
				w.wantSent("news", 0, 400*ms, 1000*ms, 2000*ms, 4000*ms)
			})
		})
	}
}

func TestHeartbeat_the_order_of_the_channels_is_no_news(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t, new(fakeService).always("heartbeat", heartbeatReply("a:1:OPEN", "b:1:OPEN", "c:1:OPEN")), time.Hour, 2*time.Hour)
		w.report = []string{"a:1:OPEN", "b:1:OPEN", "c:1:OPEN"}
		w.tickFor(time.Minute)
		w.sent()
		for range 10 {
			slices.Reverse(w.report[:2])
			slices.Reverse(w.report)
			w.tickFor(tick)
		}
		w.wantSent("other orders")
	})
}

func TestHeartbeat_the_order_of_the_channels_in_an_answer_is_no_news(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, n := new(fakeService), 0
		f.on("heartbeat", func([]byte) reply {
			if n++; n%2 == 0 {
				return heartbeatReply("c1:1:OPEN", "c2:1:OPEN")
			}
			return heartbeatReply("c2:1:OPEN", "c1:1:OPEN")
		})
		w := newWorker(t, f, 30*time.Second, 300*time.Second)
		w.report = []string{"c1:1:OPEN", "c2:1:OPEN"}
		w.tickFor(2 * time.Minute)
		w.wantSent("two minutes", 0, 400*ms, 1000*ms, 2000*ms, 4000*ms, 34*time.Second, 64*time.Second, 94*time.Second)
	})
}

func TestHeartbeat_a_changed_answer_starts_the_burst_anew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := heartbeatReply("c1:1:OPEN")
		w := newWorker(t, new(fakeService).on("heartbeat", func([]byte) reply { return answer }), 30*time.Second, 300*time.Second)
		w.tickFor(1500 * ms)
		answer = heartbeatReply("c1:1:OPEN", "child:1:OPEN")
		w.tickFor(8500 * ms)
		w.wantSent("child at 2s", 0, 400*ms, 1000*ms, 2000*ms, 2400*ms, 3000*ms, 4000*ms, 6000*ms)
	})
}

func TestHeartbeat_poke_makes_the_next_tick_real_once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t, new(fakeService), time.Hour, 2*time.Hour)
		w.tickFor(time.Minute)
		w.sent()
		w.start = time.Now()
		w.transport.heartbeatNow()
		w.transport.heartbeatNow()
		w.tickFor(time.Minute)
		w.wantSent("asked for", 0)
	})
}

func TestHeartbeat_a_failure_is_reported_at_every_tick_and_tried_again_with_pauses(t *testing.T) {
	for name, failure := range map[string]reply{
		"network":     {err: errNetwork},
		"EOF":         {err: io.ErrUnexpectedEOF},
		"unavailable": unavailable,
		"busy":        errorReply(http.StatusServiceUnavailable, service.CodeServerBusy),
		"internal":    errorReply(http.StatusInternalServerError, "OTSInternalServerError"),
		"proxy":       {status: http.StatusBadGateway, body: []byte("<html>")},
		"auth":        errorReply(http.StatusForbidden, service.CodeAuthFailed),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				down := false
				f := new(fakeService).on("heartbeat", func([]byte) reply {
					if down {
						return failure
					}
					return heartbeatReply("c1:1:OPEN")
				})
				w := newWorker(t, f, 5*time.Second, 300*time.Second)
				w.report = []string{"c1:1:OPEN"}
				w.tickFor(time.Minute)
				down = true
				for { // until the first real one fails
					if _, _, err := w.beat(); err != nil {
						break
					}
					time.Sleep(tick)
				}
				w.sent()
				w.start = time.Now()
				for time.Since(w.start) < 20*time.Second {
					_, _, err := w.beat()
					if err == nil {
						t.Fatalf("%v after the failure a tick was answered as if all were well", time.Since(w.start))
					}
					var te *tunnel.TunnelError
					if errors.As(err, &te) {
						t.Fatalf("the SDK takes %v as fatal", err)
					}
					if failure.err != nil && !errors.Is(err, failure.err) {
						t.Fatalf("got %v, want %v within", err, failure.err)
					}
					time.Sleep(tick)
				}
				w.wantSent("tries", 600*ms, 1600*ms, 3600*ms, 7600*ms, 12600*ms, 17600*ms)
				down = false
				recovered := false
				for range 30 {
					if list, _, err := w.beat(); err == nil && slices.Equal(list, []string{"c1:1:OPEN"}) {
						recovered = true
						break
					}
					time.Sleep(tick)
				}
				if !recovered {
					t.Error("heartbeats do not recover")
				}
				w.tickFor(time.Minute)
			})
		})
	}
}

func TestHeartbeat_failures_in_a_row_are_two_lines_and_more_at_Debug(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := false
		f := new(fakeService).on("heartbeat", func([]byte) reply {
			if down {
				return unavailable
			}
			return heartbeatReply("c1:1:OPEN")
		})
		w := newWorker(t, f, 5*time.Second, 300*time.Second)
		logger := watermill.NewCaptureLogger()
		w.transport.logger = logger
		for range 2 {
			w.tickFor(time.Minute)
			down = true
			for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(tick) {
				_, _, _ = w.beat() // it fails, as it should
			}
			down = false
			for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(tick) {
				_, _, _ = w.beat() // until it succeeds
			}
		}
		var infos []string
		for _, line := range logger.Captured()[watermill.InfoLogLevel] {
			infos = append(infos, line.Msg)
		}
		if want := []string{"Heartbeat failed", "Heartbeats succeed again", "Heartbeat failed", "Heartbeats succeed again"}; !slices.Equal(infos, want) {
			t.Errorf("at Info: %q, want %q", infos, want)
		}
		if n := len(logger.Captured()[watermill.DebugLogLevel]); n < 10 {
			t.Errorf("%d further failures at Debug, want each of two minutes", n)
		}
		if n := len(logger.Captured()[watermill.ErrorLogLevel]); n != 0 {
			t.Errorf("%d lines at Error: the session is not lost", n)
		}
	})
}

func TestHeartbeat_a_failure_before_the_interval_is_over_is_not_hidden_by_the_last_answer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t, new(fakeService).always("heartbeat", heartbeatReply("c1:1:OPEN")), time.Hour, 2*time.Hour)
		w.report = []string{"c1:1:OPEN"}
		w.tickFor(time.Minute)
		w.service.always("heartbeat", reply{err: errNetwork})
		w.transport.heartbeatNow()
		for range 60 * 5 { // far less than the interval
			if _, _, err := w.beat(); !errors.Is(err, errNetwork) {
				t.Fatalf("after the failure a tick was answered with %v", err)
			}
			time.Sleep(tick)
		}
	})
}

func TestL4_heartbeat_the_client_is_lost_at_the_last_answered_heartbeat_plus_timeout(t *testing.T) {
	for name, failure := range map[string]reply{"refused": {err: errNetwork}, "silent": {hang: true}, "unavailable": unavailable} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				down := false
				f := new(fakeService).on("heartbeat", func([]byte) reply {
					if down {
						return failure
					}
					return heartbeatReply("c1:1:OPEN")
				})
				// The service gets 20 s: it counts whole seconds.
				w := newWorker(t, f, 5*time.Second, 20*time.Second+900*ms)
				w.report = []string{"c1:1:OPEN"}
				w.tickFor(time.Minute)
				at := w.sent()
				lost := at[len(at)-1] + 20*time.Second - lossMargin(5*time.Second, 20*time.Second)
				down = true
				for {
					before := time.Since(w.start)
					list, status, err := w.beat()
					if err == nil && status != http.StatusOK {
						if status != http.StatusGone || list[0] != tunnel.ErrCodeResourceGone {
							t.Errorf("lost with status %d %v", status, list)
						}
						if before < lost || before-lost > tick {
							t.Errorf("lost at %v, want the first tick from %v on", before, lost)
						}
						break
					}
					if after := time.Since(w.start); after > lost {
						t.Fatalf("a tick at %v lasted until %v, beyond %v", before, after, lost)
					}
					time.Sleep(tick - time.Since(w.start)%tick)
				}
				down = false
				if _, status, err := w.beat(); err != nil || status != http.StatusGone {
					t.Errorf("a lost client came back: status %d, error %v", status, err)
				}
			})
		})
	}
}

func TestL4_heartbeat_the_client_is_lost_before_the_service_gives_its_channels_away(t *testing.T) {
	for _, c := range []struct{ interval, timeout, margin time.Duration }{
		{30 * time.Second, 300 * time.Second, 15 * time.Second},
		{10 * time.Second, 30 * time.Second, 1500 * ms},
		{29 * time.Second, 30 * time.Second, 500 * ms}, // a heartbeat must find time, too
		{300 * ms, time.Second, tick},
	} {
		if got := lossMargin(c.interval, c.timeout); got != c.margin {
			t.Errorf("interval %v, timeout %v: lost %v early, want %v", c.interval, c.timeout, got, c.margin)
		}
	}
}

func TestHeartbeat_the_time_counts_from_when_a_heartbeat_was_sent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := heartbeatReply("c1:1:OPEN")
		slow.after = 2 * time.Second
		answered := false
		f := new(fakeService).on("heartbeat", func([]byte) reply {
			if answered {
				return reply{err: errNetwork}
			}
			answered = true
			return slow
		})
		w := newWorker(t, f, time.Second, 10*time.Second)
		if _, _, err := w.beat(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(8*time.Second - lossMargin(time.Second, 10*time.Second) - ms)
		if _, _, err := w.beat(); err == nil {
			t.Error("the failed heartbeat is hidden")
		}
		time.Sleep(ms)
		if _, status, err := w.beat(); status != http.StatusGone {
			t.Errorf("10s after the only answered heartbeat was sent: status %d, error %v", status, err)
		}
	})
}

func TestHeartbeat_errors_that_end_the_session_reach_the_SDK_as_they_are(t *testing.T) {
	for _, code := range []string{tunnel.ErrCodeResourceGone, tunnel.ErrCodeParamInvalid, tunnel.ErrCodeTunnelExpired} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorker(t, new(fakeService).always("heartbeat", errorReply(http.StatusBadRequest, code)), time.Second, 10*time.Second)
			list, status, err := w.beat()
			if err != nil || status != http.StatusBadRequest || list[0] != code {
				t.Errorf("%s: got %v, %d, %v", code, list, status, err)
			}
		})
	}
}

func TestHeartbeat_ends_with_the_session(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t, new(fakeService), time.Second, 10*time.Second)
		w.tickFor(time.Second)
		w.cancel(errSessionOver)
		if list, status, err := w.beat(); err != nil || status != http.StatusGone || list[0] != tunnel.ErrCodeResourceGone {
			t.Errorf("after the session's end a tick servicetest.Gives %v, %d, %v; the worker continues", list, status, err)
		}
	})
}

func TestHeartbeat_one_that_hangs_is_given_up_with_the_session(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t, new(fakeService).always("heartbeat", reply{hang: true}), time.Minute, time.Hour)
		time.AfterFunc(time.Second, func() { w.cancel(errSessionOver) })
		if _, _, err := w.beat(); !errors.Is(err, errSessionOver) || time.Since(w.start) != time.Second {
			t.Errorf("after %v: %v", time.Since(w.start), err)
		}
	})
}

func TestHeartbeat_slow_credentials_provider_does_not_cost_the_session(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t, new(fakeService), 3*time.Second, 10*time.Second)
		cache, _, _ := servicetest.Scripted(t, servicetest.Gives("a", time.Hour), servicetest.Hanging)
		servicetest.WantCredentials(t, cache, "a")
		w.transport.creds = cache
		time.Sleep(time.Second)
		w.tickFor(59 * time.Minute) // the last minute begins
		began := time.Now()
		w.beat()
		if took := time.Since(began); took != 0 {
			t.Errorf("a heartbeat waited %v for the provider", took)
		}
		w.tickFor(50 * time.Second)
		w.cancel(errSessionOver)
		w.transport.background.Wait()
		cache.Close(time.Second)
	})
}

func TestHeartbeats_go_on_while_the_provider_hangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorker(t, new(fakeService), time.Second, 30*time.Second)
		cache, _, _ := servicetest.Scripted(t, servicetest.Gives("a", 10*time.Second), servicetest.Hanging)
		servicetest.WantCredentials(t, cache, "a")
		w.transport.creds = cache
		for range 150 { // the credentials expire meanwhile
			began := time.Now()
			w.beat()
			if took := time.Since(began); took != 0 {
				t.Fatalf("a heartbeat took %v, %v after the start", took, time.Since(w.start))
			}
			time.Sleep(tick)
		}
		w.cancel(errSessionOver)
		w.transport.background.Wait()
		cache.Close(time.Second)
	})
}

func TestHeartbeat_refused_credentials_are_replaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fakeService)
		w := newWorker(t, f, time.Second, 10*time.Second)
		cache, s, _ := servicetest.Scripted(t, servicetest.Gives("a", 0), servicetest.Gives("b", 0))
		servicetest.WantCredentials(t, cache, "a")
		w.transport.creds = cache
		time.Sleep(time.Minute - 51*time.Second)
		f.always("heartbeat", errorReply(http.StatusForbidden, service.CodeAuthFailed))
		_, _, err := w.beat()
		synctest.Wait()
		if err == nil || s.Questions() != 2 {
			t.Errorf("error %v, %d questions to the provider; want the failure, and new credentials for the next heartbeat", err, s.Questions())
		}
		servicetest.WantCredentials(t, cache, "b")
	})
}

func TestWorkerTransport_connect_gives_the_client_id(t *testing.T) {
	w := newWorker(t, new(fakeService), time.Second, 10*time.Second)
	if id := w.transport.client(); id != "client-1" || w.transport.isReleased() {
		t.Errorf("client is %q, released %t", id, w.transport.isReleased())
	}
	w.service.always("connect", reply{})
	if _, err := call(w.transport, "connect", nil); err == nil {
		t.Error("an empty answer to connect is taken; the SDK would panic")
	}
}

func TestWorkerTransport_keeps_the_request_id_for_the_SDKs_errors(t *testing.T) {
	w := newWorker(t, new(fakeService).always("connect", clientReply("x")), time.Second, 10*time.Second)
	w.service.always("connect", errorReply(http.StatusBadRequest, tunnel.ErrCodeParamInvalid))
	resp, err := call(w.transport, "connect", nil)
	if err != nil || resp.Header.Get("x-ots-requestid") != "req-connect" {
		t.Errorf("got %v, %v", resp, err)
	}
}

func TestWorkerTransport_getcheckpoint_is_a_stand_in(t *testing.T) {
	w := newWorker(t, new(fakeService), time.Second, 10*time.Second)
	api := fakeEndpoint(w.service).API(w.transport)
	token, sequence, err := api.GetCheckpoint("tunnel-1", "client-1", "c1")
	if err != nil || token != "" || sequence != 0 {
		t.Errorf("got %q, %d, %v", token, sequence, err)
	}
	if n := len(w.service.bodies("getcheckpoint")); n != 0 {
		t.Errorf("%d calls reached the service", n)
	}
}

func TestWorkerTransport_a_client_counts_as_released_only_when_the_service_said_so(t *testing.T) {
	for name, c := range map[string]struct {
		reply    reply
		released bool
	}{
		"done":    {reply{}, true},
		"gone":    {gone, false},
		"network": {reply{err: errNetwork}, false},
		"silent":  {reply{hang: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorker(t, new(fakeService).always("shutdown", c.reply), time.Second, 10*time.Second)
				_, err := call(w.transport, "shutdown", nil)
				if released := w.transport.isReleased(); released != c.released {
					t.Errorf("released is %t after %v", released, err)
				}
				if took := time.Since(w.start); took > releaseTimeout {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestReportOf_leaves_the_request_whole(t *testing.T) {
	body := marshal(&protocol.HeartbeatRequest{TunnelId: new(string), ClientId: new(string), Channels: channelList("b:2:OPEN", "a:1:CLOSE")})
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://ots.test/tunnel/heartbeat", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	report, err := reportOf(req)
	if err != nil || report != "a 1 CLOSE\nb 2 OPEN" {
		t.Errorf("report %q, %v", report, err)
	}
	if again, err := io.ReadAll(req.Body); err != nil || !bytes.Equal(again, body) {
		t.Errorf("the body is %x, %v; want %x", again, err, body)
	}
}
