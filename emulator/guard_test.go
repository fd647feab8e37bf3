package emulator_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// patient is a client with a timeout, since a paused emulator would never
// answer.
var patient = &http.Client{Timeout: 20 * time.Second}

// page is what a browser adds to a request: the page's origin, and how that is
// related to the request's host. https://www.w3.org/TR/fetch-metadata/
type page struct{ origin, site string }

// send posts a request for a host name as a browser or another program would.
func send(t *testing.T, method, url, host string, from page, body []byte) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for name, value := range map[string]string{"Origin": from.origin, "Sec-Fetch-Site": from.site} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	resp, err := patient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func message(t testing.TB, m protoadapt.MessageV1) []byte {
	t.Helper()
	b, err := proto.Marshal(protoadapt.MessageV2Of(m))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestForeignPages is about pages that are open in a browser on the machine of
// the emulator. TestBrowser does the same with a real browser.
func TestForeignPages(t *testing.T) {
	e := start(t, emulator.Options{AllowedHosts: []string{"Ots-Emulator"}})
	r := newRaw(t, e)
	r.createIntTable("t", 1, 1, true)
	admin := httptest.NewServer(e.AdminHandler())
	defer admin.Close()
	deletion := message(t, &pb.DeleteTableRequest{TableName: ptr("t")})
	for _, v := range []struct {
		name string
		host string
		page page
		want int
	}{
		{"a page of another origin", "", page{"https://evil.example", "cross-site"}, 403},
		{"a page of another port", "", page{"http://localhost:3000", "same-site"}, 403},
		{"a page that hides its origin", "", page{"null", "cross-site"}, 403},
		{"a page in an old browser", "", page{"https://evil.example", ""}, 403},
		{"a page in an old browser that hides its origin", "", page{"null", ""}, 403},
		{"a page whose host's name resolves to this machine", "rebind.evil.example", page{"http://rebind.evil.example", "same-origin"}, 403},
		{"a program that uses an unknown name", "emulator.example:8087", page{}, 403},
		{"a name that only ends like an allowed one", "evil-ots-emulator", page{}, 403},
		{"a name that only begins with an address", "127.0.0.1.evil.example", page{}, 403},
		{"a request without a host name", ":8087", page{}, 403},
		{"a program", "", page{}, 200},
		{"a program that uses localhost", "localhost:8087", page{}, 200},
		{"a program that uses a name below localhost", "inst.LOCALHOST.:8087", page{}, 200},
		{"a program that uses IPv6", "[::1]:8087", page{}, 200},
		{"a program that uses an address without a port", "192.168.1.7", page{}, 200},
		{"a program that uses a listed name", "ots-emulator:8087", page{}, 200},
		{"a person who typed the address", "", page{"", "none"}, 200},
	} {
		t.Run(v.name, func(t *testing.T) {
			host := v.host
			status, answer := send(t, "POST", e.Endpoint()+"/ListTable", host, v.page, nil)
			expect(t, "ListTable", status, v.want)
			if v.want == 403 && !strings.Contains(answer, "OTSNoPermissionAccess") {
				t.Errorf("the answer is %q", answer)
			}
			if v.want == 403 {
				status, _ = send(t, "POST", e.Endpoint()+"/DeleteTable", host, v.page, deletion)
				expect(t, "DeleteTable", status, 403)
			}
			adminWant := map[int]int{200: 200, 403: 403}[v.want]
			for _, path := range []string{"/stats", "/tunnels"} {
				status, answer = send(t, "GET", admin.URL+path, host, v.page, nil)
				expect(t, "GET "+path, status, adminWant)
				if adminWant == 403 && !strings.Contains(answer, `"error"`) {
					t.Errorf("the answer is %q", answer)
				}
			}
			if adminWant == 403 {
				for _, path := range []string{"/resume", "/clock", "/faults", "/tables/t/split"} {
					status, _ = send(t, "POST", admin.URL+path, host, v.page, []byte(`{}`))
					expect(t, "POST "+path, status, 403)
				}
			}
		})
	}
	t.Run("left everything as it was", func(t *testing.T) {
		if err := r.putInt("t", 1); err != nil {
			t.Error(err)
		}
		expect(t, "deletions seen", e.Stats().Operations["DeleteTable"].Requests, 0)
	})
	t.Run("the error says what to do", func(t *testing.T) {
		_, answer := send(t, "POST", e.Endpoint()+"/ListTable", "ots.internal", page{}, nil)
		for _, want := range []string{"ots.internal", "AllowedHosts", "--allowed-host"} {
			if !strings.Contains(answer, want) {
				t.Errorf("it does not name %s: %q", want, answer)
			}
		}
	})
	t.Run("a client with the emulator's own transport may use any name", func(t *testing.T) {
		for _, opts := range []emulator.Options{{}, {InMemory: true}} {
			e := start(t, opts)
			transport := e.Transport()
			resp, err := (&http.Client{Transport: transport}).Post("http://inst.cn-hangzhou.ots.aliyuncs.com/ListTable", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			expect(t, "status", resp.StatusCode, 200)
			transport.CloseIdleConnections()
		}
	})
}

func TestAllowedHosts(t *testing.T) {
	for _, host := range []string{"", "http://a", "a:80", "*"} {
		if _, err := emulator.Start(emulator.Options{AllowedHosts: []string{host}}); err == nil || !strings.Contains(err.Error(), "AllowedHosts") {
			t.Errorf("%q: %v", host, err)
		}
	}
}

// TestAddressesOfOthers listens on an address that other machines can reach.
func TestAddressesOfOthers(t *testing.T) {
	own := ownAddress(t)
	serveAdmin := func(t *testing.T, opts emulator.Options, addr string) string {
		e := start(t, opts)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		admin := httptest.NewUnstartedServer(e.AdminHandler())
		admin.Listener.Close()
		admin.Listener = l
		admin.Start()
		t.Cleanup(admin.Close)
		return admin.URL
	}
	stats := func(t *testing.T, url, token string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", url+"/stats", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	t.Run("the admin API is closed there without a token", func(t *testing.T) {
		status, answer := stats(t, serveAdmin(t, emulator.Options{}, own+":0"), "")
		expect(t, "status", status, 403)
		if !strings.Contains(answer, "AdminToken") {
			t.Errorf("the answer is %q", answer)
		}
	})
	for _, addr := range []string{own + ":0", "127.0.0.1:0"} {
		t.Run("the token opens the admin API at "+addr, func(t *testing.T) {
			url := serveAdmin(t, emulator.Options{AdminToken: "sesame"}, addr)
			for token, want := range map[string]int{"Bearer sesame": 200, "Bearer sesam": 403, "sesame": 403, "Bearer ": 403, "": 403} {
				status, answer := stats(t, url, token)
				expect(t, "status with "+token, status, want)
				if strings.Contains(answer, "sesame") {
					t.Errorf("the answer shows the token: %q", answer)
				}
			}
		})
	}
	t.Run("the start warns there, and only there", func(t *testing.T) {
		for addr, want := range map[string]bool{own + ":0": true, "127.0.0.1:0": false, "": false} {
			var log bytes.Buffer
			start(t, emulator.Options{Addr: addr, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if got := strings.Contains(log.String(), "level=WARN"); got != want {
				t.Errorf("at %q it logs %s", addr, &log)
			}
		}
	})
}

// ownAddress returns an address of this machine that is not loopback. It skips
// the test if there is none, on a machine without a network.
func ownAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && ip.IP.To4() != nil {
			return ip.IP.String()
		}
	}
	t.Skip("this machine has loopback addresses only")
	return ""
}
