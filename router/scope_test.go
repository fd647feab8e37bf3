package router_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// scopeBed is a running pipeline over a table of four partitions, in a bubble: two workers
// with two channels each.
type scopeBed struct {
	t  *testing.T
	em *emulator.Emulator
	r  *router.Router
}

// inScope runs f on a pipeline with this scope. batchers are its batchers, in YAML, and h, which is called
// in the bubble, its handlers.
func inScope(t *testing.T, scope, batchers string, h func() router.Handlers, f func(*scopeBed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		em, err := emulator.Start(emulator.Options{InMemory: true, Instance: testbed.Instance, AccessKeyID: testbed.KeyID, AccessKeySecret: testbed.KeySecret})
		if err != nil {
			t.Fatal(err)
		}
		if err := em.CreateTable(testbed.Table, emulator.Key("k", emulator.String)); err != nil {
			t.Fatal(err)
		}
		if err := em.SplitAt(testbed.Table, "b", "c", "d"); err != nil {
			t.Fatal(err)
		}
		r := build(t, fmt.Sprintf(`
instances:
  main: {name: %s, endpoint: %s, access_key_id: %s, access_key_secret: %s, allow_insecure: true}
tunnels:
  numbers:
    instance: main
    table_name: %s
    tunnel_name: %s
    worker_size: 2
    tunnel: {create: true, type: Stream}
    heartbeat_interval: 5s
    heartbeat_timeout: 20s
    max_poll_interval: 2s # minutes pass in these tests, and each read costs real time
    scope: %s
    processors: {concurrency: 2}
    batchers: %s
`, testbed.Instance, em.Endpoint(), testbed.KeyID, testbed.KeySecret, testbed.Table, testbed.Tunnel, scope, batchers))
		transport := em.Transport()
		router.SetTransport(r, "main", transport)
		if err := r.Handle("numbers", h()); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- r.Run(context.Background()) }() // ends with Close
		<-r.Running()
		time.Sleep(30 * time.Second) // until each worker has two channels
		b := &scopeBed{t: t, em: em, r: r}
		b.wantTwoEach()
		f(b)
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		transport.CloseIdleConnections()
		if err := em.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (b *scopeBed) wantTwoEach() {
	b.t.Helper()
	sub, _ := b.r.Subscriber("numbers")
	channels := map[string]int{}
	for _, c := range sub.Status().Subscriptions[0].Channels {
		if c.State == subscriber.ChannelOpen {
			channels[c.ClientID]++
		}
	}
	if len(channels) != 2 {
		b.t.Fatalf("the channels of the two workers: %v", channels)
	}
	for client, n := range channels {
		if n != 2 {
			b.t.Fatalf("%s has %d channels, want 2", client, n)
		}
	}
}

// put writes version v of n rows of each partition.
func (b *scopeBed) put(n, v int) {
	b.t.Helper()
	for i := range n {
		for _, partition := range []string{"a", "b", "c", "d"} {
			if err := b.em.Put(testbed.Table, emulator.Row{"k": fmt.Sprintf("%s%04d", partition, i), "v": v}); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

func (b *scopeBed) stats() map[string]batching.BatcherStats {
	batches, _ := b.r.Batching("numbers")
	all := make(map[string]batching.BatcherStats)
	for _, st := range batches.Stats() {
		all[st.Batcher] = st
	}
	return all
}

// handling returns the handlers of a pipeline with one batcher.
func handling(batch func(context.Context, *batching.Batch) error) func() router.Handlers {
	return func() router.Handlers { return router.Handlers{Batches: batchHandlers{"default": batch}} }
}

// calls counts calls that do not end before they are let go.
type calls struct {
	let chan struct{}

	mu      sync.Mutex
	running map[string]int // by what is called, and by that and worker, and that and channel
}

func newCalls() *calls { return &calls{let: make(chan struct{}), running: make(map[string]int)} }

func (c *calls) hold(what string, msg *message.Message) {
	source, _ := subscriber.SourceFromMessage(msg)
	c.mu.Lock()
	c.running[what]++
	c.running[fmt.Sprint(what, " of worker ", source.Worker)]++
	c.running[what+" of channel "+source.Channel]++
	c.mu.Unlock()
	<-c.let
}

// all returns how many calls run.
func (c *calls) all(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running[what]
}

// each returns how many calls run in each scope that a prefix names, such as "sqs of channel ".
func (c *calls) each(prefix string) (n []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for what, running := range c.running {
		if strings.HasPrefix(what, prefix) {
			n = append(n, running)
		}
	}
	return n
}

// Two workers with two channels each, 2 Process calls, 2 batches of sqs and 1 of s3: what runs at
// once in each scope. docs/from-broadway.md has the same figures.
func TestScope_says_what_runs_at_once(t *testing.T) {
	doc, err := os.ReadFile("../docs/from-broadway.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		scope            string
		process, sqs, s3 int
		perScope         string // of what each is
		scopes           int
	}{
		{scope: "tunnel", process: 2, sqs: 2, s3: 1, perScope: "", scopes: 0},
		{scope: "worker", process: 4, sqs: 4, s3: 2, perScope: " of worker ", scopes: 2},
		{scope: "channel", process: 8, sqs: 8, s3: 4, perScope: " of channel ", scopes: 4},
	} {
		t.Run(c.scope, func(t *testing.T) {
			var process, batches *calls
			inBatch := func(_ context.Context, b *batching.Batch) error {
				batches.hold(b.Batcher, b.Messages[0])
				return nil
			}
			h := func() router.Handlers {
				process, batches = newCalls(), newCalls() // channels of the bubble
				return router.Handlers{
					Process: func(msg *message.Message) error {
						process.hold("process", msg)
						batching.SetBatcher(msg, "s3")
						if version(msg) == 1 {
							batching.SetBatcher(msg, "sqs")
						}
						return nil
					},
					Batches: batchHandlers{"sqs": inBatch, "s3": inBatch},
				}
			}
			inScope(t, c.scope, "{sqs: {stages: 2, batch_size: 1}, s3: {stages: 1, batch_size: 1}}", h, func(b *scopeBed) {
				b.put(10, 1)
				for i := 10; i < 20; i++ {
					for _, partition := range []string{"a", "b", "c", "d"} {
						if err := b.em.Put(testbed.Table, emulator.Row{"k": fmt.Sprintf("%s%04d", partition, i), "v": 2}); err != nil {
							t.Fatal(err)
						}
					}
				}
				time.Sleep(time.Minute)
				want := func(calls *calls, what string, n, perScope int) {
					t.Helper()
					if got := calls.all(what); got != n {
						t.Errorf("%s: %d run at once, want %d", what, got, n)
					}
					if c.perScope == "" {
						return
					}
					each := calls.each(what + c.perScope)
					if len(each) != c.scopes || slices.Min(each) != perScope || slices.Max(each) != perScope {
						t.Errorf("%s%s: %v run at once, want %d in each of %d", what, c.perScope, each, perScope, c.scopes)
					}
				}
				want(process, "process", c.process, 2)
				close(process.let)
				time.Sleep(time.Minute)
				want(batches, "sqs", c.sqs, 2)
				want(batches, "s3", c.s3, 1)
				st := b.stats()
				if st["sqs"].Running != c.sqs || st["s3"].Running != c.s3 || st["sqs"].Scopes != c.scopes || st["sqs"].Waiting != 40-c.sqs {
					t.Errorf("stats: %+v", st)
				}
				close(batches.let)
				time.Sleep(time.Minute)
				if st := b.stats(); st["sqs"].Succeeded != 40 || st["s3"].Succeeded != 40 || st["sqs"].Scopes != 0 {
					t.Errorf("in the end: %+v", st)
				}
			})
			if line := fmt.Sprintf("| `scope: %s` | %d | %d | %d |", c.scope, c.process, c.sqs, c.s3); !strings.Contains(string(doc), line) {
				t.Errorf("docs/from-broadway.md has no line %s", line)
			}
		})
	}
}

func TestScope_batches_do_not_mix(t *testing.T) {
	for _, scope := range []string{"tunnel", "worker", "channel"} {
		t.Run(scope, func(t *testing.T) {
			var mu sync.Mutex
			mixed := map[string]bool{}
			full := false
			h := handling(func(_ context.Context, b *batching.Batch) error {
				mu.Lock()
				defer mu.Unlock()
				full = full || len(b.Messages) == 15
				first, _ := subscriber.SourceFromMessage(b.Messages[0])
				for _, msg := range b.Messages {
					source, ok := subscriber.SourceFromMessage(msg)
					if !ok || source.Channel != msg.Metadata.Get(subscriber.MetadataChannel) {
						t.Errorf("a message of channel %s has the source %+v", msg.Metadata.Get(subscriber.MetadataChannel), source)
					}
					mixed["workers"] = mixed["workers"] || source.Worker != first.Worker
					mixed["channels"] = mixed["channels"] || source.Channel != first.Channel
				}
				switch {
				case scope == "channel" && b.Scope != first.Channel, scope == "worker" && b.Scope != fmt.Sprint(first.Worker), scope == "tunnel" && b.Scope != "":
					t.Errorf("a batch of %+v is in scope %q", first, b.Scope)
				}
				return nil
			})
			inScope(t, scope, "{default: {batch_size: 15, batch_timeout: 5s}}", h, func(b *scopeBed) {
				b.put(5, 1) // a full batch needs three of the channels
				time.Sleep(time.Minute)
				b.put(30, 2)
				time.Sleep(time.Minute)
				if n := b.stats()["default"].Succeeded; n != 140 {
					t.Errorf("%d messages succeeded, want 140", n)
				}
			})
			want := map[string]bool{"workers": scope == "tunnel", "channels": scope != "channel"}
			if fmt.Sprint(mixed) != fmt.Sprint(want) || !full {
				t.Errorf("batches have mixed %v, want %v; one was full: %t", mixed, want, full)
			}
		})
	}
}

// The service gives out children of a partition once its parent's changes are settled. The batches of both are
// not of one scope, and the order of a key holds all the same. What ended channels had is freed.
func TestL3_order_holds_across_splits_with_batches_for_each_channel(t *testing.T) {
	var mu sync.Mutex
	seen, busy, channels := map[string]int64{}, map[string]*batching.Batch{}, map[string]bool{}
	begin := func(b *batching.Batch) {
		mu.Lock()
		defer mu.Unlock()
		channels[b.Scope] = true
		for _, msg := range b.Messages {
			key := msg.Metadata.Get(subscriber.MetadataKey)
			if other := busy[key]; other != nil && other != b {
				t.Errorf("batches of %s and %s have key %s at once", other.Scope, b.Scope, key)
			}
			busy[key] = b
		}
	}
	end := func(b *batching.Batch) {
		mu.Lock()
		defer mu.Unlock()
		for _, msg := range b.Messages {
			key, v := msg.Metadata.Get(subscriber.MetadataKey), version(msg)
			if v != seen[key]+1 {
				t.Errorf("version %d of %s comes after %d", v, key, seen[key])
			}
			seen[key] = v
			delete(busy, key)
		}
	}
	h := handling(func(_ context.Context, b *batching.Batch) error {
		begin(b)
		time.Sleep(300 * time.Millisecond)
		end(b)
		return nil
	})
	const splits, keys = 12, 10
	inScope(t, "channel", "{default: {batch_size: 7, batch_timeout: 1s, concurrency: 2}}", h, func(b *scopeBed) {
		for v := 1; v <= splits; v++ {
			b.put(keys, v)
			if err := b.em.Split(testbed.Table); err != nil {
				t.Fatal(err)
			}
			if v%4 == 0 { // else the parents of parents wait, too
				time.Sleep(2 * time.Minute)
			}
		}
		b.put(keys, splits+1)
		time.Sleep(3 * time.Minute)
		st := b.stats()["default"]
		if st.Succeeded != 4*keys*(splits+1) || st.Scopes != 0 {
			t.Errorf("stats: %+v", st)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(channels) < 4+splits {
			t.Errorf("only %d channels had batches: the test compares nothing", len(channels))
		}
	})
}

// A drain handles what waits in the batches of all channels.
func TestScope_a_drain_handles_what_waits_in_all(t *testing.T) {
	var mu sync.Mutex
	drained := map[string]int{}
	h := handling(func(_ context.Context, b *batching.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		if b.Trigger != batching.TriggerDrain {
			t.Errorf("a batch of %s has the trigger %s", b.Scope, b.Trigger)
		}
		drained[b.Scope] += len(b.Messages)
		return nil
	})
	inScope(t, "channel", "{default: {batch_size: 100, batch_timeout: 1h}}", h, func(b *scopeBed) {
		b.put(3, 1)
		time.Sleep(time.Minute)
		if st := b.stats()["default"]; st.Waiting != 12 || st.Scopes != 4 {
			t.Errorf("before: %+v", st)
		}
	})
	if len(drained) != 4 {
		t.Errorf("drained %v", drained)
	}
	for channel, n := range drained {
		if n != 3 {
			t.Errorf("%d messages of %s were drained, want 3", n, channel)
		}
	}
}

// Test and Replay have no channels of a service: what the message says of its channel counts.
func TestScope_in_Test_is_what_messages_say(t *testing.T) {
	var mu sync.Mutex
	var got []string
	r := handle(t, "    scope: channel\n    batchers: {default: {batch_size: 2, batch_timeout: 1h}}\n", router.Handlers{Batches: batchHandlers{"default": func(_ context.Context, b *batching.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, fmt.Sprint(b.Scope, len(b.Messages)))
		return nil
	}}})
	records := rows(4)
	for i, rec := range records {
		rec.Channel = []string{"x", "y"}[i%2]
	}
	for i, o := range try(t, r, records...) {
		if o.Err != nil || o.Batch.Scope != records[i].Channel {
			t.Errorf("message %d: %+v", i, o)
		}
	}
	slices.Sort(got)
	if fmt.Sprint(got) != "[x2 y2]" {
		t.Errorf("batches %v", got)
	}
}
