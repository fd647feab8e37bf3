package laws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// never is a batch Timeout longer than any test: a batch that is handled
// nevertheless was triggered by something else.
const never = time.Minute

// promptly is how long "at once" may take. It is far below never and below
// every other timer in these tests.
const promptly = 10 * time.Second

// unfilled is a batcher whose batches are never full.
var unfilled = batching.Batcher{Size: 10_000, Timeout: never, Concurrency: 4}

// sink is a message.Publisher that records the UUIDs and calls a function for
// each message.
type sink struct {
	on func(*message.Message) // nil: nothing

	mu    sync.Mutex
	uuids []string
}

func (s *sink) Publish(_ string, msgs ...*message.Message) error {
	for _, msg := range msgs {
		if s.on != nil {
			s.on(msg)
		}
		s.mu.Lock()
		s.uuids = append(s.uuids, msg.UUID)
		s.mu.Unlock()
	}
	return nil
}

func (*sink) Close() error { return nil }

func (s *sink) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.uuids)
}

func TestBatching_1000_updates_of_one_key_take_ten_batches_of_100(t *testing.T) {
	b := testbed.New(t, emulator.Options{})
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	b.PutAll(1, 1000)
	o := newObserver()
	began := time.Now()
	p := setup{batcher: batching.Batcher{Size: 100, Timeout: time.Second, Concurrency: 4}}.start(t, b, o)
	o.awaitHandled(t, 1000)
	t.Logf("%d batches in %v", len(o.seen()), time.Since(began).Round(time.Millisecond))
	p.close(t)
	o.check(t, 1, 1000)
	// On a busy machine a Timeout may pass before 100 messages have arrived.
	if n := len(o.seen()); n > 13 {
		t.Errorf("1000 updates took %d batches", n)
	}
	o.checkCommitted(t, b, id, "tail")
}

// TestBatching_keeps_the_order_of_keys_after_a_failure has a change that fails,
// in the middle of its key and of a batch. The observer checks the order.
func TestBatching_keeps_the_order_of_keys_after_a_failure(t *testing.T) {
	const keys, versions = 4, 40
	bad := change{testbed.Key(1), 7}
	fault := errors.New("simulated")
	has := func(b *batching.Batch) *message.Message {
		for _, msg := range b.Messages {
			if changeOf(msg) == bad {
				return msg
			}
		}
		return nil
	}
	times := func(n int32, fail func(*batching.Batch, *message.Message) error) batching.HandlerFunc {
		var left atomic.Int32
		left.Store(n)
		return func(_ context.Context, b *batching.Batch) error {
			if msg := has(b); msg != nil && left.Add(-1) >= 0 {
				return fail(b, msg)
			}
			return nil
		}
	}
	whole := func(*batching.Batch, *message.Message) error { return fault }
	panics := func(*batching.Batch, *message.Message) error { panic(fault) }
	alone := func(b *batching.Batch, msg *message.Message) error { b.Fail(msg, fault); return nil }
	retry := middleware.Retry{MaxRetries: 5, InitialInterval: 20 * time.Millisecond, MaxInterval: 20 * time.Millisecond, Multiplier: 1}.Middleware

	for _, tc := range []struct {
		name    string
		handle  batching.HandlerFunc
		retry   bool
		poison  bool
		isolate bool
		attempt int // in which the bad change is settled; 0: if whole batches fail, it depends on their other messages
	}{
		{name: "when_its_batch_returns_an_error", handle: times(2, whole)},
		{name: "when_its_batch_panics", handle: times(2, panics)},
		{name: "when_it_alone_is_given_to_Fail", handle: times(2, alone), attempt: 3},
		{name: "with_Retry_outside", handle: times(2, alone), retry: true, attempt: 1},
		{name: "with_Retry_outside_when_the_batch_fails", handle: times(2, whole), retry: true},
		{name: "with_PoisonQueue_outside", handle: times(1<<30, alone), poison: true, attempt: 1},
		{name: "with_PoisonQueue_and_Retry_outside", handle: times(1<<30, alone), poison: true, retry: true, attempt: 1},
		{name: "with_PoisonQueue_outside_and_Isolate", handle: times(1<<30, whole), poison: true, isolate: true, attempt: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := testbed.New(t, emulator.Options{})
			id := b.CreateTunnel(tunnel.TunnelTypeStream)
			b.PutAll(keys, versions)
			o := newObserver()
			s := setup{handle: tc.handle, batcher: batching.Batcher{Size: 20, Timeout: 50 * time.Millisecond, Concurrency: 4, Isolate: tc.isolate}}
			poisoned := &sink{on: func(msg *message.Message) { o.settle(changeOf(msg)) }}
			if tc.poison {
				m, err := middleware.PoisonQueueWithFilter(poisoned, "poison", batching.IsFailure)
				if err != nil {
					t.Fatal(err)
				}
				s.outside = append(s.outside, m)
			}
			if tc.retry {
				s.outside = append(s.outside, retry)
			}
			p := s.start(t, b, o)
			o.awaitHandled(t, keys*versions)
			p.close(t)
			o.check(t, keys, versions)
			want := 0
			if tc.poison {
				want = 1
			}
			if got := poisoned.seen(); len(got) != want {
				t.Errorf("%d messages were poisoned, want %d", len(got), want)
			}
			if got := o.attempt(bad); tc.attempt > 0 && got != tc.attempt {
				t.Errorf("%v was settled in attempt %d, want %d", bad, got, tc.attempt)
			}
			o.checkCommitted(t, b, id, "tail")
		})
	}
}

func TestBatching_closes_within_a_second_with_half_filled_batches_handled_and_committed(t *testing.T) {
	const keys = 60
	b := testbed.New(t, emulator.Options{})
	if err := b.Emulator.SplitAt(testbed.Table, testbed.Key(keys/2)); err != nil {
		t.Fatal(err)
	}
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	o := newObserver()
	p := setup{batcher: unfilled}.start(t, b, o)
	b.PutAll(keys, 3)
	o.awaitArrived(t, 3*keys)
	if calls := o.seen(); len(calls) > 0 {
		t.Fatalf("%d batches were handled, the first one triggered by %s", len(calls), calls[0].trigger)
	}
	began := time.Now()
	p.close(t)
	took := time.Since(began)
	t.Logf("closing took %v", took.Round(time.Millisecond))
	if limit := time.Second; took > limit && !raceEnabled {
		t.Errorf("closing took %v", took)
	}
	o.check(t, keys, 3)
	o.checkTriggers(t, batching.TriggerDrain)
	o.checkCommitted(t, b, id, "a tail", "z tail")
}

// TestBatching_flushes_when_the_window_is_full_of_waiting_messages: no further
// message can arrive, so a batch that is not full never will be.
func TestBatching_flushes_when_the_window_is_full_of_waiting_messages(t *testing.T) {
	const keys, versions = 100, 5
	for _, tc := range []struct {
		name   string
		splits []any
		change func(*subscriber.Config)
	}{
		{"by_records", nil, func(c *subscriber.Config) { c.MaxInFlight = keys / 2 }},
		{"by_bytes", nil, func(c *subscriber.Config) { c.MaxInFlightBytes = 1 << 10 }},
		{"by_records_of_two_channels", []any{testbed.Key(keys / 2)}, func(c *subscriber.Config) { c.MaxInFlight = keys / 2 }},
		{"in_order_by_channel", nil, func(c *subscriber.Config) { c.MaxInFlight, c.Ordering = keys/2, subscriber.OrderByChannel }},
		{"without_an_order", nil, func(c *subscriber.Config) { c.MaxInFlight, c.Ordering = keys/2, subscriber.Unordered }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := testbed.New(t, emulator.Options{})
			if tc.splits != nil {
				if err := b.Emulator.SplitAt(testbed.Table, tc.splits...); err != nil {
					t.Fatal(err)
				}
			}
			id := b.CreateTunnel(tunnel.TunnelTypeStream)
			o := newObserver()
			p := setup{batcher: unfilled, subscriber: tc.change}.start(t, b, o)
			for v := range versions {
				req := new(tablestore.BatchWriteRowRequest)
				for i := range keys {
					req.AddRowChange(testbed.PutChange(testbed.Key(i), v+1))
				}
				if err := testbed.BatchWrite(b.Client, req); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				o.awaitHandled(t, (v+1)*keys)
				if took := time.Since(began); took > promptly {
					t.Errorf("version %d took %v", v+1, took)
				}
			}
			p.close(t)
			o.check(t, keys, versions)
			o.checkTriggers(t, batching.TriggerDrain)
			t.Logf("%d batches", len(o.seen()))
			o.checkCommitted(t, b, id, "a tail", "z tail")
		})
	}
}

func TestBatching_flushes_at_the_end_of_base_data(t *testing.T) {
	const keys = 100
	b := testbed.New(t, emulator.Options{})
	if err := b.Emulator.SplitAt(testbed.Table, testbed.Key(keys/2)); err != nil {
		t.Fatal(err)
	}
	b.PutAll(keys, 1)
	id := b.CreateTunnel(tunnel.TunnelTypeBaseStream)
	o := newObserver()
	var handledBefore atomic.Int64 // in the stream
	handledBefore.Store(-1)
	p := setup{batcher: unfilled, subscriber: func(c *subscriber.Config) {
		c.OnPhase = func(ph subscriber.Phase) {
			if ph.Kind == subscriber.StreamStarted {
				handledBefore.Store(int64(o.handled()))
			}
		}
	}}.start(t, b, o)
	began := time.Now()
	o.awaitHandled(t, keys)
	if took := time.Since(began); took > promptly {
		t.Errorf("base data took %v", took)
	}
	o.checkTriggers(t, batching.TriggerDrain)
	testbed.Eventually(t, promptly, "the stream has begun", func() bool { return handledBefore.Load() >= 0 })
	if got := handledBefore.Load(); got != keys {
		t.Errorf("the stream began when %d of %d rows were handled", got, keys)
	}
	for i := range keys {
		if err := b.Put(testbed.Key(i), 2); err != nil {
			t.Fatal(err)
		}
	}
	o.awaitArrived(t, 2*keys)
	p.close(t)
	o.check(t, keys, 2)
	o.checkCommitted(t, b, id, "a tail", "z tail")
}

// TestBatching_flushes_when_a_partition_splits: the parent channel ends, and
// its children's records are delivered only after all of its records are acked.
func TestBatching_flushes_when_a_partition_splits(t *testing.T) {
	const keys = 50
	b := testbed.New(t, emulator.Options{})
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	o := newObserver()
	p := setup{batcher: unfilled}.start(t, b, o)
	b.PutAll(keys, 1)
	o.awaitArrived(t, keys)
	if n := len(o.seen()); n > 0 {
		t.Fatalf("%d batches were handled before the split", n)
	}
	if err := b.Emulator.Split(testbed.Table); err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		if err := b.Put(testbed.Key(i), 2); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	o.awaitHandled(t, keys)
	if took := time.Since(began); took > promptly {
		t.Errorf("the parent's batch took %v", took)
	}
	o.awaitArrived(t, 2*keys)
	p.close(t)
	o.check(t, keys, 2)
	o.checkTriggers(t, batching.TriggerDrain)
	o.checkCommitted(t, b, id, "a tail", "z tail")
}

// TestBatching_flushes_when_a_channel_moves_to_another_client checks that a
// channel which the service takes away (CLOSING) is handed over with nothing
// left in a batch: the two consumers together handle everything once.
func TestBatching_flushes_when_a_channel_moves_to_another_client(t *testing.T) {
	const keys = 40
	b := testbed.New(t, emulator.Options{})
	if err := b.Emulator.SplitAt(testbed.Table, testbed.Key(keys/2)); err != nil {
		t.Fatal(err)
	}
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	o := newObserver() // of both consumers: it checks the order across them
	first := setup{batcher: unfilled}.start(t, b, o)
	b.PutAll(keys, 1)
	o.awaitArrived(t, keys)
	if n := len(o.seen()); n > 0 {
		t.Fatalf("%d batches were handled before the channel moved", n)
	}
	moved := make(chan string, 2)
	second := setup{batcher: unfilled, subscriber: func(c *subscriber.Config) {
		c.OnPhase = func(ph subscriber.Phase) {
			if ph.Kind == subscriber.ChannelOpened {
				moved <- ph.Channel
			}
		}
	}}.start(t, b, o)
	select {
	case <-moved:
	case <-time.After(promptly):
		t.Fatalf("no channel has moved after %v", promptly)
	}
	// The batch had records of both channels.
	if n := len(o.seen()); n != 1 || o.handled() != keys {
		t.Errorf("%d changes in %d batches were handled when the channel had moved, want %d in one", o.handled(), n, keys)
	}
	for i := range keys {
		if err := b.Put(testbed.Key(i), 2); err != nil {
			t.Fatal(err)
		}
	}
	o.awaitArrived(t, 2*keys)
	var closing sync.WaitGroup
	for _, p := range []*pipeline{first, second} {
		closing.Go(func() { p.close(t) })
	}
	closing.Wait()
	o.check(t, keys, 2)
	o.checkTriggers(t, batching.TriggerDrain)
	o.checkCommitted(t, b, id, "a tail", "z tail")
}

func TestBatching_publishes_what_the_step_produced_only_if_the_batch_succeeded(t *testing.T) {
	const keys, versions = 20, 5
	b := testbed.New(t, emulator.Options{})
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	b.PutAll(keys, versions)
	o := newObserver()
	var calls atomic.Int32
	early := make(chan string, keys*versions)
	out := &sink{on: func(msg *message.Message) {
		var ch change
		if _, err := fmt.Sscanf(strings.Replace(msg.UUID, "/", " ", 1), "%s %d", &ch.key, &ch.version); err != nil || o.handledUpTo(ch.key) < ch.version {
			early <- msg.UUID
		}
	}}
	p := setup{
		batcher:   batching.Batcher{Size: 30, Timeout: 50 * time.Millisecond, Concurrency: 4},
		publisher: out,
		handle: func(_ context.Context, b *batching.Batch) error {
			switch n := calls.Add(1); {
			case n <= 2:
				return errors.New("simulated")
			case n <= 4:
				b.Fail(b.Messages[len(b.Messages)/2], errors.New("simulated"))
			}
			return nil
		},
	}.start(t, b, o)
	o.awaitHandled(t, keys*versions)
	p.close(t)
	o.check(t, keys, versions)
	select {
	case uuid := <-early:
		t.Errorf("%s was published before its change was handled", uuid)
	default:
	}
	var want []string
	for i := range keys {
		for v := range versions {
			want = append(want, change{testbed.Key(i), v + 1}.String())
		}
	}
	got := out.seen()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("published: %d messages %v, want each of %d changes once", len(got), got, len(want))
	}
	o.checkCommitted(t, b, id, "tail")
}

func TestBatching_Isolate_fails_only_the_change_that_fails_alone(t *testing.T) {
	const keys = 64
	b := testbed.New(t, emulator.Options{})
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	b.PutAll(keys, 1)
	bad := change{testbed.Key(20), 1}
	o := newObserver()
	poisoned := &sink{on: func(msg *message.Message) { o.settle(changeOf(msg)) }}
	poison, err := middleware.PoisonQueueWithFilter(poisoned, "poison", batching.IsFailure)
	if err != nil {
		t.Fatal(err)
	}
	p := setup{
		batcher: batching.Batcher{Size: keys, Timeout: never, Isolate: true},
		outside: []message.HandlerMiddleware{poison},
		handle: func(_ context.Context, b *batching.Batch) error {
			for _, msg := range b.Messages {
				if changeOf(msg) == bad {
					return errors.New("simulated")
				}
			}
			return nil
		},
	}.start(t, b, o)
	o.awaitHandled(t, keys)
	p.close(t)
	o.check(t, keys, 1)
	if n := len(poisoned.seen()); n != 1 {
		t.Errorf("%d messages were poisoned", n)
	}
	if n := len(o.seen()); n > 15 { // 2·log2(64) + 3
		t.Errorf("the batch of %d took %d calls, want at most 15", keys, n)
	}
	o.checkCommitted(t, b, id, "tail")
}
