package batching

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// scoped is a config whose messages have a scope before the colon of their UUID.
func scoped(b Batcher) Config {
	cfg := one(b)
	cfg.Scope = func(msg *message.Message) string {
		scope, _, _ := strings.Cut(msg.UUID, ":")
		return scope
	}
	return cfg
}

// held is a batch handler that does not return before release is closed.
func held() (r *recorder, release chan struct{}) {
	r, release = newRecorder(), make(chan struct{})
	r.after = func(context.Context, *Batch) error { <-release; return nil }
	return r, release
}

func wait(passes []*pass) {
	for _, p := range passes {
		<-p.done
	}
	synctest.Wait()
}

func TestScope(t *testing.T) {
	t.Run("batches_hold_messages_of_one_scope", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			scopes := map[string]bool{}
			r.after = func(_ context.Context, b *Batch) error {
				for _, msg := range b.Messages {
					scopes[b.Scope+" of "+msg.UUID[:1]] = true
				}
				return nil
			}
			b := mustNew(t, scoped(Batcher{Size: 3, Timeout: time.Minute, Handler: r.handle}), nil)
			wait(sendAll(b.Middleware(nop), "a:1", "b:1", "a:2", "b:2", "a:3", "b:3"))
			got := strings.Split(r.batches(), "|")
			slices.Sort(got)
			equal(t, "batches", fmt.Sprint(got), "[a:1 a:2 a:3 b:1 b:2 b:3]")
			equal(t, "number", len(got), 2)
			equal(t, "scopes", fmt.Sprint(slices.Sorted(maps.Keys(scopes))), "[a of a b of b]")
		})
	})

	t.Run("each_scope_runs_Concurrency_batches_at_once_in_partitions_that_none_shares", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, release := held()
			b := mustNew(t, scoped(Batcher{Size: 1, Concurrency: 2, Handler: r.handle}), nil)
			var ids []string
			for i := range 5 {
				ids = append(ids, fmt.Sprint("a:", i), fmt.Sprint("b:", i), fmt.Sprint("c:", i))
			}
			passes := sendAll(b.Middleware(nop), ids...)
			running, partitions := map[string]int{}, map[int]bool{}
			for _, c := range r.seen() {
				running[c.uuids[:1]]++
				partitions[c.partition] = true
			}
			equal(t, "running", fmt.Sprint(running), "map[a:2 b:2 c:2]")
			equal(t, "partitions", fmt.Sprint(slices.Sorted(maps.Keys(partitions))), "[0 1 2 3 4 5]")
			st := b.Stats()[0]
			equal(t, "stats", fmt.Sprint(st.Running, st.Handling, st.Ready, st.Waiting, st.Scopes, st.Concurrency), "6 6 9 9 3 2")
			close(release)
			wait(passes)
			equal(t, "free partitions", len(b.batchers[DefaultBatcher].free), 6)
		})
	})

	t.Run("without_Scope_all_messages_share_Concurrency", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, release := held()
			cfg := scoped(Batcher{Size: 1, Concurrency: 2, Handler: r.handle})
			cfg.Scope = nil
			b := mustNew(t, cfg, nil)
			passes := sendAll(b.Middleware(nop), "a:1", "b:1", "a:2", "b:2")
			equal(t, "running", len(r.seen()), 2)
			equal(t, "scopes", b.Stats()[0].Scopes, 0)
			close(release)
			wait(passes)
		})
	})

	t.Run("the_order_of_a_key_holds_across_scopes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, release := held()
			cfg := scoped(Batcher{Size: 1, Concurrency: 4, Handler: r.handle})
			cfg.OrderingKey = func(msg *message.Message) string { return msg.UUID[2:3] }
			b := mustNew(t, cfg, nil)
			h := b.Middleware(nop)
			passes := append(sendAll(h, "a:k1"), sendAll(h, "b:k2", "b:j1")...)
			equal(t, "k2 waits for k1", r.batches(), "a:k1|b:j1")
			close(release)
			wait(passes)
			equal(t, "in the end", r.batches(), "a:k1|b:j1|b:k2")
		})
	})

	t.Run("Close_handles_the_open_batches_of_all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, scoped(Batcher{Size: 10, Timeout: time.Hour, Handler: r.handle}), nil)
			passes := sendAll(b.Middleware(nop), "a:1", "b:1", "c:1")
			equal(t, "before", len(r.seen()), 0)
			equal(t, "Close", b.Close(), nil)
			wait(passes)
			for _, c := range r.seen() {
				equal(t, c.uuids, c.trigger, TriggerClose)
			}
			equal(t, "batches", len(r.seen()), 3)
		})
	})
}

// scopesOf returns how many scopes the default batcher has.
func scopesOf(b *Batching) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.batchers[DefaultBatcher].scopes)
}

func TestScope_is_forgotten_with_its_last_message(t *testing.T) {
	t.Run("whose_batch_is_done", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(_ context.Context, b *Batch) error {
				if strings.HasSuffix(b.Messages[0].UUID, "7") {
					return errBoom
				}
				return nil
			}
			b := mustNew(t, scoped(Batcher{Size: 2, Timeout: time.Second, Handler: r.handle}), nil)
			h := b.Middleware(nop)
			for i := range 1000 {
				wait(sendAll(h, fmt.Sprintf("s%d:%d", i, i)))
			}
			equal(t, "scopes", scopesOf(b), 0)
			st := b.Stats()[0]
			equal(t, "counters", fmt.Sprint(st.Succeeded, st.Failed, st.Batches[TriggerTimeout]), "900 100 1000")
			equal(t, "partitions", b.batchers[DefaultBatcher].partitions, 1)
		})
	})

	t.Run("that_has_left", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			cfg := scoped(Batcher{Size: 2, Timeout: time.Hour, Handler: r.handle})
			cfg.OrderingKey = func(msg *message.Message) string { return msg.UUID[2:3] }
			b := mustNew(t, cfg, nil)
			h := b.Middleware(nop)
			ctx, cancel := context.WithCancel(context.Background())
			var passes []*pass
			for _, id := range []string{"a:k1", "b:k2", "b:k3", "c:j1"} { // k2 and k3 are parked
				msg := msgOf(id)
				msg.SetContext(ctx)
				passes = append(passes, send(h, msg))
				synctest.Wait()
			}
			equal(t, "before", scopesOf(b), 3)
			cancel()
			wait(passes)
			equal(t, "scopes", scopesOf(b), 0)
			equal(t, "batches", len(r.seen()), 0)
		})
	})

	t.Run("but_not_before_the_parked_ones_are_done", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, release := held()
			cfg := scoped(Batcher{Size: 1, Handler: r.handle})
			cfg.OrderingKey = func(msg *message.Message) string { return msg.UUID[2:3] }
			b := mustNew(t, cfg, nil)
			h := b.Middleware(nop)
			passes := append(sendAll(h, "a:k1"), sendAll(h, "b:k2")...)
			scope := b.batchers[DefaultBatcher].scopes["b"]
			passes = append(passes, sendAll(h, "b:j1")...) // runs, and ends after k2 has joined
			equal(t, "the same scope", b.batchers[DefaultBatcher].scopes["b"] == scope, true)
			equal(t, "its messages", scope.items, 2)
			close(release)
			wait(passes)
			equal(t, "scopes", scopesOf(b), 0)
		})
	})

	t.Run("also_during_an_outage", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(context.Context, *Batch) error { return errBoom }
			b := mustNew(t, scoped(Batcher{Size: 1, Probe: true, Handler: r.handle}), nil)
			h := b.Middleware(nop)
			for i := range 20 {
				for _, p := range sendAll(h, fmt.Sprintf("s%d:%d", i, i)) {
					if err := p.result(); err == nil {
						t.Error("a message succeeded")
					}
				}
			}
			equal(t, "down", b.Stats()[0].DownSince.IsZero(), false)
			equal(t, "scopes", scopesOf(b), 0)
			time.Sleep(time.Hour)
			equal(t, "down after an hour without messages", b.Stats()[0].DownSince.IsZero(), true)
		})
	})
}

// An outage is one of the handler, which all scopes share.
func TestScope_an_outage_is_that_of_the_whole_batcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		var failing atomic.Bool
		failing.Store(true)
		r.after = func(context.Context, *Batch) error {
			if failing.Load() {
				return errBoom
			}
			return nil
		}
		b := mustNew(t, scoped(Batcher{Size: 1, Probe: true, Handler: r.handle}), nil)
		h := b.Middleware(nop)
		for _, id := range []string{"a:1", "b:1", "c:1"} { // three in a row, in whatever scope
			if err := sendAll(h, id)[0].result(); !errors.Is(err, errBoom) {
				t.Errorf("%s: got %v", id, err)
			}
		}
		synctest.Wait()
		equal(t, "down", b.Stats()[0].DownSince.IsZero(), false)
		passes := sendAll(h, "a:2", "b:2", "c:2", "d:2")
		equal(t, "all wait", len(r.seen()), 3)
		st := b.Stats()[0]
		equal(t, "stats", fmt.Sprint(st.Running, st.Ready, st.Scopes), "0 4 4")
		failing.Store(false)
		time.Sleep(150 * time.Millisecond) // one probe, which ends it for all
		wait(passes)
		for _, p := range passes {
			equal(t, p.msg.UUID, p.err, nil)
		}
		probes := 0
		for _, c := range r.seen()[3:] {
			if c.trigger == TriggerProbe {
				probes++
			}
		}
		equal(t, "probes", probes, 1)
		equal(t, "scopes", scopesOf(b), 0)
	})
}
