package batching

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// sendAll sends one message for each UUID through h, in order.
func sendAll(h message.HandlerFunc, ids ...string) []*pass {
	msgs := make([]*message.Message, len(ids))
	for i, id := range ids {
		msgs[i] = msgOf(id)
	}
	return sendAllMsgs(h, msgs...)
}

func sendAllMsgs(h message.HandlerFunc, msgs ...*message.Message) []*pass {
	passes := make([]*pass, len(msgs))
	for i, msg := range msgs {
		passes[i] = send(h, msg)
		synctest.Wait()
	}
	return passes
}

func TestTrigger(t *testing.T) {
	t.Run("size_makes_a_full_batch_run_at_once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 3, Timeout: time.Minute, Handler: r.handle}), nil)
			for _, p := range sendAll(b.Middleware(produce), "a", "b", "c") {
				equal(t, "error", p.result(), nil)
				equal(t, "produced", uuids(p.produced), "out-"+p.msg.UUID)
			}
			equal(t, "call", r.seen()[0], handled{batcher: "default", uuids: "a b c", trigger: TriggerSize})
			equal(t, "calls", len(r.seen()), 1)
		})
	})

	t.Run("timeout_counts_from_the_first_message_of_each_batch_key", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 10, Timeout: time.Second, Handler: r.handle}), nil)
			h := b.Middleware(func(msg *message.Message) ([]*message.Message, error) {
				SetBatchKey(msg, msg.UUID[:1])
				return nil, nil
			})
			send(h, msgOf("x1"))
			time.Sleep(300 * time.Millisecond)
			send(h, msgOf("y1"))
			time.Sleep(600 * time.Millisecond)
			last := send(h, msgOf("x2"))
			time.Sleep(time.Second)
			synctest.Wait()
			equal(t, "calls", len(r.seen()), 2)
			equal(t, "x", r.seen()[0], handled{batcher: "default", key: "x", uuids: "x1 x2", trigger: TriggerTimeout, oldest: time.Second, at: time.Second})
			equal(t, "y", r.seen()[1], handled{batcher: "default", key: "y", uuids: "y1", trigger: TriggerTimeout, oldest: time.Second, at: 1300 * time.Millisecond})
			equal(t, "x2 waited", last.took, 100*time.Millisecond)
		})
	})

	t.Run("the_timeout_of_a_full_batch_does_not_touch_the_next_one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 2, Timeout: time.Second, Handler: r.handle}), nil)
			h := b.Middleware(nop)
			sendAll(h, "a")
			time.Sleep(900 * time.Millisecond)
			sendAll(h, "b", "c")
			time.Sleep(999 * time.Millisecond)
			synctest.Wait()
			equal(t, "after 0.999 s", r.batches(), "a b")
			time.Sleep(time.Millisecond)
			synctest.Wait()
			equal(t, "after 1 s", r.batches(), "a b|c")
		})
	})

	t.Run("idle_counts_from_the_newest_message_and_timeout_still_holds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 100, Timeout: time.Second, Idle: 300 * time.Millisecond, Handler: r.handle}), nil)
			h := b.Middleware(nop)
			sendAll(h, "a")
			time.Sleep(200 * time.Millisecond)
			sendAll(h, "b")
			time.Sleep(time.Second)
			synctest.Wait()
			equal(t, "idle", r.seen()[0], handled{batcher: "default", uuids: "a b", trigger: TriggerIdle, oldest: 500 * time.Millisecond, at: 500 * time.Millisecond})
			for range 10 { // never idle
				sendAll(h, "c")
				time.Sleep(200 * time.Millisecond)
			}
			synctest.Wait()
			equal(t, "timeout", r.seen()[1].trigger, TriggerTimeout)
			equal(t, "age", r.seen()[1].oldest, time.Second)
			time.Sleep(time.Second)
		})
	})

	t.Run("bytes_are_never_exceeded_except_by_a_single_large_message", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{
				Size: 100, MaxBytes: 10, Timeout: time.Second, Handler: r.handle,
				SizeBy: func(msg *message.Message) int64 {
					n, _ := strconv.ParseInt(msg.UUID, 10, 64)
					return n
				},
			}), nil)
			h := b.Middleware(nop)
			// 4+4, then 4 would make 12; 4+6 is exactly full; 11 is too large for any; 3 waits.
			sendAll(h, "4", "4", "4", "6", "11", "-5", "3")
			time.Sleep(time.Second)
			synctest.Wait()
			equal(t, "batches", r.batches(), "4 4|4 6|11|-5 3")
			for i, want := range []Trigger{TriggerBytes, TriggerBytes, TriggerBytes, TriggerTimeout} {
				equal(t, "trigger", r.seen()[i].trigger, want)
			}
		})
	})

	t.Run("bytes_of_messages_that_left_do_not_count", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{MaxBytes: 15, Timeout: time.Minute, Handler: r.handle}), nil)
			h := b.Middleware(nop)
			left := newDelivered("b", "")
			left.msg.Payload = []byte("payload")
			p := sendAllMsgs(h, msgOf("a"), left.msg) // 7 bytes each
			left.cancel(errFenced)
			synctest.Wait()
			p = append(p, sendAll(h, "c")...)
			equal(t, "a", p[0].result(), nil)
			equal(t, "c", p[2].result(), nil)
			equal(t, "batches", r.batches(), "a c")
			equal(t, "trigger", r.seen()[0].trigger, TriggerTimeout)
		})
	})

	t.Run("bytes_count_payloads_by_default", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{MaxBytes: 14, Timeout: time.Minute, Handler: r.handle}), nil)
			for _, p := range sendAll(b.Middleware(nop), "a", "b") { // 7 bytes each
				equal(t, "error", p.result(), nil)
			}
			equal(t, "trigger", r.seen()[0].trigger, TriggerBytes)
		})
	})

	t.Run("flush_takes_what_is_in_the_batch_of_its_key", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 100, Timeout: time.Minute, Handler: r.handle}), nil)
			h := b.Middleware(func(msg *message.Message) ([]*message.Message, error) {
				SetBatchKey(msg, msg.UUID[:1])
				if msg.UUID == "x3" {
					Flush(msg)
				}
				return nil, nil
			})
			sendAll(h, "x1", "y1", "x2", "x3")
			equal(t, "call", r.seen()[0], handled{batcher: "default", key: "x", uuids: "x1 x2 x3", trigger: TriggerFlush})
			equal(t, "calls", len(r.seen()), 1)
			equal(t, "Close", b.Close(), nil)
			equal(t, "the rest", r.seen()[1].trigger, TriggerClose)
		})
	})

	t.Run("a_due_batch_that_cannot_run_yet_takes_more_messages", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(context.Context, *Batch) error { time.Sleep(5 * time.Second); return nil }
			b := mustNew(t, one(Batcher{Size: 4, Timeout: time.Second, Handler: r.handle}), nil)
			h := b.Middleware(nop)
			sendAll(h, "a") // runs from 1 s to 6 s
			time.Sleep(1500 * time.Millisecond)
			sendAll(h, "b") // due at 2.5 s
			time.Sleep(2 * time.Second)
			sendAll(h, "c", "d")
			time.Sleep(20 * time.Second)
			synctest.Wait()
			equal(t, "batches", r.batches(), "a|b c d")
			equal(t, "trigger", r.seen()[1].trigger, TriggerTimeout)
			equal(t, "at", r.seen()[1].at, 6*time.Second)
		})
	})
}

func TestConcurrency(t *testing.T) {
	t.Run("at_most_Concurrency_batches_run_each_in_its_partition", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			busy := make([]bool, 3)
			r.after = func(_ context.Context, b *Batch) error {
				if busy[b.Partition] {
					t.Errorf("partition %d is shared", b.Partition)
				}
				busy[b.Partition] = true
				time.Sleep(time.Second)
				busy[b.Partition] = false
				return nil
			}
			b := mustNew(t, one(Batcher{Size: 1, Concurrency: 3, Handler: r.handle}), nil)
			passes := sendAll(b.Middleware(nop), "a", "b", "c", "d", "e", "f", "g")
			for i, p := range passes {
				equal(t, "error", p.result(), nil)
				equal(t, "took", p.took, time.Duration(1+i/3)*time.Second)
			}
		})
	})

	t.Run("batchers_do_not_share_it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(context.Context, *Batch) error { time.Sleep(time.Second); return nil }
			b := mustNew(t, Config{
				Defaults: Batcher{Size: 1, Handler: r.handle},
				Batchers: map[string]Batcher{"a": {}, "b": {}},
			}, nil)
			h := b.Middleware(func(msg *message.Message) ([]*message.Message, error) {
				SetBatcher(msg, msg.UUID)
				return nil, nil
			})
			for _, p := range sendAll(h, "a", "b") {
				p.result()
				equal(t, "took", p.took, time.Second)
			}
		})
	})
}
