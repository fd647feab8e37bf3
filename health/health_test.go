package health_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/watermill-ots/watermill-ots/health"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixed is a subscriber whose status the test sets. The function returns a separate status
// each time.
type fixed func() subscriber.Status

func (f fixed) Status() subscriber.Status { return f() }

// status returns the status of a subscriber of instance shop.
func status(subs ...subscriber.SubscriptionStatus) fixed {
	return func() subscriber.Status { return subscriber.Status{Instance: "shop", Subscriptions: subs} }
}

func newHealth(t *testing.T, sub health.Source, change ...func(*health.Config)) *health.Health {
	t.Helper()
	var cfg health.Config
	for _, c := range change {
		c(&cfg)
	}
	h, err := health.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.AddSubscriber(sub)
	return h
}

// get sends h a request from this machine.
func get(h http.Handler, path string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodGet, "http://localhost:8088"+path, nil)
	req.RemoteAddr = "127.0.0.1:4711"
	for _, c := range change {
		c(req)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func TestNew_lists_all_faults_and_has_no_subscribers_yet(t *testing.T) {
	_, err := health.New(health.Config{StuckAfter: -2, Remote: 7})
	if !errors.Is(err, health.ErrInvalidConfig) {
		t.Fatalf("got %v", err)
	}
	for _, field := range []string{"StuckAfter", "Remote"} {
		if !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not named in %v", field, err)
		}
	}
	h, err := health.New(health.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if w := get(h, "/readyz"); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "there is no subscriber yet") {
		t.Errorf("nothing to watch: %d %s", w.Code, w.Body)
	}
}

var (
	working      = subscriber.SubscriptionStatus{Topic: "orders/a", Connected: true}
	draining     = subscriber.SubscriptionStatus{Topic: "orders/a", Connected: true, Draining: true}
	disconnected = subscriber.SubscriptionStatus{Topic: "orders/a", Clients: []subscriber.ClientStatus{
		{LastError: &subscriber.Failure{Time: time.Unix(1, 0), Error: "old"}},
		{LastError: &subscriber.Failure{Time: time.Unix(2, 0), Error: "heartbeat: the service answered OTSAuthFailed"}},
		{},
	}}
	starting = subscriber.SubscriptionStatus{Topic: "orders/a"}
	over     = subscriber.SubscriptionStatus{Topic: "orders/a", Ended: true}
	gone     = subscriber.SubscriptionStatus{Topic: "orders/a", Ended: true, Fatal: "orders/a: no such table or tunnel"}
	finished = subscriber.SubscriptionStatus{Topic: "orders/a", Ended: true, Finished: true}
	other    = subscriber.SubscriptionStatus{Topic: "orders/b", Connected: true}
)

func TestReadyz_and_livez_say_why_not(t *testing.T) {
	closed := func() subscriber.Status { return subscriber.Status{Instance: "shop", Closed: true} }
	for name, c := range map[string]struct {
		sub             fixed
		notReady, notOK string
	}{
		"connected":                    {sub: status(working, other)},
		"nothing subscribed":           {sub: status(), notReady: "instance shop: nothing is subscribed"},
		"connecting":                   {sub: status(starting), notReady: "orders/a: not connected"},
		"connection lost":              {sub: status(disconnected), notReady: "orders/a: not connected: heartbeat: the service answered OTSAuthFailed"},
		"draining":                     {sub: status(draining), notReady: "orders/a: draining"},
		"closed":                       {sub: closed, notReady: "instance shop: the subscriber is closed"},
		"ended":                        {sub: status(over), notReady: "orders/a: ended"},
		"tunnel gone":                  {sub: status(gone), notReady: "ended by itself: orders/a: no such table or tunnel", notOK: "ended by itself: orders/a: no such table or tunnel"},
		"read to the end":              {sub: status(finished)},
		"one tunnel of two gone":       {sub: status(other, gone), notReady: "ended by itself: orders/a: no such table or tunnel"},
		"subscribed again after a gap": {sub: status(working, gone)},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHealth(t, c.sub)
			for path, want := range map[string]string{"/readyz": c.notReady, "/livez": c.notOK} {
				what := strings.Trim(path, "/z")
				code, text := http.StatusOK, map[string]string{"ready": "ready\n", "live": "live\n"}[what]
				if want != "" {
					code, text = http.StatusServiceUnavailable, "not "+what+"\n- "+want+"\n"
				}
				if w := get(h, path); w.Code != code || w.Body.String() != text {
					t.Errorf("%s: %d %q, want %d %q", path, w.Code, w.Body, code, text)
				}
				w := get(h, path, func(r *http.Request) { r.Header.Set("Accept", "application/json") })
				if ok := fmt.Sprintf("%q: %v", what, want == ""); w.Code != code || !strings.Contains(w.Body.String(), ok) || !strings.Contains(w.Body.String(), want) {
					t.Errorf("%s as JSON: %d %s", path, w.Code, w.Body)
				}
			}
		})
	}
}

// TestLivez_is_good_while_any_subscriber_can_work is about routers: each pipeline has its
// own subscriber, and the end of one must not restart all.
func TestLivez_is_good_while_any_subscriber_can_work(t *testing.T) {
	closed := fixed(func() subscriber.Status { return subscriber.Status{Instance: "shop", Closed: true} })
	for name, c := range map[string]struct {
		subs []health.Source
		live bool
	}{
		"one works":              {[]health.Source{status(gone), status(other)}, true},
		"one is being connected": {[]health.Source{status(gone), status()}, true},
		"one is finished":        {[]health.Source{status(gone), status(finished)}, false},
		"one is closed":          {[]health.Source{status(gone), closed}, false},
		"all are gone":           {[]health.Source{status(gone), status(gone)}, false},
		"all are finished":       {[]health.Source{status(finished), status(finished)}, true},
	} {
		h, err := health.New(health.Config{})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range c.subs {
			h.AddSubscriber(s)
		}
		if s := h.Snapshot(); s.Live != c.live {
			t.Errorf("%s: live is %v: %v", name, s.Live, s.NotLive)
		}
	}
}

// busy is a subscription with messages that handlers have.
func busy(settled uint64, held int) subscriber.SubscriptionStatus {
	s := working
	s.Totals.Acked = settled
	s.Channels = []subscriber.ChannelStatus{{WithHandlers: held}, {}}
	return s
}

func TestLivez_fails_when_no_message_was_settled_for_StuckAfter_while_some_are_with_handlers(t *testing.T) {
	type look struct {
		after   time.Duration
		settled uint64
		held    int
		live    bool
	}
	for name, looks := range map[string][]look{
		"stuck":              {{0, 5, 3, true}, {9 * time.Minute, 5, 3, true}, {time.Minute, 5, 3, false}, {time.Minute, 6, 3, true}},
		"slow but moving":    {{0, 5, 3, true}, {9 * time.Minute, 6, 3, true}, {9 * time.Minute, 7, 3, true}, {9 * time.Minute, 7, 3, true}},
		"nothing to do":      {{0, 5, 0, true}, {time.Hour, 5, 0, true}},
		"idle, then a burst": {{0, 5, 0, true}, {time.Hour, 5, 1, true}, {9 * time.Minute, 5, 1, true}},
		"seldom asked":       {{0, 5, 1, true}, {time.Hour, 6, 1, true}, {time.Hour, 6, 1, false}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var now subscriber.SubscriptionStatus
				h := newHealth(t, fixed(func() subscriber.Status { return status(now)() }), func(c *health.Config) { c.StuckAfter = 10 * time.Minute })
				for i, l := range looks {
					time.Sleep(l.after)
					now = busy(l.settled, l.held)
					if s := h.Snapshot(); s.Live != l.live {
						t.Errorf("look %d: live is %v: %v", i, s.Live, s.NotLive)
					}
				}
			})
		})
	}
}

func TestLivez_says_how_long_no_message_was_settled_unless_it_is_off(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, off := newHealth(t, status(busy(1, 3))), newHealth(t, status(busy(1, 3)), func(c *health.Config) { c.StuckAfter = health.NeverStuck })
		get(h, "/livez")
		get(off, "/livez")
		time.Sleep(health.DefaultStuckAfter)
		if w, want := get(h, "/livez"), "not live\n- orders/a: no message was settled for 15m0s, 3 are with their handlers\n"; w.Code != http.StatusServiceUnavailable || w.Body.String() != want {
			t.Errorf("%d %q", w.Code, w.Body)
		}
		if w := get(off, "/livez"); w.Code != http.StatusOK {
			t.Errorf("off: %d %q", w.Code, w.Body)
		}
	})
}

func TestHideKeys_hides_every_key(t *testing.T) {
	sub := fixed(func() subscriber.Status {
		s := working
		s.Failing = []subscriber.FailingRecord{{Key: `["alice@example.com"]`}}
		s.Channels = []subscriber.ChannelStatus{{Oldest: &subscriber.OldestRecord{Key: `["alice@example.com"]`}}, {}}
		return status(s)()
	})
	if w := get(newHealth(t, sub), "/status.json"); strings.Count(w.Body.String(), "alice@example.com") != 2 {
		t.Errorf("without HideKeys: %s", w.Body)
	}
	w := get(newHealth(t, sub, func(c *health.Config) { c.HideKeys = true }), "/status.json")
	if strings.Contains(w.Body.String(), "alice") || strings.Count(w.Body.String(), "(hidden)") != 2 {
		t.Errorf("with HideKeys: %s", w.Body)
	}
}
