package batching

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// nop is a processing step that does nothing.
func nop(*message.Message) ([]*message.Message, error) { return nil, nil }

// byName routes a message called "k0>sqs/x" to batcher sqs and batch key x; the
// ordering key is the UUID's first letter.
func byName(msg *message.Message) ([]*message.Message, error) {
	_, to, _ := strings.Cut(msg.UUID, ">")
	batcher, key, _ := strings.Cut(to, "/")
	SetBatcher(msg, batcher)
	SetBatchKey(msg, key)
	return nil, nil
}

// handledBy returns a copy of c in which h handles all batches.
func (c Config) handledBy(h HandlerFunc) Config {
	c.Defaults.Handler = h
	return c
}

// firstLetter is an OrderingKey: "k1" and "k2" are in order.
func firstLetter(msg *message.Message) string {
	return strings.Trim(msg.UUID[:1], "-") // "-" is in no order
}

func TestOrder(t *testing.T) {
	t.Run("1000_updates_of_one_key_take_ten_batches", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			s := newSource(4096, time.Second)
			b := mustNew(t, one(Batcher{Size: 100, Timeout: time.Second, Concurrency: 4, Handler: r.handle}), nil)
			stopped := s.route(b.Middleware(nop))
			l := newLedger()
			r.after = func(_ context.Context, b *Batch) error {
				l.begin(b.Messages)
				time.Sleep(10 * time.Millisecond)
				l.end(b.Messages, func(*message.Message) bool { return true })
				return nil
			}
			for i := range 1000 {
				id := fmt.Sprint("k", i)
				l.expect(id, "k")
				s.add(id, "k")
			}
			time.Sleep(150 * time.Millisecond)
			synctest.Wait()
			equal(t, "acked", s.count(acked), 1000)
			equal(t, "batches", len(r.seen()), 10)
			equal(t, "order", l.err(), nil)
			equal(t, "source", s.faultsFound(), nil)
			s.Close()
			<-stopped
		})
	})

	t.Run("a_failed_batch_calls_back_the_messages_that_wait_behind_it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			s := newSource(4096, time.Second)
			b := mustNew(t, one(Batcher{Size: 2, Timeout: 100 * time.Millisecond, Concurrency: 4, Handler: r.handle}), nil)
			fails := 1
			r.after = func(_ context.Context, b *Batch) error {
				time.Sleep(50 * time.Millisecond)
				if b.Messages[0].UUID == "k0" && fails > 0 {
					fails--
					return errBoom
				}
				return nil
			}
			stopped := s.route(b.Middleware(nop))
			for i := range 5 {
				s.add(fmt.Sprint("k", i), "k")
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			equal(t, "batches", r.batches(), "k0 k1|k0 k1|k2 k3|k4")
			equal(t, "acked", s.count(acked), 5)
			equal(t, "failures of k0", s.find("k0").failures, 1)
			equal(t, "failures of k1", s.find("k1").failures, 0)
			equal(t, "attempts of k4", s.find("k4").attempt, 2)
			equal(t, "source", s.faultsFound(), nil)
			s.Close()
			<-stopped
		})
	})

	t.Run("a_failed_message_takes_back_the_later_ones_of_its_key_in_the_same_batch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			s := newSource(4096, time.Second)
			fails := 1
			r.after = func(_ context.Context, b *Batch) error {
				if fails > 0 {
					fails--
					b.Fail(b.Messages[0], errBoom) // k0
				}
				return nil
			}
			b := mustNew(t, one(Batcher{Size: 3, Timeout: 100 * time.Millisecond, Handler: r.handle}), nil)
			stopped := s.route(b.Middleware(nop))
			for _, id := range []string{"k0", "k1", "j0"} {
				s.add(id, id[:1])
				synctest.Wait()
			}
			equal(t, "j0 is done", s.find("j0").state, acked)
			equal(t, "k1 will be redelivered", s.find("k1").state, queued)
			time.Sleep(10 * time.Second)
			synctest.Wait()
			equal(t, "batches", r.batches(), "k0 k1 j0|k0 k1")
			equal(t, "failures of k1", s.find("k1").failures, 0)
			s.Close()
			<-stopped
		})
	})

	t.Run("the_processing_steps_error_and_panic_call_back_too", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			s := newSource(4096, time.Second)
			b := mustNew(t, one(Batcher{Size: 10, Timeout: 100 * time.Millisecond, Handler: r.handle}), nil)
			var states []recordState
			calls := 0
			inside := b.Middleware(func(msg *message.Message) ([]*message.Message, error) {
				if calls++; calls == 1 {
					return nil, errBoom
				} else if calls == 2 {
					panic(errBoom)
				}
				return nil, nil
			})
			stopped := s.route(func(msg *message.Message) (out []*message.Message, err error) {
				defer func() { states = append(states, s.find("k0").state) }()
				return inside(msg)
			})
			s.add("k0", "k")
			time.Sleep(5 * time.Second)
			synctest.Wait()
			equal(t, "states", fmt.Sprint(states), fmt.Sprint([]recordState{failed, failed, begun}))
			equal(t, "batches", r.batches(), "k0")
			equal(t, "source", s.faultsFound(), nil)
			s.Close()
			<-stopped
		})
	})

	t.Run("batches_that_share_a_key_run_one_at_a_time_at_any_concurrency", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(context.Context, *Batch) error { time.Sleep(time.Second); return nil }
			cfg := one(Batcher{Size: 2, Timeout: time.Minute, Concurrency: 10, Handler: r.handle})
			cfg.OrderingKey = firstLetter
			b := mustNew(t, cfg, nil)
			p := sendAll(b.Middleware(nop), "a1", "b1", "b2", "c1", "c2", "d1", "x1", "y1", "-1", "-2", "-3", "-4")
			time.Sleep(time.Minute)
			synctest.Wait()
			equal(t, "batches", r.batches(), "a1 b1|c1 c2|d1 x1|y1 -1|-2 -3|-4 b2")
			for i, want := range []int{1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 2} { // b2 waits for b1 outside of any batch
				equal(t, p[i].msg.UUID, p[i].took, time.Duration(want)*time.Second)
			}
		})
	})

	t.Run("also_across_batch_keys_and_batchers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(context.Context, *Batch) error { time.Sleep(time.Second); return nil }
			b := mustNew(t, Config{
				OrderingKey: firstLetter,
				Defaults:    Batcher{Size: 2, Timeout: time.Minute, Concurrency: 10, Handler: r.handle},
				Batchers:    map[string]Batcher{"s3": {}, "sqs": {}},
			}, nil)
			sendAll(b.Middleware(byName), "k1>s3/x", "a1>s3/x", "k2>s3/y", "b1>s3/y", "k3>sqs/", "c1>sqs/")
			time.Sleep(2 * time.Minute)
			equal(t, "batches", r.batches(), "k1>s3/x a1>s3/x|k2>s3/y|c1>sqs/ k3>sqs/|b1>s3/y")
			for i, want := range []time.Duration{0, time.Second, 2 * time.Second, time.Minute} {
				equal(t, r.seen()[i].uuids, r.seen()[i].at, want)
			}
			equal(t, "k2 is not kept for its neighbours", r.seen()[1].trigger, TriggerOrder)
			equal(t, "b1 is not hurried for k2", r.seen()[3].trigger, TriggerTimeout)
		})
	})

	t.Run("a_message_waits_for_the_batch_before_it_no_longer_than_its_own_timeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, Config{
				OrderingKey: firstLetter,
				Defaults:    Batcher{Size: 10, Handler: r.handle},
				Batchers:    map[string]Batcher{"slow": {Timeout: time.Hour}, "quick": {Timeout: time.Second}},
			}, nil)
			sendAll(b.Middleware(byName), "k1>slow/", "a1>slow/", "k2>quick/")
			time.Sleep(time.Minute)
			equal(t, "batches", r.batches(), "k1>slow/ a1>slow/|k2>quick/")
			equal(t, "trigger", r.seen()[0].trigger, TriggerOrder)
			equal(t, "at", r.seen()[0].at, time.Second)
			equal(t, "k2", r.seen()[1], handled{batcher: "quick", uuids: "k2>quick/", trigger: TriggerTimeout, oldest: time.Second, at: time.Second})
		})
	})

	t.Run("batches_never_wait_for_each_other", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, Config{
				OrderingKey: firstLetter,
				Defaults:    Batcher{Timeout: time.Minute, Size: 10, Handler: r.handle},
				Batchers:    map[string]Batcher{"s3": {}, "sqs": {}},
			}, nil)
			// j is in s3 before sqs, k in sqs before s3.
			sendAll(b.Middleware(byName), "j1>s3/", "k1>sqs/", "j2>sqs/", "k2>s3/")
			time.Sleep(time.Minute)
			synctest.Wait()
			equal(t, "handled", len(strings.Fields(strings.ReplaceAll(r.batches(), "|", " "))), 4)
			for _, c := range r.seen() {
				equal(t, c.uuids, c.at, time.Minute)
			}
			equal(t, "turns", forgotten(b), 0)
		})
	})

	t.Run("a_row_that_alternates_between_batchers_does_not_hurry_its_neighbours", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			count := func(hot bool) (batches int, slowest time.Duration, hotAcked int) {
				var mu sync.Mutex
				s := newSource(4096, time.Second)
				b := mustNew(t, Config{
					Defaults: Batcher{Size: 100, Timeout: time.Second},
					Batchers: map[string]Batcher{"even": {}, "odd": {}},
				}.handledBy(func(_ context.Context, b *Batch) error {
					for _, m := range b.Messages {
						if m.Metadata.Get("key") != "h" {
							mu.Lock()
							batches++
							mu.Unlock()
							break
						}
					}
					time.Sleep(5 * time.Millisecond)
					return nil
				}), nil)
				h := b.Middleware(func(msg *message.Message) ([]*message.Message, error) {
					SetBatcher(msg, map[byte]string{0: "even", 1: "odd"}[msg.UUID[len(msg.UUID)-1]%2])
					return nil, nil
				})
				stopped := s.route(func(msg *message.Message) ([]*message.Message, error) {
					began := time.Now()
					out, err := h(msg)
					mu.Lock()
					defer mu.Unlock()
					if msg.Metadata.Get("key") == "h" {
						hotAcked++
					} else {
						slowest = max(slowest, time.Since(began))
					}
					return out, err
				})
				for i := range 1000 { // 100 a second, 10 seconds
					if id := fmt.Sprint("m", i); i%5 != 0 {
						s.add(id, id)
					} else if hot {
						s.add(fmt.Sprint("h", i/5), "h")
					}
					time.Sleep(10 * time.Millisecond)
				}
				time.Sleep(5 * time.Second)
				s.Close()
				<-stopped
				return batches, slowest, hotAcked
			}
			alone, slowestAlone, _ := count(false)
			with, slowest, hot := count(true)
			equal(t, "hot ones", hot, 200)
			if with > alone+2 {
				t.Errorf("the others took %d batches, %d without the hot row", with, alone)
			}
			if slowest > slowestAlone+200*time.Millisecond {
				t.Errorf("one of the others took %v, %v without the hot row", slowest, slowestAlone)
			}
		})
	})

	t.Run("a_ready_batch_does_not_begin_to_wait", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(context.Context, *Batch) error { time.Sleep(10 * time.Second); return nil }
			b := mustNew(t, Config{
				OrderingKey: firstLetter,
				Defaults:    Batcher{Timeout: time.Second, Size: 10, Handler: r.handle},
				Batchers:    map[string]Batcher{"s3": {}, "slow": {Concurrency: 2, Size: 1, Timeout: time.Second}},
			}, nil)
			h := b.Middleware(byName)
			sendAll(h, "a1>s3/")
			time.Sleep(2 * time.Second) // a1 runs from 1 s to 11 s
			sendAll(h, "b1>s3/")
			time.Sleep(7 * time.Second) // b1 is due at 3 s; 9 s
			sendAll(h, "k1>slow/", "k2>s3/")
			time.Sleep(time.Minute)
			synctest.Wait()
			equal(t, "batches", r.batches(), "a1>s3/|k1>slow/|b1>s3/|k2>s3/")
			equal(t, "b1 had its turn", r.seen()[2].at, 11*time.Second)
		})
	})

	t.Run("a_batch_that_all_messages_have_left_still_keeps_the_order_of_its_neighbours", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(context.Context, *Batch) error { time.Sleep(time.Minute); return nil }
			b := mustNew(t, Config{
				Defaults: Batcher{Handler: r.handle, Size: 1},
				Batchers: map[string]Batcher{"a": {}, "b": {Size: 10, Timeout: time.Hour}, "c": {}},
			}, nil)
			h := b.Middleware(byName)
			j1, j2, j3 := newDelivered("j1>a/", "j"), newDelivered("j2>b/", "j"), newDelivered("j3>c/", "j")
			sendAllMsgs(h, j1.msg, j2.msg)
			j2.cancel(errFenced)
			synctest.Wait()
			sendAllMsgs(h, j3.msg)
			equal(t, "j3 waits for j1", r.batches(), "j1>a/")
			time.Sleep(time.Hour)
			synctest.Wait()
			equal(t, "batches", r.batches(), "j1>a/|j3>c/")
			equal(t, "unfinished", b.unfinishedBatches(), 0)
		})
	})

	t.Run("state_is_dropped_when_all_messages_are_done", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			cfg := one(Batcher{Size: 3, Timeout: time.Second, Concurrency: 2, Handler: r.handle})
			cfg.OrderingKey = firstLetter
			b := mustNew(t, cfg, nil)
			sendAll(b.Middleware(func(msg *message.Message) ([]*message.Message, error) {
				SetBatchKey(msg, msg.UUID)
				return nil, nil
			}), "a1", "a2", "b1", "a1", "c1", "b1", "-", "-", "-")
			time.Sleep(time.Minute)
			synctest.Wait()
			equal(t, "turns", forgotten(b), 0)
			equal(t, "parked", len(b.parked), 0)
			equal(t, "unfinished", b.unfinishedBatches(), 0)
			equal(t, "open", len(b.batchers[DefaultBatcher].whole.open), 0)
			equal(t, "ready", len(b.batchers[DefaultBatcher].whole.ready), 0)
			equal(t, "messages", b.batchers[DefaultBatcher].whole.items, 0)
			equal(t, "free", len(b.batchers[DefaultBatcher].free), 2)
		})
	})
}

// lateContext has ended, as its Err says, before its Done does: the goroutine that waits for it has
// not run yet. Its Err calls hook when it is called for the first time after arm.
type lateContext struct {
	context.Context
	late  chan struct{}
	armed atomic.Bool
	hook  func()
}

func (c *lateContext) Done() <-chan struct{} { return c.late }

func (c *lateContext) Err() error {
	if c.armed.CompareAndSwap(true, false) {
		c.hook()
		return nil // as it was when it was asked
	}
	return c.Context.Err()
}

// TestL3_messages_that_are_called_back_while_their_batch_begins_are_not_handled: a subscriber
// calls back the last one first. When the batch checks them, one may have left it by itself while
// a later one of its key was checked before it ended: to handle that one would be out of order.
func TestL3_messages_that_are_called_back_while_their_batch_begins_are_not_handled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder()
		b := mustNew(t, Config{
			OrderingKey: func(*message.Message) string { return "k" },
			Batchers:    map[string]Batcher{DefaultBatcher: {Handler: r.handle, Size: 3, Timeout: time.Hour}},
		}, nil)
		h := b.Middleware(nop)
		late := make(chan struct{})
		var cancels [3]context.CancelFunc
		var passes []*pass
		var second *lateContext
		for i := range cancels {
			msg := msgOf(fmt.Sprint(i + 1))
			ctx, cancel := context.WithCancel(context.Background())
			cancels[i] = cancel
			if i > 0 {
				c := &lateContext{Context: ctx, late: late, hook: func() {
					for _, cancel := range slices.Backward(cancels[:]) {
						cancel()
					}
					for b.Stats()[0].Waiting == 3 { // the first one leaves; the others' goroutines have not heard of it
						time.Sleep(time.Millisecond)
					}
				}}
				second = cmp.Or(second, c)
				ctx = c
			}
			msg.SetContext(ctx)
			synctest.Wait()
			if i == 2 {
				second.armed.Store(true) // the next to ask is the batch, which this message completes
			}
			passes = append(passes, send(h, msg))
		}
		time.Sleep(time.Second)
		close(late)
		for _, p := range passes {
			if err := p.result(); err == nil {
				t.Errorf("%s succeeded although it was called back", p.msg.UUID)
			}
		}
		equal(t, "handled", r.batches(), "")
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}
