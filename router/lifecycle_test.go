package router_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestRunFailsAtOnce(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	bed.CreateTunnel(tunnel.TunnelTypeStream)
	good := fileFor(bed, "")
	for _, c := range []struct {
		name, yaml string
		is         error
		names      string
	}{
		{"wrong_key", strings.Replace(good, testbed.KeySecret, "other", 1), ots.ErrAuth, "tunnels.numbers"},
		{"no_such_table", strings.Replace(good, "table_name: "+testbed.Table, "table_name: none", 1), nil, "tunnels.numbers"},
		{"no_such_tunnel", strings.Replace(strings.Replace(good, "tunnel_name: "+testbed.Tunnel, "tunnel_name: none", 1), "tunnel: {create: true, type: Stream}", "", 1), ots.ErrTunnelGone, "none"},
		{"one_of_two", strings.Replace(good, "instances:", "instances:\n  other: {name: "+testbed.Instance+", endpoint: \""+bed.Emulator.Endpoint()+
			"\", access_key_id: "+testbed.KeyID+", access_key_secret: wrong}", 1) + "  second: {instance: other, table_name: " + testbed.Table + ", tunnel_name: none}\n", ots.ErrAuth, "tunnels.second"},
		{"dead_letter_table_unreachable", strings.Replace(good, "instances:", "instances:\n  far: {name: x, endpoint: \"http://127.0.0.1:1\", access_key_id: a, access_key_secret: b}", 1) +
			"    failure: {dead_letter: {instance: far, table: dead}}\n", nil, "tunnels.numbers.failure.dead_letter"},
		{"dead_letter_table_with_a_wrong_key", strings.Replace(good, "instances:", "instances:\n  other: {name: "+testbed.Instance+", endpoint: \""+bed.Emulator.Endpoint()+
			"\", access_key_id: "+testbed.KeyID+", access_key_secret: wrong}", 1) +
			"    failure: {dead_letter: {instance: other, table: dead}}\n", ots.ErrAuth, "tunnels.numbers.failure.dead_letter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := build(t, c.yaml)
			for _, name := range []string{"numbers", "second"} {
				if err := r.Handle(name, router.Handlers{Process: noProcess}); err != nil && name == "numbers" {
					t.Fatal(err)
				}
			}
			err := r.Run(context.Background())
			if err == nil {
				t.Fatal("Run returned nil")
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %v, want %v", err, c.is)
			}
			if !strings.Contains(err.Error(), c.names) || strings.Contains(err.Error(), testbed.KeySecret) {
				t.Errorf("got %v", err)
			}
			if err := r.Run(context.Background()); err == nil {
				t.Error("a second Run did not fail")
			}
		})
	}
}

func TestCloseIsBoundedByCloseTimeout(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	r := build(t, strings.Replace(fileFor(bed, ""), "close_timeout: 5s", "close_timeout: 300ms", 1))
	entered := make(chan struct{}, 1)
	causes := make(chan error, 1)
	err := r.Handle("numbers", router.Handlers{Process: func(msg *message.Message) error {
		entered <- struct{}{}
		<-msg.Context().Done() // cancelled only when the time is up
		causes <- context.Cause(msg.Context())
		return msg.Context().Err()
	}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(context.Background()) }() // ends with Close
	<-r.Running()
	bed.PutAll(1, 1)
	<-entered
	began := time.Now()
	if err := r.Close(); !errors.Is(err, subscriber.ErrDrainTimeout) {
		t.Errorf("Close: %v", err)
	}
	if took := time.Since(began); took < 300*time.Millisecond || took > 10*time.Second {
		t.Errorf("Close took %v", took)
	}
	if cause := <-causes; !errors.Is(cause, subscriber.ErrDrainTimeout) {
		t.Errorf("the message's context ended with %v", cause)
	}
	if err := <-ended; !errors.Is(err, subscriber.ErrDrainTimeout) {
		t.Errorf("Run: %v", err)
	}
}

func TestRunIsStoppedWhileItConnects(t *testing.T) {
	const more = "    failure: {dead_letter: {table: dead}}\n"
	for _, operation := range []string{"DescribeTable", "tunnel/describe", "tunnel/connect"} {
		t.Run(operation, func(t *testing.T) {
			bed := testbed.New(t, emulator.Options{})
			bed.Emulator.Inject(emulator.Fault{Operation: operation, Hang: true})
			r := build(t, fileFor(bed, more))
			if err := r.Handle("numbers", router.Handlers{Process: noProcess}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- r.Run(ctx) }() // ends with cancel
			testbed.Eventually(t, 10*time.Second, "the call hangs", func() bool { return bed.Emulator.Stats().Operations[operation].Requests > 0 })
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

func TestTheEndOfTheContextDrains(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	r := build(t, fileFor(bed, "    batchers: {default: {batch_timeout: 1h}}\n"))
	j := newJournal()
	entered := make(chan struct{}, 100)
	err := r.Handle("numbers", router.Handlers{
		Process: func(*message.Message) error { entered <- struct{}{}; return nil },
		Batches: batchHandlers{"default": collectInto(j)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }() // ends with ctx
	<-r.Running()
	bed.PutAll(10, 1)
	for range 10 {
		<-entered
	}
	cancel() // the batch would have waited for an hour
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if j.count() != 10 {
		t.Errorf("%d changes were handled in the drain", j.count())
	}
	if err := r.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// logLines is a logger that keeps the lines of itself and its descendants.
type logLines struct {
	all  *lockedLines
	with watermill.LogFields
}

type lockedLines struct {
	mu    sync.Mutex
	lines []string
}

func (l logLines) add(msg string, f watermill.LogFields) {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	l.all.lines = append(l.all.lines, fmt.Sprint(msg, l.with, f))
}

func (l logLines) text() string {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	return strings.Join(l.all.lines, "\n")
}

func (l logLines) Error(msg string, err error, f watermill.LogFields) { l.add(msg+": "+err.Error(), f) }
func (l logLines) Info(msg string, f watermill.LogFields)             { l.add(msg, f) }
func (l logLines) Debug(msg string, f watermill.LogFields)            { l.add(msg, f) }
func (l logLines) Trace(msg string, f watermill.LogFields)            { l.add(msg, f) }
func (l logLines) With(f watermill.LogFields) watermill.LoggerAdapter {
	return logLines{l.all, l.with.Add(f)}
}

func TestDebugLogsRequestsWithoutSecrets(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	yaml := strings.Replace(fileFor(bed, ""), "    access_key_id:", "    debug: true\n    pool_size: 4\n    pool_max_overflow: 2\n    security_token: sts-token\n    access_key_id:", 1)
	log := logLines{all: new(lockedLines)}
	r := buildLogging(t, yaml, log)
	handled := make(chan struct{}, 1)
	if err := r.Handle("numbers", router.Handlers{Process: func(*message.Message) error { handled <- struct{}{}; return nil }}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(context.Background()) }() // ends with Close
	<-r.Running()
	bed.PutAll(1, 1)
	<-handled
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
	all := log.text()
	for _, path := range []string{"/tunnel/describe", "/tunnel/connect", "/tunnel/readrecords", "/tunnel/checkpoint"} {
		if !strings.Contains(all, path) {
			t.Errorf("no request of %s was logged", path)
		}
	}
	for _, secret := range []string{testbed.KeyID, testbed.KeySecret, "sts-token"} {
		if strings.Contains(all, secret) {
			t.Errorf("%q was logged", secret)
		}
	}
	if !strings.Contains(all, "x-ots-signature:REDACTED") || !strings.Contains(all, "x-ots-instancename:"+testbed.Instance) {
		t.Error("headers are missing in the log")
	}
}

func TestCredentialsOfAProviderServeTunnelAndTable(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	yaml := strings.Replace(fileFor(bed, "    failure: {dead_letter: {table: dead}}\n"),
		"access_key_id: "+testbed.KeyID+"\n    access_key_secret: "+testbed.KeySecret, "credentials: ram", 1)
	r := build(t, yaml)
	var mu sync.Mutex
	asked, inside := 0, 0
	err := r.RegisterCredentials("ram", ots.CredentialsProviderFunc(func(context.Context) (ots.Credentials, error) {
		mu.Lock()
		asked++
		inside++
		if inside > 1 {
			t.Error("the provider is asked by two at once")
		}
		mu.Unlock()
		defer func() { mu.Lock(); inside--; mu.Unlock() }()
		return ots.Credentials{AccessKeyID: testbed.KeyID, AccessKeySecret: testbed.KeySecret}, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Handle("numbers", router.Handlers{Process: func(*message.Message) error { return backoff.Permanent(errPoison) }}); err != nil {
		t.Fatal(err)
	}
	start(t, r)
	bed.PutAll(3, 1)
	testbed.Eventually(t, 20*time.Second, "dead letters were written", func() bool { return len(letterRows(t, bed, "dead")) == 3 })
	mu.Lock()
	defer mu.Unlock()
	if asked != 2 {
		t.Errorf("the provider was asked %d times, not once for the tunnel and once for the table", asked)
	}
}

func TestTwoTunnelsOfOneTable(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	first := fileFor(bed, "")
	second := strings.SplitN(first, "  numbers:\n", 2)[1]
	r := build(t, first+"  again:\n"+strings.Replace(second, "tunnel_name: "+testbed.Tunnel, "tunnel_name: other", 1))
	journals := map[string]*journal{"numbers": newJournal(), "again": newJournal()}
	for name, j := range journals {
		if err := r.Handle(name, router.Handlers{Process: func(msg *message.Message) error { j.add(msg); return nil }}); err != nil {
			t.Fatal(err)
		}
	}
	start(t, r)
	bed.PutAll(5, 3)
	testbed.Eventually(t, 20*time.Second, "both pipelines saw every change", func() bool {
		return journals["numbers"].count() == 15 && journals["again"].count() == 15
	})
	for name, j := range journals {
		for i := range 5 {
			if v := j.of(testbed.Key(i)); !equal(v, []int64{1, 2, 3}) {
				t.Errorf("%s: %s came in the order %v", name, testbed.Key(i), v)
			}
		}
	}
}

func TestClosingTheWatermillRouterDrains(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	r := build(t, fileFor(bed, ""))
	if err := r.Handle("numbers", router.Handlers{Process: noProcess}); err != nil {
		t.Fatal(err)
	}
	wm := r.Watermill()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(context.Background()) }() // ends with the Watermill router
	<-r.Running()
	if err := wm.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-ended; err != nil || !router.Stopping(r) {
		t.Errorf("Run: %v, stopping %v", err, router.Stopping(r))
	}
}

func TestAddMiddlewareRefusesWhatWouldHaveNoEffect(t *testing.T) {
	panics := func(f func()) (got any) {
		defer func() { got = recover() }()
		f()
		return nil
	}
	r := build(t, offline(""))
	if panics(func() { r.AddMiddleware(nil) }) == nil {
		t.Error("a nil middleware was taken")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if panics(func() { r.AddMiddleware(func(h message.HandlerFunc) message.HandlerFunc { return h }) }) == nil {
		t.Error("a middleware was taken after Close")
	}
}

func TestPipelinesRunInTheWatermillRouterThatWasAskedFor(t *testing.T) {
	for _, asked := range []bool{true, false} {
		t.Run(fmt.Sprintf("asked_%v", asked), func(t *testing.T) {
			bed := testbed.New(t, emulator.Options{})
			r := build(t, fileFor(bed, ""))
			names := make(chan string, 100)
			if err := r.Handle("numbers", router.Handlers{Process: func(msg *message.Message) error {
				names <- message.HandlerNameFromCtx(msg.Context())
				return nil
			}}); err != nil {
				t.Fatal(err)
			}
			around := make(chan struct{}, 100)
			want := ""
			if asked {
				want = "numbers"
				r.Watermill().AddMiddleware(func(h message.HandlerFunc) message.HandlerFunc {
					return func(msg *message.Message) ([]*message.Message, error) {
						around <- struct{}{}
						return h(msg)
					}
				})
			}
			ended := make(chan error, 1)
			go func() { ended <- r.Run(context.Background()) }() // ends with Close
			<-r.Running()
			bed.PutAll(5, 1)
			for range 5 {
				select {
				case name := <-names:
					if name != want {
						t.Errorf("Watermill calls the handler %q, want %q", name, want)
					}
					if asked {
						<-around
					}
				case <-time.After(20 * time.Second):
					t.Fatal("a message is missing")
				}
			}
			if err := errors.Join(r.Close(), <-ended); err != nil {
				t.Error(err)
			}
		})
	}
}
