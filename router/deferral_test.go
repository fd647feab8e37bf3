package router_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router"
)

// stackOfWaiting is in the stack of a goroutine that waits for its message's batch.
const stackOfWaiting = "batching.(*Batching).wait("

// waitingGoroutines counts the goroutines that wait for a batch.
func waitingGoroutines() int {
	buf := make([]byte, 16<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), stackOfWaiting)
}

func TestBatches_a_message_has_a_goroutine_only_if_a_middleware_needs_its_outcome(t *testing.T) {
	const rows = 200
	through := func(h message.HandlerFunc) message.HandlerFunc { return h }
	for name, c := range map[string]struct {
		handlers router.Handlers
		around   []message.HandlerMiddleware
		want     int
	}{
		"no middleware":                     {want: 0},
		"middlewares around Process":        {handlers: router.Handlers{ProcessMiddlewares: []message.HandlerMiddleware{through, middleware.Recoverer}}, want: 0},
		"a middleware around the pipeline":  {handlers: router.Handlers{Middlewares: []message.HandlerMiddleware{through}}, want: rows},
		"a middleware around all pipelines": {around: []message.HandlerMiddleware{through}, want: rows},
	} {
		t.Run(name, func(t *testing.T) {
			bed := testbed.New(t, emulator.Options{})
			logger := watermill.NewCaptureLogger()
			r := buildLogging(t, fileFor(bed, "    batchers: {default: {batch_size: 1000, batch_timeout: 1m}}\n"), logger)
			r.AddMiddleware(c.around...)
			var processed atomic.Int64
			c.handlers.Process = func(*message.Message) error { processed.Add(1); return nil }
			var handled atomic.Int64
			c.handlers.Batches = map[string]func(context.Context, *batching.Batch) error{
				"default": func(_ context.Context, b *batching.Batch) error { handled.Add(int64(len(b.Messages))); return nil },
			}
			if err := r.Handle("numbers", c.handlers); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if n := handled.Load(); n != rows {
					t.Errorf("%d messages were handled when the Router has ended, want %d: the drain makes the batch due", n, rows)
				}
			})
			start(t, r)
			bed.PutAll(rows, 1)
			testbed.Eventually(t, 30*time.Second, "all messages are processed", func() bool { return processed.Load() == rows })
			testbed.Eventually(t, 30*time.Second, fmt.Sprintf("%d goroutines wait for the batch", c.want), func() bool { return waitingGoroutines() == c.want })
			said := false
			for _, line := range logger.Captured()[watermill.InfoLogLevel] {
				said = said || strings.HasPrefix(line.Msg, "Each message waits for its batch in a goroutine")
			}
			if said != (c.want > 0) {
				t.Errorf("the log says that each message waits: %v", said)
			}
		})
	}
}

// Each way in which a message ends in a pipeline with batches, at the place where it
// ends: before, in and after its batch.
func TestBatches_outcomes_are_the_same_with_and_without_a_goroutine_for_each_message(t *testing.T) {
	boom := errors.New("boom")
	for name, middlewares := range map[string][]message.HandlerMiddleware{
		"without": nil,
		"with":    {func(h message.HandlerFunc) message.HandlerFunc { return h }},
	} {
		t.Run(name, func(t *testing.T) {
			bed := testbed.New(t, emulator.Options{})
			r := build(t, fileFor(bed, `
    batchers: {default: {batch_size: 10, batch_timeout: 20ms}}
    failure: {attempts: 2, backoff_initial: 1ms, backoff_max: 5ms, dead_letter: {publisher: letters, topic: letters}}
`))
			box := new(letterTopic)
			if err := r.RegisterPublisher("letters", box); err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			handled, failures, dropped := map[string]int{}, map[string]int{}, 0
			tries := map[string]int{}
			err := r.Handle("numbers", router.Handlers{
				Middlewares: middlewares,
				Process: func(msg *message.Message) error {
					mu.Lock()
					defer mu.Unlock()
					key := keyOf(msg)
					tries[key]++
					msg.Payload = []byte("changed by Process")
					switch key {
					case testbed.Key(0):
						dropped++
						return router.ErrDrop
					case testbed.Key(1):
						if tries[key] == 1 {
							panic(boom)
						}
					case testbed.Key(2):
						return boom
					}
					return nil
				},
				Batches: map[string]func(context.Context, *batching.Batch) error{
					"default": func(_ context.Context, b *batching.Batch) error {
						mu.Lock()
						defer mu.Unlock()
						for _, msg := range b.Messages {
							key := keyOf(msg)
							if key == testbed.Key(3) || key == testbed.Key(4) && tries[key] == 1 {
								b.Fail(msg, boom)
								continue
							}
							handled[key]++
						}
						return nil
					},
				},
				Failed: func(msg *message.Message, err error) {
					mu.Lock()
					defer mu.Unlock()
					failures[keyOf(msg)]++
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			start(t, r)
			const rows = 30
			bed.PutAll(rows, 1)
			testbed.Eventually(t, 30*time.Second, "all messages have ended", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(handled) == rows-3 && len(box.kept(t)) == 2
			})
			mu.Lock()
			defer mu.Unlock()
			if dropped != 1 || failures[testbed.Key(1)] != 1 || failures[testbed.Key(2)] < 2 || failures[testbed.Key(3)] < 2 || failures[testbed.Key(4)] != 1 || len(failures) != 4 {
				t.Errorf("%d dropped, failures %v", dropped, failures)
			}
			for key, n := range handled {
				if n != 1 {
					t.Errorf("%s was handled %d times", key, n)
				}
			}
			for i, l := range box.kept(t) {
				if want := testbed.Key(i + 2); !strings.Contains(l.Key, want) {
					t.Errorf("a dead letter of %s, want %s", l.Key, want)
				}
				if !bytes.Contains(l.Payload, []byte("key-")) {
					t.Errorf("a dead letter has not the payload with which the message came: %q", l.Payload)
				}
			}
		})
	}
}

// keyOf returns the primary key of a message's record.
func keyOf(msg *message.Message) string {
	rec, _ := ots.RecordFromMessage(msg)
	return rec.PrimaryKey[0].Value.String()
}

// letterTopic is a publisher that keeps dead letters.
type letterTopic struct {
	mu      sync.Mutex
	letters []*message.Message
}

func (b *letterTopic) Publish(_ string, messages ...*message.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.letters = append(b.letters, messages...)
	return nil
}

func (*letterTopic) Close() error { return nil }

// keptLetter is what the tests read of a dead letter.
type keptLetter struct {
	Key     string `json:"key"`
	Payload []byte `json:"payload"`
}

// kept returns the letters, sorted by key.
func (b *letterTopic) kept(t *testing.T) []keptLetter {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]keptLetter, len(b.letters))
	for i, msg := range b.letters {
		if err := json.Unmarshal(msg.Payload, &all[i]); err != nil {
			t.Fatalf("letter %s: %v", msg.Payload, err)
		}
	}
	slices.SortFunc(all, func(a, b keptLetter) int { return strings.Compare(a.Key, b.Key) })
	return all
}

func TestBatches_a_stop_while_messages_wait_in_an_outage_gives_them_back_soon(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	r := build(t, fileFor(bed, `
    batchers: {default: {batch_size: 10, batch_timeout: 20ms}}
    failure: {backoff_initial: 1ms, backoff_max: 5ms}
`))
	var calls atomic.Int64
	err := r.Handle("numbers", router.Handlers{Batches: map[string]func(context.Context, *batching.Batch) error{
		"default": func(context.Context, *batching.Batch) error { calls.Add(1); return errors.New("down") },
	}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- r.Run(ctx) }() // ends with ctx
	<-r.Running()
	bed.PutAll(100, 1)
	testbed.Eventually(t, 30*time.Second, "the outage has begun", func() bool { return calls.Load() > 5 })
	cancel()
	began := time.Now()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 4*time.Second { // close_timeout is 5s
		t.Errorf("the drain took %v: the messages were not given back", took)
	}
}
