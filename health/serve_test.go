package health_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/health"
)

func TestHealth_is_read_only(t *testing.T) {
	h := newHealth(t, status(working))
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodConnect} {
		w := get(h, "/status.json", func(r *http.Request) { r.Method = method })
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
		}
	}
	if w := get(h, "/readyz", func(r *http.Request) { r.Method = http.MethodHead }); w.Code != http.StatusOK {
		t.Errorf("HEAD: %d", w.Code)
	}
	if w := get(h, "/elsewhere"); w.Code != http.StatusNotFound {
		t.Errorf("another path: %d", w.Code)
	}
}

func TestHealth_protects_all_answers_that_a_browser_may_show(t *testing.T) {
	h := newHealth(t, status(working))
	for _, path := range []string{"/", "/livez", "/readyz", "/status.json", "/elsewhere"} {
		header := get(h, path).Header()
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Resource-Policy": "same-origin", "Access-Control-Allow-Origin": "",
		} {
			if got := header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
		if policy := header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", path, policy)
		}
	}
}

func TestPage_has_only_its_own_script_and_style_and_loads_nothing(t *testing.T) {
	w := get(newHealth(t, status(working)), "/")
	page := w.Body.String()
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d, %s", w.Code, w.Header().Get("Content-Type"))
	}
	for kind, tag := range map[string]string{"script-src": "script", "style-src": "style"} {
		blocks := regexp.MustCompile(`(?s)<`+tag+`>(.*?)</`+tag+`>`).FindAllStringSubmatch(page, -1)
		if len(blocks) != 1 {
			t.Fatalf("%d blocks of %s", len(blocks), tag)
		}
		sum := sha256.Sum256([]byte(blocks[0][1]))
		if hash := kind + " 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(w.Header().Get("Content-Security-Policy"), hash) {
			t.Errorf("the policy does not allow the page's own %s", tag)
		}
	}
	if got := regexp.MustCompile(`https?://[^"']*`).FindAllString(page, -1); len(got) != 1 || got[0] != "http://www.w3.org/2000/svg" { // a name, not an address
		t.Errorf("the page names %v", got)
	}
	if got := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(|new Function|style="| on[a-z]+="`).FindAllString(page, -1); got != nil {
		t.Errorf("the page uses %v", got)
	}
}

func TestRemote_decides_which_requests_are_answered(t *testing.T) {
	const here, there, v6 = "127.0.0.1:1", "10.1.2.3:1", "[::1]:1"
	for _, c := range []struct {
		remote           health.Remote
		peer, host, path string
		answered         bool
	}{
		{health.RemoteNone, here, "localhost:8088", "/", true},
		{health.RemoteNone, here, "127.0.0.1:8088", "/status.json", true},
		{health.RemoteNone, v6, "[::1]:8088", "/status.json", true},
		{health.RemoteNone, v6, "[::1]", "/status.json", true},
		{health.RemoteNone, "[::ffff:127.0.0.1]:1", "127.0.0.2", "/", true},
		{health.RemoteNone, here, "evil.example", "/status.json", false}, // DNS rebinding
		{health.RemoteNone, here, "localhost.evil.example:8088", "/", false},
		{health.RemoteNone, here, "10.1.2.3:8088", "/readyz", true}, // a proxy in the pod
		{health.RemoteNone, there, "localhost:8088", "/", false},
		{health.RemoteNone, there, "localhost:8088", "/livez", false},
		{health.RemoteNone, "", "localhost", "/", false},
		{health.RemoteProbes, there, "10.1.2.3:8088", "/livez", true},
		{health.RemoteProbes, there, "10.1.2.3:8088", "/readyz", true},
		{health.RemoteProbes, there, "10.1.2.3:8088", "/status.json", false},
		{health.RemoteProbes, there, "10.1.2.3:8088", "/", false},
		{health.RemoteProbes, here, "localhost:8088", "/", true},
		{health.RemoteProbes, here, "evil.example", "/", false},
		{health.RemoteAll, there, "ops.example", "/", true},
		{health.RemoteAll, there, "ops.example", "/status.json", true},
	} {
		h := newHealth(t, status(working), func(cfg *health.Config) { cfg.Remote = c.remote })
		w := get(h, c.path, func(r *http.Request) { r.RemoteAddr, r.Host = c.peer, c.host })
		want := http.StatusForbidden
		if c.answered {
			want = http.StatusOK
		}
		if w.Code != want || !c.answered && !strings.Contains(w.Body.String(), "Config.Remote") {
			t.Errorf("%v, %s asks %s for %s: %d %q, want %d", c.remote, c.peer, c.host, c.path, w.Code, w.Body, want)
		}
	}
}

func TestListenAndServe_accepts_other_addresses_than_loopback_only_with_Remote(t *testing.T) {
	h := newHealth(t, status(working))
	for _, addr := range []string{":0", "0.0.0.0:0", "[::]:0", "10.1.2.3:80", "example.com:80"} {
		if err := h.ListenAndServe(t.Context(), addr); !errors.Is(err, health.ErrInvalidConfig) || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for addr, remote := range map[string]health.Remote{"localhost:0": health.RemoteNone, "127.0.0.1:0": health.RemoteNone, ":0": health.RemoteProbes} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		h := newHealth(t, status(working), func(c *health.Config) { c.Remote = remote })
		if err := h.ListenAndServe(ctx, addr); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s, %v: %v", addr, remote, err)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := h.ListenAndServe(t.Context(), taken.Addr().String()); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("an address that is taken: %v", err)
	}
}

func TestServe_answers_until_its_context_ends(t *testing.T) {
	h := newHealth(t, status(working))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx, l) }() // ends with cancel
	url := "http://" + l.Addr().String() + "/readyz"
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "ready\n" {
		t.Errorf("%q, %v", body, err)
	}
	resp.Body.Close()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := http.Get(url); err == nil {
		t.Error("it still answers")
	}
	http.DefaultClient.CloseIdleConnections()
	if err := h.Serve(t.Context(), l); err == nil {
		t.Error("Serve returns no error for a closed listener")
	}
}
