package batching

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

var errBoom = errors.New("boom")

func TestOutcome(t *testing.T) {
	t.Run("an_error_fails_all_and_nothing_produced_comes_out", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := mustNew(t, one(Batcher{Size: 2, Handler: func(context.Context, *Batch) error { return errBoom }}), nil)
			for _, p := range sendAll(b.Middleware(produce), "a", "b") {
				if !errors.Is(p.result(), errBoom) {
					t.Errorf("got %v", p.err)
				}
				contains(t, "error", p.err, `batcher "default"`)
				equal(t, "produced", len(p.produced), 0)
			}
		})
	})

	t.Run("a_panic_fails_all_with_its_stack", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := mustNew(t, one(Batcher{Size: 2, Handler: func(context.Context, *Batch) error { panic(errBoom) }}), nil)
			for _, p := range sendAll(b.Middleware(produce), "a", "b") {
				var panicked *PanicError
				if !errors.As(p.result(), &panicked) || !errors.Is(p.err, errBoom) {
					t.Fatalf("got %v", p.err)
				}
				if !strings.Contains(string(panicked.Stack), "outcome_test.go") {
					t.Errorf("the stack does not lead to the panic:\n%s", panicked.Stack)
				}
			}
			next := send(b.Middleware(produce), msgOf("c"))
			time.Sleep(2 * time.Second)
			equal(t, "the batcher goes on", next.ended(), true)
		})
	})

	t.Run("a_handler_that_ends_its_goroutine_fails_all_and_the_batcher_goes_on", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := mustNew(t, one(Batcher{Size: 1, Handler: func(context.Context, *Batch) error { runtime.Goexit(); return nil }}), nil)
			for _, p := range sendAll(b.Middleware(produce), "a", "b") {
				contains(t, "error", p.result(), "runtime.Goexit")
			}
		})
	})

	t.Run("Fail_fails_one_and_the_others_succeed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := mustNew(t, one(Batcher{Size: 3, Handler: func(_ context.Context, b *Batch) error {
				m := b.Messages[1]
				b.Messages = b.Messages[:1] // the handler may do what it likes with the slice
				b.Fail(m, errBoom)
				b.Fail(m, errors.New("the second error does not count"))
				equal(t, "Err", b.Err(m), errBoom)
				equal(t, "Err of another", b.Err(b.Messages[0]), nil)
				return nil
			}}), nil)
			p := sendAll(b.Middleware(produce), "a", "b", "c")
			equal(t, "a", p[0].result(), nil)
			equal(t, "a produced", uuids(p[0].produced), "out-a")
			equal(t, "b", errors.Is(p[1].result(), errBoom), true)
			equal(t, "b produced", len(p[1].produced), 0)
			equal(t, "c", p[2].result(), nil)
		})
	})

	t.Run("Fail_with_nil_fails_all_the_same", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := mustNew(t, one(Batcher{Size: 1, Handler: func(_ context.Context, b *Batch) error {
				b.Fail(b.Messages[0], nil)
				return nil
			}}), nil)
			contains(t, "error", sendAll(b.Middleware(nop), "a")[0].result(), "no error was given")
		})
	})

	t.Run("a_failed_batch_leaves_messages_given_to_Fail_their_own_error", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			own := errors.New("own")
			b := mustNew(t, one(Batcher{Size: 2, Handler: func(_ context.Context, b *Batch) error {
				b.Fail(b.Messages[0], own)
				return errBoom
			}}), nil)
			p := sendAll(b.Middleware(nop), "a", "b")
			equal(t, "a", errors.Is(p[0].result(), own), true)
			equal(t, "b", errors.Is(p[1].result(), errBoom), true)
		})
	})

	t.Run("Fail_for_a_foreign_message_or_after_the_return_is_logged_and_changes_nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			logger := watermill.NewCaptureLogger()
			var late *Batch
			b := mustNew(t, one(Batcher{Size: 1, Handler: func(_ context.Context, b *Batch) error {
				late = b
				b.Fail(msgOf("foreign"), errBoom)
				b.Fail(nil, errBoom)
				return nil
			}}), logger)
			p := sendAll(b.Middleware(nop), "a")[0]
			equal(t, "error", p.result(), nil)
			late.Fail(p.msg, errBoom)
			equal(t, "Err", late.Err(p.msg), nil)
			logs := logger.Captured()[watermill.ErrorLogLevel]
			equal(t, "logs", len(logs), 3)
			contains(t, "foreign", logs[0].Err, "not in this batch")
			equal(t, "uuid", logs[0].Fields["message_uuid"], "foreign")
			contains(t, "nil", logs[1].Err, "not in this batch")
			contains(t, "late", logs[2].Err, "has returned")
		})
	})

	t.Run("an_unknown_batcher_fails_only_the_message_that_names_it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, Config{Batchers: map[string]Batcher{"sqs": {Size: 2, Handler: r.handle}}}, nil)
			h := b.Middleware(func(msg *message.Message) ([]*message.Message, error) {
				if name := msg.Metadata.Get("to"); name != "" {
					SetBatcher(msg, name)
				}
				return nil, nil
			})
			to := func(uuid, name string) *pass {
				m := msgOf(uuid)
				m.Metadata.Set("to", name)
				p := send(h, m)
				synctest.Wait()
				return p
			}
			a, lost, none, c := to("a", "sqs"), to("lost", "sq"), to("none", ""), to("c", "sqs")
			var unknown *UnknownBatcherError
			if !errors.As(lost.result(), &unknown) || unknown.Batcher != "sq" {
				t.Errorf("got %v", lost.err)
			}
			if !errors.As(none.result(), &unknown) || unknown.Batcher != DefaultBatcher {
				t.Errorf("got %v", none.err)
			}
			equal(t, "a", a.result(), nil)
			equal(t, "c", c.result(), nil)
			equal(t, "batches", r.batches(), "a c")
		})
	})

	t.Run("an_error_of_the_processing_step_keeps_the_message_out_of_batches", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 1, Handler: r.handle}), nil)
			p := sendAll(b.Middleware(func(*message.Message) ([]*message.Message, error) { return nil, errBoom }), "a")[0]
			equal(t, "error", p.result(), errBoom)
			equal(t, "batches", r.batches(), "")
		})
	})
}

func TestIsolate(t *testing.T) {
	// run sends n messages of which some are bad and returns the passes and the
	// recorded calls.
	run := func(t *testing.T, n int, bad map[int]bool) ([]*pass, []handled) {
		r := newRecorder()
		r.after = func(_ context.Context, b *Batch) error {
			for _, m := range b.Messages {
				var i int
				fmt.Sscan(m.UUID, &i)
				if bad[i] {
					return fmt.Errorf("bad %d", i)
				}
			}
			return nil
		}
		b := mustNew(t, one(Batcher{Size: n, Isolate: true, Handler: r.handle}), nil)
		var ids []string
		for i := range n {
			ids = append(ids, fmt.Sprint(i))
		}
		passes := sendAll(b.Middleware(nop), ids...)
		for _, p := range passes {
			<-p.done
		}
		return passes, r.seen()
	}

	t.Run("halves_in_order_down_to_the_bad_one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, calls := run(t, 8, map[int]bool{2: true})
			var got []string
			for _, c := range calls {
				got = append(got, c.uuids)
			}
			equal(t, "calls", strings.Join(got, "|"), "0 1 2 3 4 5 6 7|0 1 2 3|0 1|2 3|2|3|4 5 6 7")
		})
	})

	t.Run("one_bad_message_of_1024_costs_20_more_calls", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, calls := run(t, 1024, map[int]bool{777: true})
			equal(t, "calls", len(calls), 1+20)
		})
	})

	t.Run("exactly_the_bad_ones_fail_each_with_its_own_error", func(t *testing.T) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rng := rand.New(rand.NewPCG(seed, 0))
		for range 50 {
			synctest.Test(t, func(t *testing.T) {
				n := 1 + rng.IntN(40)
				bad := map[int]bool{}
				for range rng.IntN(4) {
					bad[rng.IntN(n)] = true
				}
				passes, _ := run(t, n, bad)
				for i, p := range passes {
					if !bad[i] {
						equal(t, "good", p.err, nil)
						continue
					}
					contains(t, "bad", p.err, fmt.Sprintf("bad %d", i))
				}
			})
		}
	})

	t.Run("messages_given_to_Fail_are_not_handled_again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(_ context.Context, b *Batch) error {
				if len(b.Messages) == 1 {
					return nil
				}
				b.Fail(b.Messages[0], errBoom)
				return errors.New("all")
			}
			b := mustNew(t, one(Batcher{Size: 4, Isolate: true, Handler: r.handle}), nil)
			p := sendAll(b.Middleware(nop), "a", "b", "c", "d")
			equal(t, "a", errors.Is(p[0].result(), errBoom), true)
			equal(t, "b", p[1].result(), nil)
			equal(t, "c", errors.Is(p[2].result(), errBoom), true)
			equal(t, "d", p[3].result(), nil)
			equal(t, "batches", r.batches(), "a b c d|b|c d|d")
		})
	})

	t.Run("what_a_failure_calls_back_is_not_handled_before_it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			fails := true
			r.after = func(_ context.Context, b *Batch) error {
				for _, m := range b.Messages {
					if m.UUID == "k0" && fails {
						fails = len(b.Messages) > 1
						return errBoom
					}
				}
				return nil
			}
			s := newSource(100, time.Second)
			b := mustNew(t, one(Batcher{Size: 4, Timeout: 100 * time.Millisecond, Isolate: true, Handler: r.handle}), nil)
			stopped := s.route(b.Middleware(nop))
			for _, id := range []string{"k0", "j0", "k1", "j1"} {
				s.add(id, id[:1])
				synctest.Wait()
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
			equal(t, "batches", r.batches(), "k0 j0 k1 j1|k0 j0|k0|j0|j1|k0 k1")
			equal(t, "acked", s.count(acked), 4)
			equal(t, "source", s.faultsFound(), nil)
			s.Close()
			<-stopped
		})
	})
}

func TestHandMadeBatch(t *testing.T) {
	a, b := msgOf("a"), msgOf("b")
	batch := &Batch{Messages: []*message.Message{a, b}}
	batch.Fail(b, errBoom)
	batch.Fail(msgOf("foreign"), errBoom)
	equal(t, "a", batch.Err(a), nil)
	equal(t, "b", batch.Err(b), errBoom)
}
