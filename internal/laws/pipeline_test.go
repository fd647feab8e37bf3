package laws

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// pipeline is a Watermill Router with batches over the tunnel, as a program
// would have it, in the test's process.
type pipeline struct {
	router  *message.Router
	batches *batching.Batching
	stopped chan error // the result of Run
	once    sync.Once
}

// setup configures a pipeline; the zero setup handles batches of the default
// size, which succeed.
type setup struct {
	subscriber func(*subscriber.Config)
	batcher    batching.Batcher            // its Handler is the observer's
	handle     batching.HandlerFunc        // what the batch handler does; nil: succeed
	outside    []message.HandlerMiddleware // around the batches, the first one outermost
	publisher  message.Publisher           // gets one message for each record, its change; nil: no messages
}

// start starts a pipeline that reports to o. It is closed at the end of the
// test at the latest.
func (s setup) start(t *testing.T, b *testbed.Bed, o *observer) *pipeline {
	t.Helper()
	cfg := testbed.Config(b.Emulator.Endpoint())
	cfg.HeartbeatTimeout = 30 * time.Second // a busy machine must not cause lost channels
	cfg.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(20 * time.Millisecond) }
	if s.subscriber != nil {
		s.subscriber(&cfg)
	}
	sub, err := subscriber.New(cfg, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	s.batcher.Handler = o.watch(s.handle)
	p := &pipeline{stopped: make(chan error, 1)}
	if p.batches, err = batching.New(batching.Config{Defaults: s.batcher, Batchers: map[string]batching.Batcher{batching.DefaultBatcher: {}}}, nil); err != nil {
		t.Fatal(err)
	}
	if p.router, err = message.NewRouter(message.RouterConfig{}, watermill.NopLogger{}); err != nil {
		t.Fatal(err)
	}
	p.router.AddMiddleware(s.outside...)
	p.router.AddMiddleware(p.batches.Middleware)
	if s.publisher == nil {
		p.router.AddConsumerHandler("changes", testbed.Topic, sub, func(*message.Message) error {
			o.arrive()
			return nil
		})
	} else {
		p.router.AddHandler("changes", testbed.Topic, sub, "out", s.publisher, func(msg *message.Message) ([]*message.Message, error) {
			o.arrive()
			return []*message.Message{message.NewMessage(changeOf(msg).String(), nil)}, nil
		})
	}
	go func() { p.stopped <- p.router.Run(context.Background()) }() // ends with close
	<-p.router.Running()
	t.Cleanup(func() { p.close(t) })
	return p
}

// close ends the pipeline as docs/batching.md describes.
func (p *pipeline) close(t *testing.T) {
	t.Helper()
	p.once.Do(func() {
		if err := errors.Join(p.router.Close(), <-p.stopped, p.batches.Close()); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
}

// change identifies a record of the testbed's table.
type change struct {
	key     string
	version int
}

func (c change) String() string { return fmt.Sprintf("%s/%d", c.key, c.version) }

func changeOf(msg *message.Message) change {
	r, _ := ots.RecordFromMessage(msg)
	v, _ := r.Column("v")
	return change{r.PrimaryKey[0].Value.String(), int(v.Int64())}
}

// call is one call of the batch handler.
type call struct {
	changes []change
	trigger batching.Trigger
}

// observer watches batch handlers and checks the order of each key (law L3): a
// batch has the next version of a key, all others follow without a gap, and no
// two batches that run at the same time share a key. As no consumer dies in
// these tests, that also means that nothing succeeds twice.
//
// All methods may be called concurrently.
type observer struct {
	mu       sync.Mutex
	arrived  int // calls of the processing step
	calls    []call
	done     map[string]int       // by key: the version up to which all have succeeded
	running  map[string]bool      // keys
	attempts map[change]int       // the Attempt of the latest delivery to a handler
	latest   map[string]time.Time // by channel: the time of the newest change that a handler has received
	faults   []error
}

func newObserver() *observer {
	return &observer{done: map[string]int{}, running: map[string]bool{}, attempts: map[change]int{}, latest: map[string]time.Time{}}
}

func (o *observer) arrive() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.arrived++
}

// watch wraps a batch handler.
func (o *observer) watch(handle batching.HandlerFunc) batching.HandlerFunc {
	return func(ctx context.Context, b *batching.Batch) (err error) {
		o.begin(b)
		finished := false
		defer func() { o.end(b, finished && err == nil) }() // passes a panic on
		if handle != nil {
			err = handle(ctx, b)
		}
		finished = true
		return err
	}
}

// begin checks that the batch may run.
func (o *observer) begin(b *batching.Batch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := call{trigger: b.Trigger}
	here := make(map[string]int)
	for _, msg := range b.Messages {
		ch := changeOf(msg)
		last, seen := here[ch.key]
		if !seen {
			if last = o.done[ch.key]; o.running[ch.key] {
				o.fault("call %d: two batches with %s run at once", len(o.calls), ch.key)
			}
		}
		if ch.version != last+1 {
			o.fault("call %d: %v follows version %d", len(o.calls), ch, last)
		}
		here[ch.key] = ch.version
		c.changes = append(c.changes, ch)
		r, _ := ots.RecordFromMessage(msg)
		o.attempts[ch] = r.Attempt
		if at := time.UnixMicro(r.Sequence.Timestamp); !r.Sequence.IsZero() && at.After(o.latest[r.Channel]) {
			o.latest[r.Channel] = at
		}
	}
	for key := range here {
		o.running[key] = true
	}
	o.calls = append(o.calls, c)
}

// end records what has succeeded. Messages after a failed change of its key in
// the batch have not: they are called back.
func (o *observer) end(b *batching.Batch, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	broken := make(map[string]bool)
	for _, msg := range b.Messages {
		ch := changeOf(msg)
		delete(o.running, ch.key)
		broken[ch.key] = broken[ch.key] || !ok || b.Err(msg) != nil
		if !broken[ch.key] {
			o.done[ch.key] = ch.version
		}
	}
}

// settle records that the change was handled outside of the batches.
func (o *observer) settle(ch change) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.done[ch.key] != ch.version-1 {
		o.fault("%v is settled after version %d", ch, o.done[ch.key])
	}
	o.done[ch.key] = ch.version
}

// fault records a fault. mu is held.
func (o *observer) fault(format string, args ...any) {
	o.faults = append(o.faults, fmt.Errorf(format, args...))
}

// seen returns the calls so far.
func (o *observer) seen() []call {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]call(nil), o.calls...)
}

// attempt returns the attempt of the change's latest delivery to a handler.
func (o *observer) attempt(ch change) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.attempts[ch]
}

// handledUpTo returns the version of the key up to which all are done.
func (o *observer) handledUpTo(key string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.done[key]
}

// handled returns the number of changes that are done.
func (o *observer) handled() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, version := range o.done {
		n += version
	}
	return n
}

// awaitArrived waits until n messages have been given to the processing step.
func (o *observer) awaitArrived(t *testing.T, n int) {
	t.Helper()
	testbed.Eventually(t, 20*time.Second, fmt.Sprintf("%d messages have arrived", n), func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.arrived >= n
	})
}

// awaitHandled waits until n changes are done.
func (o *observer) awaitHandled(t *testing.T, n int) {
	t.Helper()
	testbed.Eventually(t, 20*time.Second, fmt.Sprintf("%d changes are handled", n), func() bool { return o.handled() >= n })
}

// check checks that versions 1 to n of all keys are done, in order.
func (o *observer) check(t *testing.T, keys, n int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := errors.Join(o.faults...); err != nil {
		t.Error(err)
	}
	for i := range keys {
		if got := o.done[testbed.Key(i)]; got != n {
			t.Errorf("%s is handled up to version %d of %d", testbed.Key(i), got, n)
		}
	}
	if len(o.done) > keys {
		t.Errorf("%d keys were handled, %d were written", len(o.done), keys)
	}
}

// checkTriggers checks why the batches were handled.
func (o *observer) checkTriggers(t *testing.T, want batching.Trigger) {
	t.Helper()
	for i, c := range o.seen() {
		if c.trigger != want {
			t.Errorf("call %d, of %d changes, was triggered by %s, want %s", i, len(c.changes), c.trigger, want)
		}
	}
}

// checkCommitted checks that the service has a checkpoint after everything that
// was handled: by its description, and by what the next consumer receives,
// which must only be the later writes to each of the tail keys.
func (o *observer) checkCommitted(t *testing.T, b *testbed.Bed, tunnelID string, tails ...string) {
	t.Helper()
	points := b.Committed(tunnelID)
	for channel, at := range o.latest {
		if point, open := points[channel]; open && point.Before(at) {
			t.Errorf("channel %s is committed up to %v, a change of %v was handled", channel, point, at)
		}
	}
	for _, key := range tails {
		if err := b.Put(key, 1); err != nil {
			t.Fatal(err)
		}
	}
	next := newObserver()
	p := setup{batcher: batching.Batcher{Size: 1}}.start(t, b, next)
	next.awaitHandled(t, len(tails))
	p.close(t)
	for _, c := range next.seen() {
		for _, ch := range c.changes {
			if o.done[ch.key] > 0 {
				t.Errorf("the next consumer receives %v, which was handled", ch)
			}
		}
	}
}
