package subscriber

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
)

// heard collects what callbacks were called with.
type heard[T any] struct {
	mu  sync.Mutex
	all []T
}

func (h *heard[T]) add(v T) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, v)
}

func (h *heard[T]) get() []T {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all)
}

// hangInHandler stands in the stacks of the handlers that hang.
//
//go:noinline
func hangInHandler(release <-chan struct{}) { <-release }

func TestAlarm_of_many_stuck_handlers_is_one_with_their_count_keys_and_stack(t *testing.T) {
	t.Parallel()
	const n = 300
	for way, subscribe := range map[string]func(t *testing.T, s *Subscriber, release <-chan struct{}) (end func()){
		"Router": func(t *testing.T, s *Subscriber, release <-chan struct{}) func() {
			router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
			if err != nil {
				t.Fatal(err)
			}
			router.AddConsumerHandler("h", "table/tunnel", s, func(*message.Message) error { hangInHandler(release); return nil })
			ran := make(chan error)
			go func() { ran <- router.Run(context.Background()) }()
			return func() {
				if err := errors.Join(router.Close(), <-ran); err != nil {
					t.Error(err)
				}
			}
		},
		"batches behind a Router": func(t *testing.T, s *Subscriber, release <-chan struct{}) func() {
			b, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{"default": {
				Size: 100, Timeout: time.Second, Concurrency: 3,
				Handler: func(context.Context, *batching.Batch) error { hangInHandler(release); return nil },
			}}}, watermill.NopLogger{})
			if err != nil {
				t.Fatal(err)
			}
			router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
			if err != nil {
				t.Fatal(err)
			}
			router.AddMiddleware(b.Middleware)
			router.AddConsumerHandler("h", "table/tunnel", s, func(*message.Message) error { return nil })
			ran := make(chan error)
			go func() { ran <- router.Run(context.Background()) }()
			return func() {
				if err := errors.Join(router.Close(), <-ran); err != nil {
					t.Error(err)
				}
			}
		},
		"Handle": func(t *testing.T, s *Subscriber, release <-chan struct{}) func() {
			if _, err := s.Handle(context.Background(), "table/tunnel", func(*message.Message) error { hangInHandler(release); return nil }); err != nil {
				t.Fatal(err)
			}
			return func() {}
		},
	} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				alarms := new(heard[Alarm])
				f := fakeTunnel(n)
				logger := watermill.NewCaptureLogger()
				s, err := New(Config{
					Endpoint: "http://localhost", Instance: "inst", AccessKeyID: "id", AccessKeySecret: "hush-hush", Transport: f, OnAlarm: alarms.add,
				}, logger)
				if err != nil {
					t.Fatal(err)
				}
				release := make(chan struct{})
				end := subscribe(t, s, release)
				time.Sleep(DefaultStuckAfter + DefaultStuckAfter/checksPerStuck + time.Second)
				all := alarms.get()
				if len(all) != 1 {
					t.Fatalf("%d alarms of %d handlers that hang, want one", len(all), n)
				}
				a := all[0]
				if a.Kind != HandlerStuck || a.Count != n || len(a.Keys) != alarmKeys || a.Key != a.Keys[0] || a.Key != "[0]" || a.Attempt != 1 || a.Age < DefaultStuckAfter || a.Topic != "table/tunnel" || a.Channel != "c1" {
					t.Errorf("the alarm is %+v", a)
				}
				if !strings.Contains(a.Stacks, "subscriber.hangInHandler") || len(a.Stacks) > maxStacks {
					t.Errorf("the stacks (%d bytes) do not show the handler:\n%s", len(a.Stacks), a.Stacks)
				}
				time.Sleep(DefaultStuckAfter)
				if got := len(alarms.get()); got != 2 {
					t.Errorf("%d alarms after twice StuckAfter, want another one", got)
				}
				close(release)
				end()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				logged := 0
				for _, line := range logger.Captured()[watermill.ErrorLogLevel] {
					if line.Msg == "Alarm: handler stuck" {
						logged++
					}
				}
				if logged != 2 {
					t.Errorf("%d lines in the log, want one for each alarm", logged)
				}
			})
		})
	}
}

func TestPickStacks_shows_handlers_or_else_the_program(t *testing.T) {
	block := func(count int, frames ...string) string {
		b := strings.Builder{}
		fmt.Fprintf(&b, "%d @ 0x1 0x2\n# labels: {\"secret\":\"hush\"}\n", count)
		for _, f := range frames {
			fmt.Fprintf(&b, "#\t0x4a1f44\t%s+0x24\t\t/src/x.go:12\n", f)
		}
		return b.String()
	}
	const profile, router = "goroutine profile: total 9\n", "github.com/ThreeDotsLabs/watermill/message.(*handler).handleMessage"
	library := block(3, "runtime.gopark", "github.com/watermill-ots/watermill-ots/subscriber.(*channelRun).main")
	loop := block(1, "main.handle", "main.main")
	handler := block(4000, "main.handle", router)

	want := "4000 goroutine(s):\n\tmain.handle+0x24 /src/x.go:12\n\t" + router + "+0x24 /src/x.go:12\n\n"
	if got := pickStacks(profile + strings.Join([]string{handler, loop, library}, "\n")); got != want {
		t.Errorf("with a handler:\n%s\nwant\n%s", got, want)
	}
	want = "1 goroutine(s):\n\tmain.handle+0x24 /src/x.go:12\n\tmain.main+0x24 /src/x.go:12\n\n"
	if got := pickStacks(profile + strings.Join([]string{library, loop}, "\n")); got != want {
		t.Errorf("with a loop of the program's own:\n%s\nwant\n%s", got, want)
	}
	var many []string
	for i := range 10_000 {
		many = append(many, block(1, fmt.Sprintf("main.handle%d", i), router))
	}
	if got := pickStacks(profile + strings.Join(many, "\n")); len(got) > maxStacks || len(got) < maxStacks-1000 || !strings.Contains(got, "main.handle0+") {
		t.Errorf("%d bytes of 10000 different stacks", len(got))
	}
}

// What OnAlarm does wrong, and what works all the same.
func TestCallbacks_that_misbehave_hold_up_nothing(t *testing.T) {
	t.Parallel()
	for name, misbehave := range map[string]func(s *Subscriber){
		"slow":   func(*Subscriber) { time.Sleep(2 * time.Minute) },
		"panics": func(*Subscriber) { panic("in a callback") },
		"exits":  func(*Subscriber) { runtime.Goexit() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := endless(fakeTunnel(0))
				var s *Subscriber
				alarms, phases := new(heard[Alarm]), new(heard[Phase])
				logger := watermill.NewCaptureLogger()
				s, err := New(Config{
					Endpoint: "http://localhost", Instance: "inst", AccessKeyID: "id", AccessKeySecret: "hush-hush", Transport: f,
					StuckAfter: time.Minute, Ordering: Unordered,
					OnAlarm: func(a Alarm) { alarms.add(a); misbehave(s) },
					OnPhase: func(p Phase) { phases.add(p); misbehave(s) },
				}, logger)
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				messages := subscribeTo(t, s)
				first := <-messages
				if opened := time.Since(start); name == "slow" && opened < 2*time.Minute {
					t.Errorf("a record came %v after the start, before OnPhase had returned", opened)
				}
				(<-messages).Ack()
				held := <-messages // is stuck
				first.Ack()
				time.Sleep(5 * time.Minute)
				held.Ack()
				go ackAll(messages)
				commits := len(stored(t, f))
				time.Sleep(30 * time.Second) // while OnAlarm is slow
				if n := len(stored(t, f)) - commits; n < 4 {
					t.Errorf("%d commits within 30s of the acks, CheckpointInterval is 5s", n)
				}
				if got := alarms.get(); len(got) < 2 || got[0].Count != 1 {
					t.Errorf("told %+v", got)
				}
				if got := phases.get(); len(got) != 1 || got[0].Kind != ChannelOpened {
					t.Errorf("told %+v", got)
				}
				if err := closeWithin(t, s, handlersGrace); err != nil {
					t.Error(err)
				}
				time.Sleep(10 * time.Minute) // the slow ones return
				panics := 0
				for _, line := range logger.Captured()[watermill.ErrorLogLevel] {
					if line.Msg == "A callback of the configuration panicked" {
						panics++
					}
				}
				if want := len(alarms.get()) + len(phases.get()); name != "slow" && panics != want {
					t.Errorf("%d panics are logged, want %d", panics, want)
				}
			})
		})
	}
}

func TestCallbacks_may_call_Close(t *testing.T) {
	for name, where := range map[string]func(c *Config, stop func()){
		"OnAlarm": func(c *Config, stop func()) { c.OnAlarm = func(Alarm) { stop() } },
		"OnPhase": func(c *Config, stop func()) { c.OnPhase = func(Phase) { stop() } },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeTunnel(2)
				var s *Subscriber
				closed := make(chan error, 1)
				var once sync.Once
				s = fakeSubscriber(t, f, func(c *Config) {
					where(c, func() { once.Do(func() { closed <- s.Close() }) })
				})
				for m := range subscribeTo(t, s) { // until the output is closed
					time.Sleep(DefaultStuckAfter * 2)
					m.Ack()
				}
				if err := <-closed; err != nil && !errors.Is(err, ErrDrainTimeout) {
					t.Error(err)
				}
			})
		})
	}
}

func TestCallbacks_that_wait_are_bounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c callbacks
		release := make(chan struct{})
		var made atomic.Int64
		refused := 0
		for range 2 * maxCallbacks {
			if _, ok := c.enqueue(watermill.NopLogger{}, "f", func() { <-release; made.Add(1) }); !ok {
				refused++
			}
			synctest.Wait()
		}
		close(release)
		c.calling.Wait()
		if n := int(made.Load()); n != maxCallbacks+1 || refused != maxCallbacks-1 {
			t.Errorf("%d calls made, %d refused", n, refused)
		}
	})
}

func TestOnPhase_is_told_in_order_across_channels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c callbacks
		var got []int
		for i := range 10 {
			c.enqueue(watermill.NopLogger{}, "f", func() { time.Sleep(time.Second); got = append(got, i) })
		}
		c.calling.Wait()
		if fmt.Sprint(got) != "[0 1 2 3 4 5 6 7 8 9]" {
			t.Errorf("told in the order %v", got)
		}
	})
}
