package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestLagServer_wants_one_consumer_for_each_part_of_the_lag_and_no_more_than_channels(t *testing.T) {
	lag := func(seconds float64) *float64 { return &seconds }
	for _, test := range []struct {
		lag      *float64
		channels int
		want     int
	}{
		{lag(0), 4, 1}, {lag(59), 4, 1}, {lag(61), 4, 2}, {lag(3600), 4, 4}, {lag(3600), 0, 1}, {nil, 3, 3}, {nil, 0, 1},
	} {
		if got := wanted(lagView{Lag: test.lag, Channels: test.channels}, time.Minute); got != test.want {
			t.Errorf("lag %v, %d channels: %d wanted, not %d", test.lag, test.channels, got, test.want)
		}
	}
}

// get asks the handler.
func get(h http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

func TestLagServer_asks_the_service_at_most_once_in_the_time_an_answer_is_fresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		seconds := 90.0
		s := newLagServerHandler(func(context.Context, topic) (lagView, error) {
			asked.Add(1)
			time.Sleep(100 * time.Millisecond)
			return lagView{Table: "a", Tunnel: "b", Lag: &seconds, Channels: 4}, nil
		}, time.Minute, 5*time.Second, slog.New(slog.DiscardHandler), []topic{{"a", "b"}})
		for range 10 {
			go get(s, http.MethodGet, "/lag/a/b")
		}
		time.Sleep(time.Second)
		var answer struct {
			Lag    float64 `json:"lag_seconds"`
			Wanted int     `json:"wanted"`
		}
		w := get(s, http.MethodGet, "/lag/a/b")
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Lag != 90 || answer.Wanted != 2 || asked.Load() != 1 {
			t.Errorf("%s (%v), asked %d times", w.Body, err, asked.Load())
		}
		time.Sleep(5 * time.Second)
		get(s, http.MethodGet, "/lag/a/b")
		if asked.Load() != 2 {
			t.Errorf("asked %d times", asked.Load())
		}
	})
}

func TestLagServer_has_no_number_when_it_knows_none(t *testing.T) {
	fail, expired := errors.New("hush: the service is away"), false
	s := newLagServerHandler(func(context.Context, topic) (lagView, error) { return lagView{Expired: expired}, fail }, time.Minute, time.Second, slog.New(slog.DiscardHandler), []topic{{"a", "b"}})
	for _, test := range []struct {
		method, path string
		status       int
		text         string
	}{
		{http.MethodGet, "/lag/a/b", http.StatusBadGateway, "log"},
		{http.MethodGet, "/lag/a/c", http.StatusNotFound, "/lag/a/b"},
		{http.MethodGet, "/a/b", http.StatusNotFound, "/lag/a/b"},
		{http.MethodPost, "/lag/a/b", http.StatusMethodNotAllowed, "GET"},
		{http.MethodGet, "/healthz", http.StatusOK, "ok"},
	} {
		if w := get(s, test.method, test.path); w.Code != test.status || !strings.Contains(w.Body.String(), test.text) || strings.Contains(w.Body.String(), "hush") {
			t.Errorf("%s %s: %d %s", test.method, test.path, w.Code, w.Body)
		}
	}
	fail, expired = nil, true
	if w := get(s, http.MethodGet, "/lag/a/b"); w.Code != http.StatusBadGateway {
		t.Errorf("an expired tunnel: %d %s", w.Code, w.Body)
	}
}

func TestLagServer_serves_the_lag_of_a_tunnel_without_consumers(t *testing.T) {
	connected(t)
	succeeds(t, "tunnel", "create", "demo/orders")
	ctx, stop := context.WithCancel(t.Context())
	var out, errs lines
	ended := make(chan int, 1)
	go func() { // ends with stop
		ended <- run(ctx, []string{"lag-server", "--addr", "127.0.0.1:0", "demo/orders"}, strings.NewReader(""), &out, &errs)
	}()
	eventually(t, "the server listens", func() bool { return strings.Contains(out.String(), "listening on http") })
	resp, err := http.Get(strings.TrimSpace(strings.TrimPrefix(out.String(), "listening on ")) + "/lag/demo/orders")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.Body.Close() != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), `"channels":2`) || !strings.Contains(string(body), `"wanted":`) {
		t.Errorf("%d %s, %v", resp.StatusCode, body, err)
	}
	stop()
	if code := <-ended; code != exitOK {
		t.Errorf("exit %d: %s", code, &errs)
	}
	for args, want := range map[string]string{"": "TABLE/TUNNEL", "demo": "TABLE/TUNNEL", "a/b --per 0s": "--per", "a/b --fresh 1ms": "--fresh", "a/b --addr nowhere": "--addr"} {
		if code, _, stderr := command(t, append([]string{"lag-server"}, strings.Fields(args)...)...); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %s", args, code, stderr)
		}
	}
}
