package batching

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

func TestStats(t *testing.T) {
	t.Run("of_an_idle_batching_names_each_batcher_and_each_trigger", func(t *testing.T) {
		b := mustNew(t, Config{Batchers: map[string]Batcher{"b": {Handler: succeed}, "a": {Handler: succeed, Size: 7, Concurrency: 2}}}, nil)
		all := b.Stats()
		equal(t, "batchers", len(all), 2)
		equal(t, "first", fmt.Sprint(all[0].Batcher, all[0].Size, all[0].Concurrency, all[0].Timeout), "a7 2 1s")
		equal(t, "second", all[1].Batcher, "b")
		equal(t, "triggers", fmt.Sprint(all[0].Batches), "map[bytes:0 close:0 drain:0 flush:0 idle:0 order:0 probe:0 size:0 timeout:0]")
	})

	t.Run("follows_messages_from_waiting_to_their_outcome", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(_ context.Context, b *Batch) error {
				time.Sleep(2 * time.Second)
				b.Fail(b.Messages[0], errBoom)
				return nil
			}
			var handled []Handled
			cfg := one(Batcher{Size: 3, Timeout: time.Minute, Handler: r.handle})
			cfg.OnBatch = func(h Handled) { handled = append(handled, h) }
			b := mustNew(t, cfg, nil)
			h := b.Middleware(nop)
			passes := sendAll(h, "a", "b")
			equal(t, "waiting", b.Stats()[0].Waiting, 2)
			time.Sleep(5 * time.Second)
			passes = append(passes, sendAll(h, "c", "d", "e", "f")...)
			st := b.Stats()[0]
			equal(t, "while the first runs and the second is ready", fmt.Sprint(st.Waiting, st.Ready, st.Running, st.Handling), "3 1 1 3")
			for _, p := range passes {
				<-p.done
			}
			synctest.Wait()
			st = b.Stats()[0]
			equal(t, "at the end", fmt.Sprint(st.Waiting, st.Ready, st.Running, st.Handling), "0 0 0 0")
			equal(t, "outcomes", fmt.Sprint(st.Succeeded, st.Failed, st.CalledBack), "4 2 0")
			equal(t, "batches", fmt.Sprint(st.Batches[TriggerSize], st.FailedBatches), "2 2")
			equal(t, "times", fmt.Sprint(st.WaitTime, st.HandlingTime), "7s 4s")
			equal(t, "calls", fmt.Sprint(handled), fmt.Sprint([]Handled{
				{Batcher: "default", Trigger: TriggerSize, Messages: 3, Failed: 1, Waited: 5 * time.Second, Took: 2 * time.Second},
				{Batcher: "default", Trigger: TriggerSize, Messages: 3, Failed: 1, Waited: 2 * time.Second, Took: 2 * time.Second},
			}))
		})
	})

	t.Run("a_message_that_is_called_back_neither_succeeds_nor_fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(context.Context, *Batch) error { time.Sleep(time.Second); return errBoom }
			b := mustNew(t, one(Batcher{Size: 2, Timeout: time.Minute, Handler: r.handle}), nil)
			h := b.Middleware(nop)
			back, other := newDelivered("a", "k"), newDelivered("b", "j")
			passes := sendAllMsgs(h, back.msg, other.msg)
			back.cancel(ack.ErrCalledBack)
			for _, p := range passes {
				<-p.done
			}
			synctest.Wait()
			st := b.Stats()[0]
			equal(t, "outcomes", fmt.Sprint(st.Succeeded, st.Failed, st.CalledBack), "0 1 1")
		})
	})

	t.Run("a_message_that_leaves_no_longer_waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := mustNew(t, one(Batcher{Size: 2, Timeout: time.Minute, Handler: succeed}), nil)
			d := newDelivered("a", "k")
			p := sendAllMsgs(b.Middleware(nop), []*message.Message{d.msg}...)[0]
			d.cancel(context.Canceled)
			<-p.done
			st := b.Stats()[0]
			equal(t, "left", fmt.Sprint(st.Waiting, st.Succeeded, st.Failed, st.Batches[TriggerDrain]), "0 0 0 0")
		})
	})
}
