package batching

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// rapid's default is 100, a fraction of a second here. The command line wins.
	if err := flag.Set("rapid.checks", "2000"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// handled is one call of a batch handler, as recorder saw it.
type handled struct {
	batcher, key string
	uuids        string // joined by blanks
	trigger      Trigger
	partition    int
	oldest       time.Duration // age of the oldest message
	at           time.Duration // since the recorder was created
}

// recorder is a batch handler that records its calls.
type recorder struct {
	start time.Time
	after func(ctx context.Context, b *Batch) error // nil: succeed

	mu    sync.Mutex
	calls []handled
}

func newRecorder() *recorder { return &recorder{start: time.Now()} }

func (r *recorder) handle(ctx context.Context, b *Batch) error {
	r.mu.Lock()
	r.calls = append(r.calls, handled{
		batcher: b.Batcher, key: b.Key, uuids: uuids(b.Messages), trigger: b.Trigger,
		partition: b.Partition, oldest: time.Since(b.Oldest), at: time.Since(r.start),
	})
	r.mu.Unlock()
	if r.after != nil {
		return r.after(ctx, b)
	}
	return nil
}

// seen returns the calls so far.
func (r *recorder) seen() []handled {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]handled(nil), r.calls...)
}

// batches returns the calls so far as "a b|c", in the order in which they began.
func (r *recorder) batches() string {
	var all []string
	for _, c := range r.seen() {
		all = append(all, c.uuids)
	}
	return strings.Join(all, "|")
}

func uuids(msgs []*message.Message) string {
	ids := make([]string, len(msgs))
	for i, m := range msgs {
		ids[i] = m.UUID
	}
	return strings.Join(ids, " ")
}

// pass is one message in a middleware, in its own goroutine as in the Router.
type pass struct {
	msg      *message.Message
	done     chan struct{} // closed when the middleware has returned
	produced []*message.Message
	err      error
	took     time.Duration
}

// send calls h with msg, and settles msg when h has returned, as the Router does.
func send(h message.HandlerFunc, msg *message.Message) *pass {
	p := &pass{msg: msg, done: make(chan struct{})}
	start := time.Now()
	go func() {
		defer close(p.done)
		p.produced, p.err = h(msg)
		p.took = time.Since(start)
		if p.err != nil {
			msg.Nack()
		} else {
			msg.Ack()
		}
	}()
	return p
}

// result waits for the end and returns the error.
func (p *pass) result() error {
	<-p.done
	return p.err
}

func (p *pass) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func msgOf(uuid string) *message.Message { return message.NewMessage(uuid, []byte("payload")) }

// produce is a processing step that produces one message, "out-" and the UUID.
func produce(msg *message.Message) ([]*message.Message, error) {
	return []*message.Message{msgOf("out-" + msg.UUID)}, nil
}

// mustNew returns a Batching with these batchers, which is closed when the test ends.
func mustNew(t testing.TB, cfg Config, logger watermill.LoggerAdapter) *Batching {
	t.Helper()
	b, err := New(cfg, logger)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// one is a config with just the default batcher.
func one(b Batcher) Config { return Config{Batchers: map[string]Batcher{DefaultBatcher: b}} }

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func contains(t testing.TB, what string, err error, parts ...string) {
	t.Helper()
	text := fmt.Sprint(err)
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s: %q is not in the error: %s", what, p, text)
		}
	}
}

// forgotten returns how many turns remain after those that are over are dropped.
func forgotten(b *Batching) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sweep()
	return len(b.latest)
}
