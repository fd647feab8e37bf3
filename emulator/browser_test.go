package emulator_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// hostilePage tries, from another origin, what a browser lets any page do: a
// no-cors POST, a GET whose response it may not read, a form and an image. The
// first %s is the emulator, the second its admin API, and %q the body of a
// DeleteTable.
const hostilePage = `<!doctype html><body><script>
const service = %q, admin = %q, deletion = %q
const tried = []
async function attempt(name, f) {
	try { await f(); tried.push(name + ":sent") } catch (e) { tried.push(name + ":blocked") }
}
(async () => {
	await attempt("delete", () => fetch(service + "/DeleteTable", {method: "POST", mode: "no-cors", body: deletion}))
	await attempt("fault", () => fetch(admin + "/faults", {method: "POST", mode: "no-cors", body: '{"code":"OTSServerBusy","times":-1}'}))
	await attempt("split", () => fetch(admin + "/tables/t/split", {method: "POST", mode: "no-cors"}))
	await attempt("read", async () => {
		const r = await fetch(admin + "/tunnels")
		if (!r.ok) throw new Error(r.status)
	})
	await attempt("image", () => new Promise((ok, no) => {
		const i = new Image(); i.onload = ok; i.onerror = ok; i.src = service + "/DeleteTable"
	}))
	const form = document.createElement("form")
	const frame = document.createElement("iframe")
	frame.name = "frame"
	form.method = "POST"; form.enctype = "text/plain"; form.target = "frame"; form.action = admin + "/pause"
	document.body.append(frame, form)
	await attempt("form", () => new Promise(ok => { frame.onload = ok; form.submit() }))
	await fetch("/done?" + encodeURIComponent(tried.join(" ")))
})()
</script>`

// TestBrowser opens a hostile page in a real browser. The page addresses the
// emulator by its address, and by a name of the page's owner that resolves to
// it.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("it needs seconds for a browser; -short leaves it out")
	}
	browser := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
			break
		}
	}
	if browser == "" {
		t.Skip("no chromium on this machine; TestForeignPages sends what a browser would send")
	}
	e := start(t, emulator.Options{})
	r := newRaw(t, e)
	r.createIntTable("t", 1, 1, true)
	admin := httptest.NewServer(e.AdminHandler())
	defer admin.Close()
	deletion := string(message(t, &pb.DeleteTableRequest{TableName: ptr("t")}))

	for _, v := range []struct{ name, service, admin string }{
		{"that uses the emulator's address", e.Endpoint(), admin.URL},
		{"that uses its own name for the emulator", rename(t, e.Endpoint(), "rebind.example"), rename(t, admin.URL, "rebind.example")},
	} {
		t.Run("a page "+v.name+" changes nothing", func(t *testing.T) {
			done := make(chan string, 1)
			site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				switch req.URL.Path {
				case "/":
					w.Header().Set("Content-Type", "text/html")
					fmt.Fprintf(w, hostilePage, v.service, v.admin, deletion)
				case "/done":
					tried, err := url.QueryUnescape(req.URL.RawQuery)
					if err != nil {
						t.Error(err)
					}
					select {
					case done <- tried:
					default:
					}
				default:
					http.NotFound(w, req)
				}
			}))
			defer site.Close()
			profile, err := os.MkdirTemp("", "emulator-browser-")
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
				"--user-data-dir="+profile, "--host-resolver-rules=MAP *.example 127.0.0.1", "--remote-debugging-port=0",
				rename(t, site.URL, "evil.example"))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer endBrowser(t, cmd, profile)
			select {
			case tried := <-done:
				t.Logf("the page says: %s", tried)
				if strings.Contains(tried, "read:sent") {
					t.Error("the page could read a response")
				}
				for _, name := range []string{"delete", "fault", "split", "image", "form"} {
					if !strings.Contains(tried, name) {
						t.Errorf("the page did not try %s", name)
					}
				}
			case <-time.After(time.Minute):
				t.Fatal("the browser did not finish the page within a minute")
			}
			if err := r.putInt("t", 1); err != nil {
				t.Errorf("a write afterwards: %v", err)
			}
			expect(t, "requests that reached DeleteTable", e.Stats().Operations["DeleteTable"].Requests, 0)
			expect(t, "faults that were met", e.Stats().Faults, 0)
			if err := e.Merge("t"); err == nil {
				t.Error("the page could split the table")
			}
		})
	}
}

// endBrowser ends a browser and removes its profile. The browser's processes
// may write to the profile for a moment after the first one has ended.
func endBrowser(t *testing.T, cmd *exec.Cmd, profile string) {
	cmd.Process.Signal(os.Interrupt) // where there are no signals, the kill below ends it
	kill := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
	cmd.Wait() // interrupted
	kill.Stop()
	err := os.RemoveAll(profile)
	for range 50 {
		if err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
		err = os.RemoveAll(profile)
	}
	t.Logf("the browser's profile was not removed: %v", err)
}

// rename returns the URL with another host and the same port.
func rename(t *testing.T, address, host string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = host + ":" + u.Port()
	return u.String()
}
