package router_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/router"
)

func withAndWithout(t *testing.T, f func(t *testing.T, middlewares []message.HandlerMiddleware)) {
	t.Run("with a goroutine for each message", func(t *testing.T) {
		f(t, []message.HandlerMiddleware{func(h message.HandlerFunc) message.HandlerFunc { return h }})
	})
	t.Run("without", func(t *testing.T) { f(t, nil) })
}

func failsBatches(context.Context, *batching.Batch) error { return errors.New("boom") }

// L7: Handlers.Failed is user code. Close no longer waits for what does not return.
func TestBatches_a_Failed_that_blocks_does_not_hold_up_Run(t *testing.T) {
	withAndWithout(t, func(t *testing.T, middlewares []message.HandlerMiddleware) {
		bed := testbed.New(t, emulator.Options{})
		r := build(t, fileFor(bed, "    batchers: {default: {batch_size: 1, batch_timeout: 20ms}}\n"))
		release := make(chan struct{})
		var failed atomic.Int64
		err := r.Handle("numbers", router.Handlers{
			Middlewares: middlewares,
			Batches:     map[string]func(context.Context, *batching.Batch) error{"default": failsBatches},
			Failed:      func(*message.Message, error) { failed.Add(1); <-release },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }() // ends with ctx and release
		<-r.Running()
		bed.PutAll(1, 1)
		testbed.Eventually(t, 30*time.Second, "Failed is called", func() bool { return failed.Load() > 0 })
		cancel()
		began := time.Now()
		select {
		case err := <-ended:
			t.Logf("Run ended after %v: %v", time.Since(began), err)
		case <-time.After(40 * time.Second): // close_timeout is 5 s
			t.Error("Run has not ended 40 s after its context, close_timeout is 5 s")
			close(release)
			<-ended
			return
		}
		close(release)
	})
}

// panicking is a publisher of dead letters that panics twice, as a nil map in a
// codec would.
type panicking struct {
	letterTopic
	calls atomic.Int64
}

func (p *panicking) Publish(topic string, messages ...*message.Message) error {
	if p.calls.Add(1) <= 2 {
		panic("publisher")
	}
	return p.letterTopic.Publish(topic, messages...)
}

// Without the fix the whole test process ends, and so would the user's.
func TestBatches_a_dead_letter_publisher_that_panics_does_not_end_the_process(t *testing.T) {
	withAndWithout(t, func(t *testing.T, middlewares []message.HandlerMiddleware) {
		bed := testbed.New(t, emulator.Options{})
		r := build(t, fileFor(bed, `
    batchers: {default: {batch_size: 1, batch_timeout: 20ms}}
    failure: {attempts: 1, give_up_after: 1ms, backoff_initial: 1ms, backoff_max: 5ms, dead_letter: {publisher: letters, topic: letters}}
`))
		box := new(panicking)
		if err := r.RegisterPublisher("letters", box); err != nil {
			t.Fatal(err)
		}
		err := r.Handle("numbers", router.Handlers{
			Middlewares: middlewares,
			Batches:     map[string]func(context.Context, *batching.Batch) error{"default": failsBatches},
		})
		if err != nil {
			t.Fatal(err)
		}
		start(t, r)
		bed.PutAll(1, 1)
		testbed.Eventually(t, 30*time.Second, "the letter is kept at the third try", func() bool { return len(box.kept(t)) == 1 })
	})
}

func TestBatches_a_Failed_that_exits_does_not_leave_its_message_unsettled(t *testing.T) {
	withAndWithout(t, func(t *testing.T, middlewares []message.HandlerMiddleware) {
		bed := testbed.New(t, emulator.Options{})
		r := build(t, fileFor(bed, `
    batchers: {default: {batch_size: 1, batch_timeout: 20ms}}
    failure: {backoff_initial: 1ms, backoff_max: 5ms}
`))
		var calls atomic.Int64
		err := r.Handle("numbers", router.Handlers{
			Middlewares: middlewares,
			Batches: map[string]func(context.Context, *batching.Batch) error{"default": func(context.Context, *batching.Batch) error {
				if calls.Add(1) == 1 {
					return errors.New("boom")
				}
				return nil
			}},
			Failed: func(*message.Message, error) { runtime.Goexit() },
		})
		if err != nil {
			t.Fatal(err)
		}
		start(t, r)
		bed.PutAll(1, 1)
		testbed.Eventually(t, 10*time.Second, "the message is redelivered", func() bool { return calls.Load() == 2 })
	})
}
