package emulator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/aging"
	"github.com/watermill-ots/watermill-ots/emulator/internal/assume"
	"github.com/watermill-ots/watermill-ots/emulator/internal/auth"
	"github.com/watermill-ots/watermill-ots/emulator/internal/store"
	"github.com/watermill-ots/watermill-ots/emulator/internal/tables"
	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
	"github.com/watermill-ots/watermill-ots/internal/closing"
)

// Emulator is a running emulator. All methods are safe for concurrent use.
//
// Two goroutines belong to it: the HTTP server's and the store's committer.
// Close waits for both and for the connections.
type Emulator struct {
	opts     Options
	log      *slog.Logger
	keys     auth.Keys
	listener net.Listener
	memory   *memoryListener // nil with a TCP listener
	server   *http.Server
	store    *store.Store
	tables   *tables.Service
	tunnels  *tunnels.Service
	faults   *faultSet
	counters counters
	records  atomic.Int64 // records handed to the tunnel service
	skew     atomic.Int64 // ns by which the service's clock is ahead
	aging    *aging.Clock // the clock by which clients, logs and shards expire
	gate     gate
	guard    *guard

	id          string // random, the beginning of request ids
	lastRequest atomic.Int64

	conns   sync.WaitGroup // open connections, and so handlers; only the server's loop adds to it
	serving chan struct{}  // closed when the server's loop has ended
	closing chan struct{}  // closed when Close begins
	ended   closing.Once   // by Close
}

// Start opens the data directory, if any, and listens. The emulator serves
// requests until Close.
//
// The error says which option is wrong, or what is wrong with the address or
// the data directory (ErrDataDirInUse, ErrDataDirForeign, ErrDataDirDamaged).
func Start(opts Options) (*Emulator, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	e := &Emulator{
		opts: opts,
		log:  opts.Logger,
		keys: auth.Keys{
			ID: opts.AccessKeyID, Secret: opts.AccessKeySecret, Token: opts.SecurityToken, Instance: opts.Instance, Region: opts.Region,
			Assume: assume.Of(opts.Assume),
		},
		faults:   newFaultSet(opts.Seed),
		guard:    newGuard(opts.AllowedHosts),
		counters: newCounters(),
		id:       rand.Text(),
		serving:  make(chan struct{}),
		closing:  make(chan struct{}),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if err := e.openServices(); err != nil {
		return nil, err
	}
	if err := e.listen(); err != nil {
		return nil, errors.Join(err, e.tunnels.Close(), e.store.Close())
	}
	if addr := e.listener.Addr(); reachable(addr) {
		e.log.Warn("other machines can reach this emulator", "address", addr.String(), "signatures_checked", opts.AccessKeyID != "")
	}
	e.log.Info("emulator started", "endpoint", e.Endpoint(), "data_dir", opts.DataDir, "instance", opts.Instance)
	return e, nil
}

// openServices opens the store and the services on top of it.
func (e *Emulator) openServices() error {
	var err error
	e.aging = aging.New(e.now)
	e.store, err = store.Open(store.Config{Dir: e.opts.DataDir, Sync: e.opts.Sync, Now: e.now, Aging: e.aging})
	if err != nil {
		return fmt.Errorf("starting the emulator: %w", err)
	}
	e.tables = tables.New(e.store, e.opts.Lenient)
	instance := e.opts.Instance
	if instance == "" {
		instance = defaultInstance
	}
	e.tunnels, err = tunnels.New(countingSource{e.store, &e.records}, tunnels.Config{Instance: instance, Logger: e.log, Now: e.now, Aging: e.aging, Assume: assume.Of(e.opts.Assume)})
	if err != nil {
		return errors.Join(fmt.Errorf("starting the tunnel service: %w", err), e.store.Close())
	}
	return nil
}

func (e *Emulator) listen() error {
	if e.opts.InMemory {
		e.memory = newMemoryListener()
		e.guard.pipes = true
		e.listener = e.memory
	} else {
		addr := e.opts.Addr
		if addr == "" {
			addr = "127.0.0.1:0"
		}
		var err error
		if e.listener, err = net.Listen("tcp", addr); err != nil {
			return fmt.Errorf("listening on %s: %w", addr, err)
		}
	}
	e.server = &http.Server{
		Handler:           e.guarded(e.serve),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          log.New(logWriter{e.log}, "", 0),
		ConnState:         e.track,
	}
	// It ends with the listener; Close waits for it.
	go func() {
		defer close(e.serving)
		if err := e.server.Serve(e.listener); !errors.Is(err, http.ErrServerClosed) {
			e.log.Error("the emulator stopped serving", "error", err)
		}
	}()
	return nil
}

// track counts connections. A handler that hijacked its connection only has to
// return.
func (e *Emulator) track(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		e.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		e.guard.own.Delete(conn.RemoteAddr().String())
		e.conns.Done()
	}
}

// logWriter passes the HTTP server's complaints about connections to the log.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(b []byte) (int, error) {
	w.log.Debug("http", "message", string(b))
	return len(b), nil
}

// now is the service's clock.
func (e *Emulator) now() time.Time { return time.Now().Add(time.Duration(e.skew.Load())) }

// Endpoint returns the URL for clients, without a trailing slash. With InMemory
// it is reachable through Transport only.
func (e *Emulator) Endpoint() string {
	if e.memory != nil {
		return memoryEndpoint
	}
	return "http://" + e.listener.Addr().String()
}

// Transport returns an HTTP transport to the emulator, whatever a request's
// host is. The caller closes its idle connections when it is done; Close closes
// them in any case.
func (e *Emulator) Transport() *http.Transport {
	dialer := &net.Dialer{}
	return &http.Transport{
		MaxIdleConnsPerHost: 256,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if e.memory != nil {
				return e.memory.dial(ctx)
			}
			conn, err := dialer.DialContext(ctx, "tcp", e.listener.Addr().String())
			if err == nil {
				e.guard.own.Store(conn.LocalAddr().String(), true)
			}
			return conn, err
		},
	}
}

// Close stops listening, gives requests in flight a short time to finish,
// closes all connections and releases the data directory. It returns when all
// goroutines of the emulator have ended; a second call waits for the first.
func (e *Emulator) Close() error {
	return e.ended.Do(func() error {
		close(e.closing)
		ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
		defer cancel()
		err := e.server.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = e.server.Close()
		}
		<-e.serving
		e.conns.Wait()
		err = errors.Join(err, e.tunnels.Close(), e.store.Close())
		if err != nil {
			e.log.Error("emulator closed", "error", err)
		} else {
			e.log.Info("emulator closed")
		}
		return err
	})
}
