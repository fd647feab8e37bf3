package health

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// DefaultAddr is the default address of ListenAndServe.
const DefaultAddr = "127.0.0.1:8088"

// shutdownTimeout is how long requests in flight may take when Serve ends.
const shutdownTimeout = time.Second

// ListenAndServe serves on addr, "" meaning DefaultAddr, until ctx ends; then it returns
// nil. It refuses an address that is not a loopback address unless Config.Remote allows
// requests from other machines.
//
// Use a ctx that ends after the Router's, so that a kubelet sees a drain.
func (h *Health) ListenAndServe(ctx context.Context, addr string) error {
	if addr == "" {
		addr = DefaultAddr
	}
	if h.cfg.Remote == RemoteNone && !loopback(addr) {
		return fmt.Errorf("%w: serving on %s: other machines could connect; use a loopback address such as %s, or set Config.Remote", ErrInvalidConfig, addr, DefaultAddr)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("serving the health page: %w; give another address, or port 0 for a free one", err)
	}
	return h.Serve(ctx, l)
}

// Serve is ListenAndServe on a listener, which it closes. Config.Remote decides which
// requests are answered, whatever the listener's address is.
func (h *Health) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }() // ends with Shutdown or Close; received below
	select {
	case err := <-ended:
		return fmt.Errorf("serving the health page on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(end); err != nil {
		srv.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the health page on %s: %w", l.Addr(), err)
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (h *Health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy", pagePolicy) // on all answers: a browser can be made to show any of them
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD are allowed: the status is read-only", http.StatusMethodNotAllowed)
		return
	}
	if why := h.cfg.Remote.refuse(r); why != "" {
		http.Error(w, why, http.StatusForbidden)
		return
	}
	h.mux.ServeHTTP(w, r)
}

// probe answers whether the program is live or ready.
func probe(w http.ResponseWriter, r *http.Request, what string, reasons []string) {
	code := http.StatusOK
	if len(reasons) > 0 {
		code = http.StatusServiceUnavailable
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		writeJSON(w, code, map[string]any{what: len(reasons) == 0, "reasons": reasons})
		return
	}
	text := what + "\n"
	if len(reasons) > 0 {
		text = "not " + what + "\n"
	}
	for _, reason := range reasons {
		text += "- " + strings.ReplaceAll(reason, "\n", "\n  ") + "\n"
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text)) // if it fails, the client is gone
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		http.Error(w, "encoding the status: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes()) // if it fails, the client is gone
}
