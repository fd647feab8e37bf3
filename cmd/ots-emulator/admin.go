package main

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

// serveAdmin serves the admin API on addr until stop is called, which waits
// for it. Without an address it does nothing.
func serveAdmin(e *emulator.Emulator, addr string, log *slog.Logger) (stop func() error, err error) {
	if addr == "" {
		return func() error { return nil }, nil
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %s for the admin API: %w", addr, err)
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
