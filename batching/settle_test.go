package batching

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

// A channel is lost while its batch runs, and opened again in the same process: its records
// are redelivered, and wait behind the batch that still runs. When that is done they join.
func TestJoin_a_message_behind_one_that_was_fenced_in_a_running_batch_joins_when_the_batch_is_done(t *testing.T) {
	const keys, rounds = 500, 20
	for round := range rounds {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			first := true
			j := newJoins(t, Batcher{Size: keys, Timeout: time.Second, Concurrency: 1, Handler: func(context.Context, *Batch) error {
				if first {
					first = false
					<-release
				}
				return nil
			}})
			old := make([]*joinable, keys)
			for i := range old {
				old[i] = j.join(fmt.Sprintf("old%d", i), fmt.Sprint(i))
			}
			synctest.Wait() // the batch runs
			for _, d := range old {
				d.over(errFenced)
			}
			for i := range old {
				j.join(fmt.Sprintf("new%d", i), fmt.Sprint(i))
			}
			close(release)
			time.Sleep(time.Hour)
			j.expectNoneParked(round)
			if err := j.b.Close(); err != nil {
				t.Errorf("round %d: Close: %v", round, err)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// expectNoneParked fails the test if messages still wait for earlier ones of their keys.
func (j *joins) expectNoneParked(round int) {
	j.t.Helper()
	j.b.mu.Lock()
	defer j.b.mu.Unlock()
	if n := len(j.b.parked); n > 0 {
		j.t.Errorf("round %d: %d messages still wait although all batches are done", round, n)
	}
}

func TestJoin_Close_ends_in_its_time_although_Failed_blocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoins(t, Batcher{Size: 1, Handler: func(context.Context, *Batch) error { return errors.New("boom") }})
		release := make(chan struct{})
		j.failed = func(_ *message.Message, err error) error { <-release; return err }
		j.join("a", "")
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- j.b.Close() }()
		select {
		case <-closed:
		case <-time.After(time.Hour):
			t.Error("Close has not returned after an hour; CloseTimeout is 10s")
		}
		close(release)
	})
}

// t.FailNow, or anything else that ends the goroutine. A handler of Handle that does this
// fails its message (errHandlerExited), and the message is redelivered.
func TestJoin_a_message_is_settled_although_Failed_ends_its_goroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoins(t, Batcher{Size: 1, Handler: func(context.Context, *Batch) error { return errors.New("boom") }})
		j.failed = func(*message.Message, error) error { runtime.Goexit(); return nil }
		j.join("a", "")
		time.Sleep(time.Minute)
		j.expect("failed a", "nack a")
		j.b.Close()
	})
}

// A subscriber ends the delivery while Close refuses the message. For the race detector.
func TestJoin_refused_by_Close_while_its_delivery_ends(t *testing.T) {
	for range 2000 {
		b := mustNew(t, one(Batcher{Size: 10, Handler: succeeds}), nil)
		j := joinsTo(t, b)
		b.Close()
		var wg sync.WaitGroup
		d := &joinable{id: "a", key: "k", j: j, hurry: make(chan struct{}), draining: make(chan struct{})}
		ctx, cancel := context.WithCancelCause(context.Background())
		d.end = cancel
		msg := msgOf("a")
		msg.SetContext(ack.NewContext(ctx, d))
		wg.Go(func() { b.Join(msg, j.deferral, nil) })
		wg.Go(func() {
			for {
				d.mu.Lock()
				there := d.listener != nil
				d.mu.Unlock()
				if there {
					break
				}
				runtime.Gosched()
			}
			d.over(errFenced)
		})
		wg.Wait()
	}
}

// An ack.Deferrer whose Defer says that it cannot be settled later: messages of Subscribe.
func TestJoin_a_delivery_that_cannot_be_deferred_waits_as_in_Middleware(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoins(t, Batcher{Size: 1, Handler: succeeds})
		d := &undeferrable{joinable{j: j, id: "a", key: "k", hurry: make(chan struct{}), draining: make(chan struct{}), end: func(error) {}}}
		msg := msgOf("a")
		msg.SetContext(ack.NewContext(context.Background(), d))
		if joined, err := j.b.Join(msg, j.deferral, nil); joined || err != nil {
			t.Errorf("joined %v, error %v; want false and nil: the message is alive and its batch succeeds", joined, err)
		}
		j.b.Close()
	})
}

type undeferrable struct{ joinable }

func (*undeferrable) Defer(ack.Listener) bool { return false }

// Two subscriptions share a Batching and have equal keys. A failure in one of them does not
// call back the messages of the other.
func TestJoin_a_message_of_another_subscription_behind_a_failed_one_joins(t *testing.T) {
	const keys = 500
	for round := range 10 {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			first := true
			j := newJoins(t, Batcher{Size: keys, Timeout: time.Second, Concurrency: 1, Handler: func(context.Context, *Batch) error {
				if first {
					first = false
					<-release
					return errors.New("boom")
				}
				return nil
			}})
			for i := range keys {
				j.join(fmt.Sprintf("one%d", i), fmt.Sprint(i))
			}
			synctest.Wait()
			for i := range keys {
				j.join(fmt.Sprintf("two%d", i), fmt.Sprint(i))
			}
			close(release)
			time.Sleep(time.Hour)
			j.expectNoneParked(round)
			j.b.Close()
		})
		if t.Failed() {
			return
		}
	}
}
