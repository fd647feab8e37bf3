package health_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/health"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// browser returns the path of a chromium, or skips the test.
func browser(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("it needs seconds for a browser; -short leaves it out")
	}
	names := []string{"chromium", "chromium-browser", "google-chrome"}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skipf("the page is not looked at in a browser: none of %s is in PATH (apt-get install chromium)", strings.Join(names, ", "))
	return ""
}

// look opens the page in a browser, runs it for some seconds of the browser's own
// time, and returns the resulting document. The console must be empty: violations of
// the page's policy would be logged there.
func look(t *testing.T, url string) string {
	t.Helper()
	path := browser(t)
	profile, err := os.MkdirTemp("", "health-browser-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(profile)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // only a hang reaches it
	defer cancel()
	cmd := exec.CommandContext(ctx, path,
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir="+profile, "--enable-logging=stderr", "--log-level=0",
		"--virtual-time-budget=6000", "--dump-dom", url)
	cmd.WaitDelay = 5 * time.Second
	var console bytes.Buffer
	cmd.Stderr = &console
	dom, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", path, err, &console)
	}
	for _, line := range strings.Split(console.String(), "\n") {
		if strings.Contains(line, "CONSOLE") && !strings.Contains(line, "net::ERR_") { // network errors come from the test that cuts the connection
			t.Errorf("the browser says: %s", line)
		}
	}
	return string(dom)
}

const hostile = `["<img src=x onerror=\"document.title='taken'\">","</td><script>document.title='taken'</script>"]`

// full is a subscriber whose status has every field, and whose totals grow with each call.
func full() fixed {
	var looks atomic.Uint64
	started := time.Now().Add(-time.Hour)
	return func() subscriber.Status {
		time.Sleep(20 * time.Millisecond) // the browser's seconds take no time here, and totals grow in some
		n, now := looks.Add(1), time.Now()
		return subscriber.Status{Instance: "shop", Subscriptions: []subscriber.SubscriptionStatus{{
			Topic: "orders/to-warehouse", Table: "orders", Tunnel: "to-warehouse", TunnelType: subscriber.Stream, Started: started,
			Connected: true, InFlight: 1234, MaxInFlight: 4096, InFlightBytes: 3 << 20, Lag: 83 * time.Second, Retention: 7 * 24 * time.Hour,
			Clients: []subscriber.ClientStatus{{ClientID: "client-1", Connected: true, LastHeartbeat: now, Reconnects: 2}},
			Channels: []subscriber.ChannelStatus{
				{ID: "base-1", State: subscriber.ChannelDraining, Base: true},
				{ID: "stream-1", State: subscriber.ChannelOpen, WindowFull: true, Lag: 83 * time.Second, InFlight: 1234, WithHandlers: 77, Acked: 43210,
					Position: now.Add(-83 * time.Second), Oldest: &subscriber.OldestRecord{Key: hostile, Attempts: 17, Failures: 16, Age: 80 * time.Second}},
			},
			Failing:      []subscriber.FailingRecord{{Channel: "stream-1", Key: hostile, Type: "put", Attempts: 17, First: now.Add(-2 * time.Minute), Last: now.Add(-3 * time.Second), Error: "no such customer: <b>Bobby</b>"}},
			FailingTotal: 3,
			LastError:    &subscriber.Failure{Time: now, Op: "readrecords", Code: "OTSServerBusy", Error: "asked too often"},
			Errors:       []subscriber.ErrorCount{{Op: "readrecords", Code: "OTSServerBusy", Count: 9}},
			View: &subscriber.TunnelView{
				Time: now.Add(-4 * time.Second), Stage: "ProcessStream", Orphans: 1,
				Clients: []subscriber.ViewClient{{ID: "pod-b<i>", Channels: 1, Silent: true, LastRead: now.Add(-3 * time.Minute)}, {ID: "client-1", Own: true, Channels: 2, LastRead: now}},
				Channels: []subscriber.ViewChannel{
					{ID: "stream-2", ClientID: "pod-b<i>", Status: "OPEN", State: subscriber.ViewOrphan, Position: now.Add(-3 * time.Minute), Lag: 3 * time.Minute, LastRead: now.Add(-3 * time.Minute)},
					{ID: "stream-1", ClientID: "client-1", Own: true, Status: "OPEN", State: subscriber.ViewHeld, Position: now, LastRead: now},
				},
			},
			ExpectedClients: 3,
			Totals:          subscriber.Totals{Acked: 43210 + 50*n, RecordsRead: 44444 + 50*n, Nacked: 16},
		}}}
	}
}

// batchers is one batcher that handles a batch of 40 between two calls.
type batchers struct{ looks *atomic.Uint64 }

func (b batchers) Stats() []batching.BatcherStats {
	n := b.looks.Add(1)
	return []batching.BatcherStats{{
		Batcher: "s3<b>", Size: 40, Timeout: time.Second, Concurrency: 2, Waiting: 21, Running: 1,
		Batches: map[batching.Trigger]uint64{batching.TriggerSize: n, batching.TriggerTimeout: 0}, Succeeded: 40 * n, HandlingTime: time.Duration(n) * 150 * time.Millisecond,
	}}
}

func TestBrowser_shows_the_status_and_keys_as_text(t *testing.T) {
	h := newHealth(t, full(), func(c *health.Config) { c.Title = "order-sync" })
	h.AddBatching("orders", batchers{new(atomic.Uint64)})
	srv := httptest.NewServer(h)
	defer srv.Close()
	dom := look(t, srv.URL)
	for what, text := range map[string]string{
		"state":              `<title>Ready · order-sync</title>`,
		"topic":              `<h2>orders<span>/</span>to-warehouse</h2>`,
		"connected":          `>connected</span>`,
		"clients":            `<span>2 reconnects</span>`,
		"lag":                `<div class="value">1 min 23 s<small></small></div>`,
		"in flight":          `<div class="value">1,234<small>of 4,096, 3.00 MiB</small></div>`,
		"channel state":      `>open, window full</span>`,
		"base channel":       `<span class="id" title="base-1">base-1</span><small> base data</small>`,
		"acked":              `>43.2 k</td>`,
		"attempts":           `>17</td>`,
		"failing in all":     `<small>1 of 3, those with the most attempts</small>`,
		"error":              `no such customer: &lt;b&gt;Bobby&lt;/b&gt;`,
		"key":                `>["&lt;img src=x onerror=\"document.title='taken'\"&gt;","&lt;/td&gt;&lt;script&gt;document.title='taken'&lt;/script&gt;"]<`,
		"failed calls":       `>OTSServerBusy</td>`,
		"batcher":            `<b>s3&lt;b&gt;</b><span>up to 40 messages or 1 s</span>`,
		"batch size":         `<b>40.0</b>`,
		"handling":           `<b>150 ms</b>`,
		"waiting messages":   `<b>21</b>`,
		"running batches":    `<b>1 of 2</b>`,
		"held by no client":  `>not read</span>`,
		"a silent client":    `title="pod-b&lt;i&gt;"`,
		"the whole tunnel":   `2 channels, held by 2 clients; 1 of them silent; 1 channel stands still`,
		"expected clients":   `3 clients expected`,
		"own client":         `<small> this process</small>`,
		"a plot with a line": `<path class="stroke" d="M1`,
	} {
		if !strings.Contains(dom, text) {
			t.Errorf("%s: the page has no %s", what, text)
		}
	}
	if acked := regexp.MustCompile(`<h3>Acked</h3><div class="value">([^<]*)<`).FindStringSubmatch(dom); acked == nil || !regexp.MustCompile(`^[0-9.,k ]+$`).MatchString(acked[1]) {
		t.Errorf("acked a second: %q", acked)
	}
	shown, _, _ := strings.Cut(dom, "<footer>") // after it is the page's own script
	for _, markup := range []string{"<img", "<script>", "<b>Bobby"} {
		if strings.Contains(shown, markup) {
			t.Errorf("the page has %s as markup", markup)
		}
	}
	if strings.Contains(dom, `<body class="lost">`) {
		t.Error("the connection counts as lost")
	}
}

func TestBrowser_says_when_the_connection_is_lost_and_keeps_the_last_status(t *testing.T) {
	h := newHealth(t, full())
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/status.json" && asked.Add(1) > 2 {
			panic(http.ErrAbortHandler) // cuts the connection, as the end of the process does
		}
		h.ServeHTTP(w, r)
	}))
	defer srv.Close()
	dom := look(t, srv.URL)
	for _, text := range []string{
		`<title>Connection lost · watermill-ots</title>`, `<body class="lost">`, `The program does not answer`,
		`<div class="value">1,234<small>of 4,096, 3.00 MiB</small></div>`,
	} {
		if !strings.Contains(dom, text) {
			t.Errorf("the page has no %s", text)
		}
	}
}

func TestBrowser_is_red_while_calls_fail_and_says_why(t *testing.T) {
	sub := full()().Subscriptions[0]
	since := time.Now().Add(-72 * time.Second)
	sub.Trouble = []subscriber.Trouble{{Op: "readrecords", Since: since, Failing: 2, Of: 2, Cause: "the service refuses the credentials", Code: "OTSAuthFailed", Error: "readrecords: the service answered OTSAuthFailed: <b>key</b> disabled"}}
	sub.Channels[1].FailingSince = since
	srv := httptest.NewServer(newHealth(t, status(sub)))
	defer srv.Close()
	dom := look(t, srv.URL)
	for what, text := range map[string]string{
		"state":   `<span class="pill bad" id="state"`,
		"banner":  `<div class="bad"><strong>Not ready</strong>`,
		"reason":  `: the service refuses the credentials: readrecords: the service answered OTSAuthFailed: &lt;b&gt;key&lt;/b&gt; disabled</li>`,
		"card":    `>connected, calls fail</span>`,
		"cause":   `<p class="note">The service refuses the credentials. Reads fail for 1 min 1`,
		"channel": `>open, reads fail, window full</span>`,
	} {
		if !strings.Contains(dom, text) {
			t.Errorf("%s: the page has no %s", what, text)
		}
	}
}

func TestBrowser_shows_why_the_program_is_not_ready(t *testing.T) {
	sub := disconnected
	sub.Table, sub.Tunnel = "orders", "<b>a"
	sub.Channels, sub.Failing = []subscriber.ChannelStatus{}, []subscriber.FailingRecord{}
	srv := httptest.NewServer(newHealth(t, status(sub, gone)))
	defer srv.Close()
	dom := look(t, srv.URL)
	for _, text := range []string{
		`<title>Not ready · watermill-ots</title>`, `<li>orders/a: not connected: heartbeat: the service answered OTSAuthFailed</li>`,
		`<h2>orders<span>/</span>&lt;b&gt;a</h2>`, `>not connected</span>`, `>ended</span>`, `orders/a: no such table or tunnel`,
	} {
		if !strings.Contains(dom, text) {
			t.Errorf("the page has no %s", text)
		}
	}
}
