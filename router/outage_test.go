package router_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// readme are the settings of the README's pipeline.
const readme = `
    processors: {concurrency: 16}
    batchers:
      default: {batch_size: 100, batch_timeout: 1s, concurrency: 2}
    failure: {attempts: 5, dead_letter: {table: dead_letters}}
`

// sink takes rows, unless it is down or a row is bad.
type sink struct {
	*journal
	down  atomic.Bool
	calls atomic.Int64
	bad   map[string]bool // keys
}

func newSink(bad ...string) *sink {
	s := &sink{journal: newJournal(), bad: make(map[string]bool)}
	for _, key := range bad {
		s.bad[`["`+key+`"]`] = true
	}
	return s
}

var errDown = errors.New("connection refused")

func (s *sink) handle(_ context.Context, b *batching.Batch) error {
	s.calls.Add(1)
	if s.down.Load() {
		return errDown
	}
	for _, m := range b.Messages {
		if s.bad[m.Metadata.Get(subscriber.MetadataKey)] {
			return errPoison // of the whole batch, as a transaction fails
		}
	}
	for _, m := range b.Messages {
		s.add(m)
	}
	return nil
}

// lines counts log lines by message, at Error and Info.
type lines struct {
	watermill.NopLogger
	mu sync.Mutex
	n  map[string]int
}

func newLines() *lines { return &lines{n: make(map[string]int)} }

func (l *lines) With(watermill.LogFields) watermill.LoggerAdapter { return l }

func (l *lines) Error(msg string, _ error, _ watermill.LogFields) { l.Info(msg, nil) }

func (l *lines) Info(msg string, _ watermill.LogFields) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n[msg]++
}

func (l *lines) of(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for msg, m := range l.n {
		if strings.Contains(msg, part) {
			n += m
		}
	}
	return n
}

func TestL8_one_bad_row_of_100_makes_one_letter_and_99_handled_rows(t *testing.T) {
	rows := []int{0, 50, 99}
	if testing.Short() {
		rows = rows[1:2] // the others differ in their place in the batch
	}
	for _, bad := range rows {
		t.Run(fmt.Sprint("row ", bad), func(t *testing.T) {
			t.Parallel()
			bed := testbed.New(t, emulator.Options{})
			s := newSink(testbed.Key(bad))
			r := build(t, fileFor(bed, readme))
			if err := r.Handle("numbers", router.Handlers{Batches: batchHandlers{"default": s.handle}}); err != nil {
				t.Fatal(err)
			}
			start(t, r)
			bed.PutAll(100, 1)
			testbed.Eventually(t, 30*time.Second, "99 rows are handled and one is a letter", func() bool {
				return s.count() == 99 && len(letterRows(t, bed, "dead_letters")) == 1
			})
			if key := columnsOf(letterRows(t, bed, "dead_letters")[0])["key"]; key != `["`+testbed.Key(bad)+`"]` {
				t.Errorf("the letter is of %v", key)
			}
		})
	}
}

func TestL9_an_outage_makes_no_letters_and_ends_by_itself(t *testing.T) {
	for name, more := range map[string]string{
		"batches": readme,
		"process": "    processors: {concurrency: 16}\n    failure: {attempts: 2, backoff_initial: 20ms, backoff_max: 200ms, dead_letter: {table: dead_letters}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const rows = 500
			inLog := map[string]string{"batches": "The batcher's handler is down", "process": "Process is down"}[name]
			bed := testbed.New(t, emulator.Options{})
			log, s := newLines(), newSink()
			r := buildLogging(t, fileFor(bed, more), log)
			handlers := router.Handlers{Batches: batchHandlers{"default": s.handle}}
			if name == "process" {
				handlers = router.Handlers{Process: func(msg *message.Message) error {
					return s.handle(msg.Context(), &batching.Batch{Messages: []*message.Message{msg}})
				}}
			}
			if err := r.Handle("numbers", handlers); err != nil {
				t.Fatal(err)
			}
			var ready func() error
			if err := r.Observe(router.Observers{Start: func(ps []router.Observed) error { ready = ps[0].Ready; return nil }}); err != nil {
				t.Fatal(err)
			}
			start(t, r)
			bed.PutAll(20, 1)
			testbed.Eventually(t, 20*time.Second, "all is well at first", func() bool { return s.count() == 20 })
			s.down.Store(true)
			before := s.calls.Load()
			bed.PutAll(rows, 2)
			testbed.Eventually(t, 20*time.Second, "the outage is in the log", func() bool { return log.of(inLog) == 1 })
			time.Sleep(3 * time.Second) // as long as the outage takes
			if name == "process" {
				if err := ready(); !errors.Is(err, errDown) {
					t.Errorf("Ready: %v", err)
				}
			} else {
				b, _ := r.Batching("numbers")
				if st := b.Stats()[0]; st.DownSince.IsZero() || !strings.Contains(st.DownError, errDown.Error()) {
					t.Errorf("stats %+v", st)
				}
			}
			// Those that begin it, those that run beside them, and the probes of three seconds.
			if calls := s.calls.Load() - before; calls > 40 {
				t.Errorf("%d calls in the outage", calls)
			}
			s.down.Store(false)
			testbed.Eventually(t, 30*time.Second, "all rows are handled", func() bool { return s.count() >= 20+2*rows })
			if n := len(letterRows(t, bed, "dead_letters")); n != 0 {
				t.Errorf("%d letters", n)
			}
			for i := range rows {
				want := []int64{1, 2}
				if i < 20 {
					want = []int64{1, 1, 2}
				}
				if got := s.of(testbed.Key(i)); !equal(got, want) {
					t.Errorf("%s came as %v", testbed.Key(i), got)
				}
			}
			if n := log.of("works again"); n != 1 {
				t.Errorf("%d lines say that it works again", n)
			}
			if n := log.of("became a dead letter") + log.of("Batch failed") + log.of("Handler returned error"); n > 20 {
				t.Errorf("%d lines about failures: %v", n, log.n)
			}
		})
	}
}

func TestL7_a_drain_in_an_outage_is_quick_and_loses_nothing(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	s := newSink()
	s.down.Store(true)
	r := build(t, fileFor(bed, readme))
	if err := r.Handle("numbers", router.Handlers{Batches: batchHandlers{"default": s.handle}}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(context.Background()) }() // ends with Close
	<-r.Running()
	bed.PutAll(500, 1)
	testbed.Eventually(t, 20*time.Second, "the batcher is down", func() bool {
		b, ok := r.Batching("numbers")
		return ok && b.Stats()[0].Probes > 0
	})
	began := time.Now()
	if err := errors.Join(r.Close(), <-ended); err != nil {
		t.Errorf("Close: %v", err)
	}
	if took := time.Since(began); took > 4*time.Second { // close_timeout is 5s
		t.Errorf("it took %v", took)
	}
	s.down.Store(false)
	again := build(t, fileFor(bed, readme))
	if err := again.Handle("numbers", router.Handlers{Batches: batchHandlers{"default": s.handle}}); err != nil {
		t.Fatal(err)
	}
	start(t, again)
	testbed.Eventually(t, 30*time.Second, "all rows are handled", func() bool { return s.count() == 500 })
}

func TestDrain_gives_back_what_waits_for_a_slot(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	r := build(t, fileFor(bed, "    processors: {concurrency: 2}\n"))
	var stopped atomic.Bool
	var began atomic.Int64
	err := r.Handle("numbers", router.Handlers{Process: func(*message.Message) error {
		if stopped.Load() {
			began.Add(1)
		}
		time.Sleep(100 * time.Millisecond)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(context.Background()) }() // ends with Close
	<-r.Running()
	bed.PutAll(1000, 1)
	sub, _ := r.Subscriber("numbers")
	testbed.Eventually(t, 20*time.Second, "some are at work, hundreds wait", func() bool {
		held := 0
		for _, c := range sub.Status().Subscriptions[0].Channels {
			held += c.WithHandlers
		}
		return held >= 200
	})
	closed := make(chan error, 1)
	go func() { closed <- r.Close() }() // ends with the drain
	testbed.Eventually(t, 10*time.Second, "the router stops", func() bool { return router.Stopping(r) })
	stopped.Store(true)
	if err := errors.Join(<-closed, <-ended); err != nil {
		t.Errorf("the drain: %v", err)
	}
	if n := began.Load(); n > 2 {
		t.Errorf("%d calls began after the stop", n)
	}
}

func TestACancelledCallOfTheHandlersOwnIsAFailure(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	r := build(t, fileFor(bed, "    failure: {attempts: 3, backoff_initial: 10ms, dead_letter: {table: dead_letters}}\n"))
	var failures atomic.Int64
	err := r.Handle("numbers", router.Handlers{
		Process: func(msg *message.Message) error {
			if poisoned(msg) {
				return fmt.Errorf("query: %w", context.Canceled)
			}
			return nil
		},
		Failed: func(*message.Message, error) { failures.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	start(t, r)
	traffic(t, bed)
	bed.PutAll(3, 2)
	testbed.Eventually(t, 20*time.Second, "it is a letter", func() bool { return len(letterRows(t, bed, "dead_letters")) == 1 })
	if n := failures.Load(); n < 3 {
		t.Errorf("Failed was called %d times", n)
	}
}

func TestStopAfter_stops_one_pipeline_and_leaves_the_others(t *testing.T) {
	for _, through := range []string{"its own loop", "Watermill's Router"} {
		t.Run(through, func(t *testing.T) {
			bed := testbed.New(t, emulator.Options{})
			first := fileFor(bed, "")
			second := strings.SplitN(first, "  numbers:\n", 2)[1]
			r := build(t, first+"    failure: {stop_after: {letters: 3, of: 50}, dead_letter: {table: dead_letters}}\n"+
				"  others:\n"+strings.Replace(second, "tunnel_name: "+testbed.Tunnel, "tunnel_name: other", 1))
			if through != "its own loop" {
				r.Watermill()
			}
			j := newJournal()
			if err := r.Handle("others", router.Handlers{Process: func(msg *message.Message) error { j.add(msg); return nil }}); err != nil {
				t.Fatal(err)
			}
			if err := r.Handle("numbers", router.Handlers{Process: func(*message.Message) error { return permanent(errPoison) }}); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- r.Run(context.Background()) }() // ends with Close
			<-r.Running()
			bed.PutAll(100, 1)
			var sub *subscriber.Subscriber
			testbed.Eventually(t, 20*time.Second, "the pipeline has stopped", func() bool {
				sub, _ = r.Subscriber("numbers")
				return sub.Status().Closed
			})
			bed.PutAll(100, 2)
			testbed.Eventually(t, 20*time.Second, "the other one continues", func() bool { return j.count() == 300 })
			if n := len(letterRows(t, bed, "dead_letters")); n < 4 || n > 20 {
				t.Errorf("%d letters", n)
			}
			_ = r.Close() // Run returns the same
			var stopped *router.TooManyLettersError
			if err := <-ended; !errors.As(err, &stopped) || stopped.Pipeline != "numbers" || stopped.Letters != 4 {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

// permanent marks err as one that no further attempt can mend.
func permanent(err error) error { return backoff.Permanent(err) }
