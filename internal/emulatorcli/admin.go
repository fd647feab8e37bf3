package emulatorcli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// serveAdmin serves the admin API on addr until stop is called, which waits for
// its end. Without an address it does nothing. If other machines can reach the
// address, a token is required.
func serveAdmin(e *emulator.Emulator, addr, token string, log *slog.Logger) (stop func() error, err error) {
	if addr == "" {
		return func() error { return nil }, nil
	}
	if "http://"+addr == e.Endpoint() {
		return nil, fmt.Errorf("--admin-addr %s: the emulator itself listens there (--addr); choose another port (port 0 picks a free one)", addr)
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, explainAddress("--admin-addr", addr, fmt.Errorf("the admin API: %w", err))
	}
	if tcp, ok := listener.Addr().(*net.TCPAddr); token == "" && (!ok || !tcp.IP.IsLoopback()) {
		return nil, errors.Join(fmt.Errorf("--admin-addr %s: other machines can reach the admin API there; protect it with --admin-token, or use a loopback address such as 127.0.0.1", addr), listener.Close())
	}
	server := &http.Server{Handler: e.AdminHandler(), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the admin API stopped", "error", err)
		}
	}()
	log.Info("admin API", "endpoint", "http://"+listener.Addr().String())
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := server.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close()
		}
		<-done
		return err
	}, nil
}
