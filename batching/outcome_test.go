package batching

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/ack"
)

var errBoom = errors.New("boom")

func TestOutcome(t *testing.T) {
	t.Run("an_error_fails_all_messages_and_nothing_is_produced", func(t *testing.T) {
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
				var panicked *ack.PanicError
				if !errors.As(p.result(), &panicked) || !errors.Is(p.err, errBoom) {
					t.Fatalf("got %v", p.err)
				}
				if !strings.Contains(string(panicked.Stack), "outcome_test.go") {
					t.Errorf("the stack does not lead to the panic:\n%s", panicked.Stack)
				}
			}
			next := send(b.Middleware(produce), msgOf("c"))
			time.Sleep(2 * time.Second)
			equal(t, "the batcher continues", next.ended(), true)
		})
	})

	t.Run("a_handler_that_ends_its_goroutine_fails_all_and_the_batcher_continues", func(t *testing.T) {
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
				b.Messages = b.Messages[:1] // the handler may change the slice
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

	t.Run("Fail_with_nil_fails_the_message_too", func(t *testing.T) {
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

	t.Run("tries_one_alone_and_then_halves_in_order_down_to_the_bad_one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, calls := run(t, 8, map[int]bool{2: true})
			var got []string
			for _, c := range calls {
				got = append(got, c.uuids)
			}
			equal(t, "calls", strings.Join(got, "|"), "0 1 2 3 4 5 6 7|0|1 2 3|1|2 3|2|3|4 5 6 7")
		})
	})

	t.Run("one_bad_message_among_n_costs_at_most_2_log2_n_plus_3_calls", func(t *testing.T) {
		for _, n := range []int{2, 3, 4, 5, 8, 15, 16, 17, 100} {
			for bad := range n {
				synctest.Test(t, func(t *testing.T) {
					passes, calls := run(t, n, map[int]bool{bad: true})
					if limit := 2*bits.Len(uint(n-1)) + 3; len(calls) > limit {
						t.Errorf("message %d of %d: %d calls, want at most %d", bad, n, len(calls), limit)
					}
					for i, p := range passes {
						equal(t, "failed", p.err != nil, i == bad)
					}
				})
			}
		}
		synctest.Test(t, func(t *testing.T) {
			_, calls := run(t, 1024, map[int]bool{777: true})
			equal(t, "calls", len(calls), 22)
		})
	})

	t.Run("an_outage_costs_four_calls_and_no_message_fails_by_itself", func(t *testing.T) {
		for _, n := range []int{5, 100, 1000} {
			synctest.Test(t, func(t *testing.T) {
				bad := map[int]bool{}
				for i := range n {
					bad[i] = true
				}
				passes, calls := run(t, n, bad)
				equal(t, "calls", len(calls), 4)
				alone := 0
				for _, p := range passes {
					var f *Failure
					if !errors.As(p.err, &f) {
						t.Fatalf("not a Failure: %v", p.err)
					}
					if f.Alone {
						alone++
					} else if !ack.IsTransient(p.err) {
						t.Errorf("not transient: %v", p.err)
					}
				}
				equal(t, "tried alone", alone, 3)
			})
		}
	})

	t.Run("an_outage_that_begins_while_it_splits_costs_at_most_log2_n_plus_4_more_calls", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const n = 128
			r, down := newRecorder(), false
			r.after = func(_ context.Context, b *Batch) error {
				if down || len(b.Messages) == n {
					return errBoom
				}
				down = true // after the look has found one that succeeds
				return nil
			}
			b := mustNew(t, one(Batcher{Size: n, Isolate: true, Handler: r.handle}), nil)
			var passes []*pass
			for i := range n {
				passes = append(passes, send(b.Middleware(nop), msgOf(fmt.Sprint(i))))
			}
			own := 0
			for _, p := range passes {
				var f *Failure
				if errors.As(p.result(), &f) && f.Alone {
					own++
				}
			}
			if calls := len(r.seen()); calls > 2+bits.Len(n-1)+4 {
				t.Errorf("%d calls", calls)
			}
			if own > failuresInARow+1 {
				t.Errorf("%d messages failed by themselves", own)
			}
		})
	})

	t.Run("the_worst_case_is_every_second_message_with_2_n_plus_1_calls", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const n = 128
			bad := map[int]bool{}
			for i := 1; i < n; i += 2 {
				bad[i] = true
			}
			passes, calls := run(t, n, bad)
			if len(calls) > 2*n+1 || len(calls) < 3*n/2 {
				t.Errorf("%d calls", len(calls))
			}
			for i, p := range passes {
				equal(t, "failed", p.err != nil, bad[i])
			}
		})
	})

	t.Run("bad_ones_fail_with_their_own_errors_and_good_ones_at_most_with_an_outage", func(t *testing.T) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rng := rand.New(rand.NewPCG(seed, 0))
		for range 200 {
			synctest.Test(t, func(t *testing.T) {
				n := 1 + rng.IntN(40)
				bad := map[int]bool{}
				for range rng.IntN(1 + rng.IntN(n)) {
					bad[rng.IntN(n)] = true
				}
				passes, calls := run(t, n, bad)
				if len(calls) > 2*n+1 {
					t.Errorf("%d calls for %d messages", len(calls), n)
				}
				for i, p := range passes {
					var f *Failure
					switch {
					case !bad[i] && p.err != nil && !ack.IsTransient(p.err):
						t.Errorf("good message %d of %d failed by itself with bad ones %v: %v", i, n, bad, p.err)
					case !bad[i] && p.err != nil && len(bad) < failuresInARow:
						t.Errorf("good message %d of %d failed with bad ones %v: %v", i, n, bad, p.err)
					case bad[i] && !errors.As(p.err, &f):
						t.Errorf("bad message %d of %d: %v", i, n, p.err)
					case bad[i] && f.Alone:
						contains(t, "bad", p.err, fmt.Sprintf("bad %d", i))
					}
				}
			})
		}
	})

	t.Run("no_message_is_handled_before_an_earlier_one_of_its_key_or_after_that_failed", func(t *testing.T) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rng := rand.New(rand.NewPCG(seed, 0))
		for range 300 {
			synctest.Test(t, func(t *testing.T) {
				n := 10 + rng.IntN(60)
				bad, done, failed := map[string]bool{}, map[string]int{}, map[string]bool{} // by UUID; by key: how many succeeded, whether one failed alone
				cfg := one(Batcher{Size: n, Isolate: true, Handler: func(_ context.Context, b *Batch) (err error) {
					next := map[string]int{}
					for _, m := range b.Messages {
						key := firstLetter(m)
						place, _ := strconv.Atoi(m.UUID[1:])
						if want := done[key] + next[key]; place != want || failed[key] {
							t.Errorf("seed %d: %s is handled, with %d done and a failure %v", seed, m.UUID, done[key], failed[key])
						}
						next[key]++
						if bad[m.UUID] {
							err = errBoom
						}
					}
					switch {
					case err == nil:
						for key, n := range next {
							done[key] += n
						}
					case len(b.Messages) == 1:
						failed[firstLetter(b.Messages[0])] = true
					}
					return err
				}})
				cfg.OrderingKey = firstLetter
				b := mustNew(t, cfg, nil)
				keys, count := 2+rng.IntN(20), map[string]int{}
				var ids []string
				for range n {
					key := string(rune('a' + rng.IntN(keys)))
					id := fmt.Sprint(key, count[key])
					count[key]++
					bad[id] = rng.IntN(3) == 0
					ids = append(ids, id)
				}
				for _, p := range sendAll(b.Middleware(nop), ids...) {
					<-p.done
				}
			})
		}
	})

	t.Run("a_check_for_an_outage_ends_when_one_message_succeeds", func(t *testing.T) {
		for _, bad := range []map[int]bool{{0: true, 9: true}, {0: true}, {9: true}, {0: true, 1: true}} {
			synctest.Test(t, func(t *testing.T) {
				passes, _ := run(t, 10, bad)
				for i, p := range passes {
					equal(t, "failed", p.err != nil, bad[i])
				}
			})
		}
	})

	t.Run("a_marked_error_skips_the_check_or_the_split", func(t *testing.T) {
		for name, test := range map[string]struct {
			mark  func(error) error
			calls int
		}{
			"permanent": {backoff.Permanent, 15}, // down to every message
			"transient": {ack.Transient, 1},
		} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					calls := 0
					b := mustNew(t, one(Batcher{Size: 8, Isolate: true, Handler: func(context.Context, *Batch) error {
						calls++
						return test.mark(errBoom)
					}}), nil)
					for _, p := range sendAll(b.Middleware(nop), "a", "b", "c", "d", "e", "f", "g", "h") {
						equal(t, "failed", errors.Is(p.result(), errBoom), true)
					}
					equal(t, "calls", calls, test.calls)
				})
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
			equal(t, "b", errors.Is(p[1].result(), errBoom), true)
			equal(t, "c", p[2].result(), nil)
			equal(t, "d", p[3].result(), nil)
			equal(t, "batches", r.batches(), "a b c d|b c d|c|d")
		})
	})

	t.Run("messages_that_a_failure_calls_back_are_not_handled_before_it", func(t *testing.T) {
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
			equal(t, "batches", r.batches(), "k0 j0 k1 j1|k0|j0|j1|k0 k1")
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
