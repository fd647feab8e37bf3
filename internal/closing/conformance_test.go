package closing_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/publisher"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// closeTimeout is the CloseTimeout of all that have one.
const closeTimeout = 200 * time.Millisecond

// closer is something that is closed, with what the test needs to know of it.
type closer struct {
	io.Closer
	start func()                // uses it, and leaves it idle
	busy  func() (leave func()) // gives it something that does not end by itself until leave is called
	limit time.Duration         // of Close while it is busy
	late  error                 // of Close while it is busy; nil: none
	use   func() error          // uses it
	ended error                 // of use after Close; nil: any
}

// closers make what the package documentation lists.
var closers = map[string]func(t *testing.T) *closer{
	"subscriber": newSubscriber, "batching": newBatching, "publisher": newPublisher, "router": newRouter, "emulator": newEmulator,
}

// stuck is a handler that does not return until leave is called, whatever its context says.
type stuck struct {
	entered, left chan struct{}
	once          sync.Once
}

func newStuck() *stuck {
	return &stuck{entered: make(chan struct{}), left: make(chan struct{})}
}

func (s *stuck) handle() {
	s.once.Do(func() { close(s.entered) })
	<-s.left
}

func (s *stuck) leave() { close(s.left) }

func newSubscriber(t *testing.T) *closer {
	bed := testbed.New(t, emulator.Options{})
	bed.CreateTunnel(tunnel.TunnelTypeStream)
	cfg := testbed.Config(bed.Emulator.Endpoint())
	cfg.CloseTimeout = closeTimeout
	s, err := subscriber.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := newStuck()
	handle := func() error {
		_, err := s.Handle(context.Background(), testbed.Topic, func(*message.Message) error { h.handle(); return nil })
		return err
	}
	start := func() {
		if err := handle(); err != nil {
			t.Fatal(err)
		}
	}
	return &closer{
		Closer: s, start: start, limit: closeTimeout + 5*time.Second, late: subscriber.ErrDrainTimeout, use: handle, ended: subscriber.ErrClosed,
		busy: func() func() {
			start()
			if err := bed.Put("a", 1); err != nil {
				t.Fatal(err)
			}
			<-h.entered
			return h.leave
		},
	}
}

func newBatching(t *testing.T) *closer {
	h := newStuck()
	var isStuck bool // set before the message that gets stuck
	b, err := batching.New(batching.Config{
		CloseTimeout: closeTimeout,
		Batchers: map[string]batching.Batcher{batching.DefaultBatcher: {Size: 1, Handler: func(context.Context, *batching.Batch) error {
			if isStuck {
				h.handle()
			}
			return nil
		}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	handle := b.Middleware(func(*message.Message) ([]*message.Message, error) { return nil, nil })
	use := func() error {
		_, err := handle(message.NewMessage("m", nil))
		return err
	}
	return &closer{
		Closer: b, limit: closeTimeout + time.Second, late: batching.ErrCloseTimeout, use: use, ended: batching.ErrClosed,
		start: func() {
			if err := use(); err != nil {
				t.Fatal(err)
			}
		},
		busy: func() func() {
			isStuck = true
			ended := make(chan struct{})
			go func() { defer close(ended); _ = use() }() // ends with leave, which waits
			<-h.entered
			return func() { h.leave(); <-ended }
		},
	}
}

// hanging is a transport whose requests get no answer while it hangs.
type hanging struct {
	*http.Transport
	mu      sync.Mutex
	entered chan struct{} // not nil: it hangs
}

func (h *hanging) RoundTrip(req *http.Request) (*http.Response, error) {
	h.mu.Lock()
	entered := h.entered
	h.mu.Unlock()
	if entered == nil {
		return h.Transport.RoundTrip(req)
	}
	close(entered)
	<-req.Context().Done()
	return nil, context.Cause(req.Context())
}

func newPublisher(t *testing.T) *closer {
	bed := testbed.New(t, emulator.Options{})
	transport := &hanging{Transport: bed.Emulator.Transport()}
	t.Cleanup(transport.CloseIdleConnections)
	p, err := publisher.New(publisher.Config{
		Endpoint: bed.Emulator.Endpoint(), Instance: testbed.Instance, AccessKeyID: testbed.KeyID, AccessKeySecret: testbed.KeySecret,
		Transport: transport, CloseTimeout: closeTimeout,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	use := func() error { return p.CreateTable(context.Background(), "rows") }
	return &closer{
		Closer: p, limit: closeTimeout, late: publisher.ErrCloseTimeout, use: use, ended: publisher.ErrClosed,
		start: func() {
			if err := use(); err != nil {
				t.Fatal(err)
			}
		},
		busy: func() func() {
			entered, ended := make(chan struct{}), make(chan struct{})
			transport.mu.Lock()
			transport.entered = entered
			transport.mu.Unlock()
			go func() { defer close(ended); _ = use() }() // ends with Close; leave waits
			<-entered
			return func() { <-ended }
		},
	}
}

func newRouter(t *testing.T) *closer {
	bed := testbed.New(t, emulator.Options{})
	bed.CreateTunnel(tunnel.TunnelTypeStream)
	r, err := router.New(router.Config{
		Instances: map[string]router.Instance{"main": {Name: testbed.Instance, Endpoint: bed.Emulator.Endpoint(), AccessKeyID: testbed.KeyID, AccessKeySecret: testbed.KeySecret}},
		Tunnels: map[string]router.Tunnel{"changes": {
			Instance: "main", TableName: testbed.Table, TunnelName: testbed.Tunnel, MaxPollInterval: 50 * time.Millisecond, CloseTimeout: closeTimeout,
		}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := newStuck()
	if err := r.Handle("changes", router.Handlers{Process: func(*message.Message) error { h.handle(); return nil }}); err != nil {
		t.Fatal(err)
	}
	var ran chan error // nil: Run was not called
	start := func() {
		ran = make(chan error, 1)
		go func() { ran <- r.Run(context.Background()) }() // ends with Close
		<-r.Running()
	}
	c := &closer{
		Closer: r, start: start, late: subscriber.ErrDrainTimeout,
		limit: closeTimeout + 10*time.Second, // the router's lastCalls
		use: func() error {
			_, err := r.Test(context.Background(), "changes")
			return err
		},
		ended: router.ErrClosed,
		busy: func() func() {
			start()
			if err := bed.Put("a", 1); err != nil {
				t.Fatal(err)
			}
			<-h.entered
			return h.leave
		},
	}
	t.Cleanup(func() {
		if ran == nil {
			return
		}
		if err, closed := <-ran, r.Close(); err != closed {
			t.Errorf("Run returned %v, Close %v", err, closed)
		}
	})
	return c
}

func newEmulator(t *testing.T) *closer {
	e, err := emulator.Start(emulator.Options{Instance: testbed.Instance, AccessKeyID: testbed.KeyID, AccessKeySecret: testbed.KeySecret})
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(e.Endpoint(), "http://")
	dial := func() (net.Conn, error) { return net.DialTimeout("tcp", host, time.Second) }
	use := func() error {
		conn, err := dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := fmt.Fprintf(conn, "POST /ListTable HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", host); err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 1))
		return err
	}
	return &closer{
		Closer: e, limit: 2 * time.Second, use: use, // the emulator's closeGrace
		start: func() {
			if err := use(); err != nil {
				t.Fatal(err)
			}
		},
		busy: func() func() {
			conn, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			// A request that the client does not finish.
			if _, err := io.WriteString(conn, "POST /ListTable HTTP/1.1\r\n"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond) // until the server has read it: nothing says so
			return func() { conn.Close() }
		},
	}
}

// slack is what a loaded machine adds to a limit.
const slack = 3 * time.Second

// closeOften calls Close from several goroutines at once, and once more after that. It returns what all
// of them returned.
func closeOften(t *testing.T, c *closer, limit time.Duration) error {
	t.Helper()
	const calls = 8
	errs := make([]error, calls)
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() { errs[i] = c.Close() })
	}
	wg.Wait()
	if took := time.Since(begun); took > limit+slack {
		t.Errorf("Close took %v, more than %v", took, limit)
	}
	begun = time.Now()
	errs = append(errs, c.Close())
	if took := time.Since(begun); took > slack {
		t.Errorf("another Close took %v", took)
	}
	for _, err := range errs[1:] {
		if err != errs[0] {
			t.Errorf("one Close returned %v, another %v", errs[0], err)
		}
	}
	if err := c.use(); err == nil || c.ended != nil && !errors.Is(err, c.ended) {
		t.Errorf("after Close it can be used: %v", err)
	}
	return errs[0]
}

// Every Close waits for the end and returns the same error.
func TestClose(t *testing.T) {
	for name, open := range closers {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits in real time
			t.Run("before it is started", func(t *testing.T) {
				if err := closeOften(t, open(t), 0); err != nil {
					t.Error(err)
				}
			})
			t.Run("while it is idle", func(t *testing.T) {
				c := open(t)
				c.start()
				if err := closeOften(t, c, c.limit); err != nil {
					t.Error(err)
				}
			})
			t.Run("while it is busy", func(t *testing.T) {
				c := open(t)
				leave := c.busy()
				defer leave()
				if err := closeOften(t, c, c.limit); (err == nil) != (c.late == nil) || !errors.Is(err, c.late) {
					t.Errorf("Close returned %v, want %v", err, c.late)
				}
			})
		})
	}
}
