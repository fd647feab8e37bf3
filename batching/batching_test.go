package batching

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

func TestTrigger(t *testing.T) {
	t.Run("size_makes_a_full_batch_run_at_once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 3, Timeout: time.Minute, Handler: r.handle}), nil)
			h := b.Middleware(produce)
			var passes []*pass
			for _, id := range []string{"a", "b", "c"} {
				passes = append(passes, send(h, msgOf(id)))
				synctest.Wait()
			}
			for _, p := range passes {
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
}
