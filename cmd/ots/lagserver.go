package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

// lagAnswer is what the lag server says about a tunnel.
type lagAnswer struct {
	lagView
	// Wanted is how many consumers the tunnel needs so that each second of --per has one,
	// but no more than it has channels, and at least one.
	Wanted int       `json:"wanted"`
	Time   time.Time `json:"time"` // when the service was asked
}

// wanted returns how many consumers a tunnel needs. One that has no position yet needs one
// for each channel: base data is read, or nothing was.
func wanted(l lagView, per time.Duration) int {
	most := max(1, l.Channels)
	if l.Lag == nil {
		return most
	}
	return max(1, min(most, int(math.Ceil(*l.Lag/per.Seconds()))))
}

// lagServer answers how far tunnels are behind. It asks the service at most once in fresh for
// each tunnel, however many ask it. It is safe for concurrent use.
//
// Invariants:
//   - entries has every tunnel that may be asked for, from the start.
type lagServer struct {
	look    func(context.Context, topic) (lagView, error)
	per     time.Duration
	fresh   time.Duration
	log     *slog.Logger
	entries map[topic]*lagEntry
}

// lagEntry is what is known of one tunnel.
type lagEntry struct {
	asking chan struct{} // holds a value while one request asks the service
	answer lagAnswer     // guarded by asking
}

func newLagServerHandler(look func(context.Context, topic) (lagView, error), per, fresh time.Duration, log *slog.Logger, topics []topic) *lagServer {
	s := &lagServer{look: look, per: per, fresh: fresh, log: log, entries: make(map[topic]*lagEntry)}
	for _, t := range topics {
		s.entries[t] = &lagEntry{asking: make(chan struct{}, 1)}
	}
	return s
}

// ServeHTTP implements http.Handler.
func (s *lagServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	if r.URL.Path == "/healthz" {
		fmt.Fprintln(w, "ok")
		return
	}
	table, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/lag/"), "/")
	entry := s.entries[topic{table, name}]
	if entry == nil || !strings.HasPrefix(r.URL.Path, "/lag/") {
		http.Error(w, "no such tunnel is served; the paths are "+strings.Join(s.paths(), " ")+" /healthz", http.StatusNotFound)
		return
	}
	answer, err := s.ask(r.Context(), topic{table, name}, entry)
	if err != nil {
		// No number: an autoscaler then keeps what it has, or takes its fallback.
		s.log.Error("the service cannot be asked", "tunnel", table+"/"+name, "error", err)
		http.Error(w, "the service cannot be asked; the log says why", http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		s.log.Debug("an answer was not taken", "error", err)
	}
}

// ask returns a fresh answer about a tunnel.
func (s *lagServer) ask(ctx context.Context, t topic, e *lagEntry) (lagAnswer, error) {
	select {
	case e.asking <- struct{}{}:
	case <-ctx.Done():
		return lagAnswer{}, context.Cause(ctx)
	}
	defer func() { <-e.asking }()
	if !e.answer.Time.IsZero() && time.Since(e.answer.Time) < s.fresh {
		return e.answer, nil
	}
	l, err := s.look(ctx, t)
	if err != nil {
		return lagAnswer{}, err
	}
	if l.Expired {
		return lagAnswer{}, fmt.Errorf("tunnel %s has expired", t)
	}
	e.answer = lagAnswer{l, wanted(l, s.per), time.Now().UTC()}
	return e.answer, nil
}

// paths returns the paths of the tunnels, sorted.
func (s *lagServer) paths() []string {
	var paths []string
	for t := range s.entries {
		paths = append(paths, "/lag/"+t.String())
	}
	slices.Sort(paths)
	return paths
}

func newLagServer() *cobra.Command {
	var c connection
	var addr string
	var per, fresh time.Duration
	cmd := &cobra.Command{
		Use:   "lag-server TABLE/TUNNEL...",
		Short: "Serve the lag of tunnels over HTTP, for autoscalers",
		Long: `lag-server answers GET /lag/TABLE/TUNNEL with JSON about a tunnel, as the service sees it,
also while no consumer runs:

  lag_seconds  how far the slowest channel is behind; null while that is not known
  channels     that are not at their ends: more consumers than that have nothing to do
  wanted       lag_seconds divided by --per, rounded up, between 1 and channels

KEDA's metrics-api scaler reads "wanted" with a target of 1. The answer is an error,
without a number, while the service cannot be asked or the tunnel has expired. GET /healthz
says that the server runs. It has no passwords: let only the cluster reach it.`,
		Example: `  ots lag-server orders/warehouse
  ots lag-server --addr 0.0.0.0:9090 --per 30s orders/warehouse orders/audit`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("%s needs TABLE/TUNNEL", cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case per <= 0:
				return usageError{fmt.Errorf("--per is %v; it takes a positive duration, such as 1m", per)}
			case fresh < time.Second:
				return usageError{fmt.Errorf("--fresh is %v; it takes at least 1s", fresh)}
			}
			var topics []topic
			for _, arg := range args {
				t, err := parseTopic(arg)
				if err != nil {
					return err
				}
				topics = append(topics, t)
			}
			in, err := c.open(cmd)
			if err != nil {
				return err
			}
			defer in.close()
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			look := func(ctx context.Context, t topic) (lagView, error) {
				v, _, err := in.look(ctx, t)
				return v.lag(), err
			}
			listener, err := net.Listen("tcp", addr)
			if err != nil {
				return usageError{fmt.Errorf("--addr %s: %w", addr, err)}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "listening on http://%s\n", listener.Addr())
			return serveUntilDone(cmd.Context(), listener, newLagServerHandler(look, per, fresh, log, topics))
		},
	}
	cmd.Flags().StringVar(&addr, "addr", "127.0.0.1:9090", "`HOST:PORT` to listen on; port 0 picks a free one")
	cmd.Flags().DurationVar(&per, "per", time.Minute, "lag for which one consumer is wanted")
	cmd.Flags().DurationVar(&fresh, "fresh", 5*time.Second, "how old an answer may be: the service is asked at most once in this time for each tunnel")
	c.addFlags(cmd)
	return cmd
}

// serveUntilDone serves until ctx ends, and waits for the answers that are being written.
func serveUntilDone(ctx context.Context, listener net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	var err error
	var serving sync.WaitGroup
	failed := make(chan struct{})
	serving.Go(func() { // ends with Shutdown or Close; waited for below
		if err = server.Serve(listener); errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		close(failed)
	})
	select {
	case <-ctx.Done():
	case <-failed:
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	down := server.Shutdown(closing)
	if errors.Is(down, context.DeadlineExceeded) {
		down = server.Close()
	}
	serving.Wait()
	return errors.Join(err, down)
}
