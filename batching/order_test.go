package batching

import (
	"context"
	"fmt"
	"strings"
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

	t.Run("a_failed_batch_calls_back_what_waits_behind_it", func(t *testing.T) {
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
			equal(t, "k1 is to come again", s.find("k1").state, queued)
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

	t.Run("batches_that_share_a_key_run_one_after_the_other_at_any_concurrency", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(context.Context, *Batch) error { time.Sleep(time.Second); return nil }
			cfg := one(Batcher{Size: 2, Timeout: time.Minute, Concurrency: 10, Handler: r.handle})
			cfg.OrderingKey = firstLetter
			b := mustNew(t, cfg, nil)
			p := sendAll(b.Middleware(nop), "a1", "b1", "b2", "c1", "c2", "d1", "x1", "y1", "-1", "-2", "-3", "-4")
			for i, want := range []int{1, 1, 2, 2, 3, 3, 1, 1, 1, 1, 1, 1} { // a chain a b, b c, c d; the rest beside it
				<-p[i].done
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
			time.Sleep(time.Minute)
			for i, c := range r.seen() {
				equal(t, c.uuids, c.at, time.Duration(i)*time.Second)
			}
			equal(t, "batches", r.batches(), "k1>s3/x a1>s3/x|k2>s3/y b1>s3/y|k3>sqs/ c1>sqs/")
		})
	})

	t.Run("a_batch_that_is_due_does_not_wait_for_the_time_of_an_earlier_one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, Config{
				OrderingKey: firstLetter,
				Defaults:    Batcher{Timeout: time.Hour, Size: 10, Handler: r.handle},
				Batchers:    map[string]Batcher{"s3": {}, "sqs": {Size: 2}},
			}, nil)
			// sqs is full; it waits for k of s3/y, and that for j of s3/x.
			sendAll(b.Middleware(byName), "j1>s3/x", "j2>s3/y", "k1>s3/y", "k2>sqs/", "z1>sqs/")
			equal(t, "batches", r.batches(), "j1>s3/x|j2>s3/y k1>s3/y|k2>sqs/ z1>sqs/")
			equal(t, "trigger", r.seen()[0].trigger, TriggerOrder)
			equal(t, "trigger", r.seen()[1].trigger, TriggerOrder)
			equal(t, "trigger", r.seen()[2].trigger, TriggerSize)
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
			// j is in s3 before sqs, k in sqs before s3: k2 cannot join j1.
			sendAll(b.Middleware(byName), "j1>s3/", "k1>sqs/", "j2>sqs/", "k2>s3/")
			equal(t, "at once", r.batches(), "j1>s3/")
			equal(t, "trigger", r.seen()[0].trigger, TriggerOrder)
			time.Sleep(time.Minute)
			synctest.Wait()
			equal(t, "after the timeout", r.batches(), "j1>s3/|k1>sqs/ j2>sqs/|k2>s3/")
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

	t.Run("a_batch_that_is_due_and_waits_does_not_begin_to_wait_for_an_open_one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(context.Context, *Batch) error { time.Sleep(10 * time.Second); return nil }
			b := mustNew(t, Config{
				OrderingKey: firstLetter,
				Defaults:    Batcher{Size: 10, Timeout: time.Second, Handler: r.handle},
				Batchers:    map[string]Batcher{"slow": {Size: 1}, "long": {Timeout: time.Hour}, "s3": {}},
			}, nil)
			h := b.Middleware(byName)
			sendAll(h, "a1>slow/", "k1>long/", "a2>s3/") // a2 is due at 1 s and waits for a1 until 10 s
			time.Sleep(2 * time.Second)
			sendAll(h, "k2>s3/")
			time.Sleep(time.Minute)
			synctest.Wait()
			equal(t, "batches", r.batches(), "a1>slow/|k1>long/|a2>s3/|k2>s3/")
			equal(t, "k1", r.seen()[1].at, 3*time.Second)
			equal(t, "a2", r.seen()[2].at, 10*time.Second)
			equal(t, "k2", r.seen()[3].at, 20*time.Second)
		})
	})

	t.Run("a_batch_that_all_have_left_still_stands_between_its_neighbours", func(t *testing.T) {
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

	t.Run("state_is_forgotten_when_all_is_done", func(t *testing.T) {
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
			equal(t, "tails", len(b.tails), 0)
			equal(t, "unfinished", b.unfinishedBatches(), 0)
			equal(t, "open", len(b.batchers[DefaultBatcher].open), 0)
			equal(t, "ready", len(b.batchers[DefaultBatcher].ready), 0)
			equal(t, "free", len(b.batchers[DefaultBatcher].free), 2)
		})
	})
}
