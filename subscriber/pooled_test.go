package subscriber

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

func TestPooled_gives_idle_connections_up_when_one_gets_no_answer(t *testing.T) {
	hang, released := make(chan struct{}), make(chan struct{})
	opened := make(chan struct{}, 10)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hang":
			close(hang)
			<-released
		case "/beside":
			<-hang
		}
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened <- struct{}{}
		}
	}
	server.Start()
	defer server.Close()
	defer close(released)
	p := pooled{service.NewTransport(maxIdle)}
	defer p.CloseIdleConnections()
	get := func(ctx context.Context, path string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, nil)
		if err != nil {
			return err
		}
		resp, err := p.RoundTrip(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	beside := make(chan error, 1)
	go func() { beside <- get(context.Background(), "/beside") }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	late := make(chan error, 1)
	short, stop := context.WithTimeout(ctx, 200*time.Millisecond)
	defer stop()
	go func() { late <- get(short, "/hang") }()
	if err := <-beside; err != nil { // its connection is idle now
		t.Fatal(err)
	}
	if err := <-late; err == nil {
		t.Fatal("the call that hangs was answered")
	}
	before := len(opened)
	if err := get(context.Background(), "/"); err != nil {
		t.Fatal(err)
	}
	if n := len(opened); n != before+1 {
		t.Errorf("%d connections, then %d: the next call took an idle one", before, n)
	}
}
