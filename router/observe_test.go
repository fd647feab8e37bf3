package router_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestObserve_shows_all_that_the_pipelines_do(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	r := build(t, fileFor(bed, "    batchers: {default: {batch_timeout: 10ms}}\n"))
	if err := r.Handle("numbers", router.Handlers{Batches: batchHandlers{"default": func(context.Context, *batching.Batch) error { return nil }}}); err != nil {
		t.Fatal(err)
	}
	var acked, batched atomic.Int64
	var pipelines []router.Observed
	err := r.Observe(router.Observers{
		Start: func(p []router.Observed) error {
			pipelines = p
			if bed.Emulator.Stats().Operations["tunnel/connect"].Requests != 0 {
				t.Error("the pipelines are connected before the observers start")
			}
			return nil
		},
		OnAck: func(subscriber.Acked) { acked.Add(1) },
		OnBatch: func(name string) func(batching.Handled) {
			if name != "numbers" {
				t.Errorf("a pipeline is called %q", name)
			}
			return func(h batching.Handled) { batched.Add(int64(h.Messages)) }
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	start(t, r)
	bed.PutAll(5, 2)
	testbed.Eventually(t, 20*time.Second, "everything is observed", func() bool { return acked.Load() == 10 && batched.Load() == 10 })
	if len(pipelines) != 1 || pipelines[0].Name != "numbers" {
		t.Fatalf("the observers started with %+v", pipelines)
	}
	if st := pipelines[0].Subscriber.Status(); len(st.Subscriptions) != 1 || st.Subscriptions[0].Topic != testbed.Topic || !st.Subscriptions[0].Connected {
		t.Errorf("status %+v", st)
	}
	if stats := pipelines[0].Batching.Stats(); len(stats) != 1 || stats[0].Succeeded != 10 {
		t.Errorf("stats %+v", stats)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestSubscriber_and_Batching_are_there_from_Running_on(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	r := build(t, fileFor(bed, "    batchers: {default: {batch_timeout: 10ms}}\n")+
		"  plain: {instance: main, table_name: "+testbed.Table+", tunnel_name: other, tunnel: {create: true, type: Stream}}\n")
	if err := r.Handle("numbers", router.Handlers{Batches: batchHandlers{"default": noBatch}}); err != nil {
		t.Fatal(err)
	}
	if err := r.Handle("plain", router.Handlers{Process: noProcess}); err != nil {
		t.Fatal(err)
	}
	expect := func(when, tunnel string, subscriber, batches bool) {
		t.Helper()
		if s, ok := r.Subscriber(tunnel); ok != subscriber || (s != nil) != subscriber {
			t.Errorf("%s: Subscriber(%q) gives %v, %t", when, tunnel, s, ok)
		}
		if b, ok := r.Batching(tunnel); ok != batches || (b != nil) != batches {
			t.Errorf("%s: Batching(%q) gives %v, %t", when, tunnel, b, ok)
		}
	}
	try(t, r, row("a", 1)) // makes a pipeline, with batches of its own
	expect("before Run", "numbers", false, false)
	start(t, r)
	expect("running", "numbers", true, true)
	expect("running", "plain", true, false)
	expect("running", "unknown", false, false)

	sub, _ := r.Subscriber("numbers")
	if topic := sub.Status().Subscriptions[0].Topic; topic != testbed.Topic {
		t.Errorf("the subscriber's topic is %q", topic)
	}
	bed.PutAll(5, 2)
	batches, _ := r.Batching("numbers")
	testbed.Eventually(t, 20*time.Second, "the batches have handled everything", func() bool { return batches.Stats()[0].Succeeded == 10 })

	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	expect("closed", "numbers", true, true)
}

func TestObserve_in_its_bounds(t *testing.T) {
	boom := errors.New("boom")
	r := build(t, offline("    batchers: {default: {batch_size: 2}}\n"))
	err := r.Handle("numbers", router.Handlers{Batches: batchHandlers{"default": func(context.Context, *batching.Batch) error { return nil }}})
	if err != nil {
		t.Fatal(err)
	}
	err = r.Observe(router.Observers{
		Start:   func([]router.Observed) error { return boom },
		OnBatch: func(string) func(batching.Handled) { return func(batching.Handled) { t.Error("Test is observed") } },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Observe(router.Observers{}); !errors.Is(err, router.ErrInvalidConfig) || !strings.Contains(err.Error(), "twice") {
		t.Errorf("the second time: %v", err)
	}
	try(t, r, rows(3)...)
	if err := r.Observe(router.Observers{}); !errors.Is(err, router.ErrInvalidConfig) || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("after Test: %v", err)
	}
	if err := r.Run(context.Background()); !errors.Is(err, boom) {
		t.Errorf("Run: %v", err)
	}
}
