package batching

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/sony/gobreaker"

	"github.com/watermill-ots/watermill-ots/ack"
)

// chain puts middlewares around a processing step, the first one outermost, as
// Router.AddMiddleware does.
func chain(step message.HandlerFunc, m ...message.HandlerMiddleware) message.HandlerFunc {
	for i := len(m) - 1; i >= 0; i-- {
		step = m[i](step)
	}
	return step
}

// published is a message.Publisher that records its calls.
type published struct {
	err error

	mu     sync.Mutex
	calls  []string // "topic: a b"
	closed bool
}

func (p *published) Publish(topic string, msgs ...*message.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, topic+": "+uuids(msgs))
	return p.err
}

func (p *published) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

func (p *published) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// failFirst returns a batch handler that fails its first n calls.
func (r *recorder) failFirst(n int) HandlerFunc {
	r.after = func(context.Context, *Batch) error {
		if n--; n >= 0 {
			return errBoom
		}
		return nil
	}
	return r.handle
}

// TestChain has one test for each row of the table in docs/batching.md.
func TestChain(t *testing.T) {
	retry := middleware.Retry{MaxRetries: 3, InitialInterval: time.Second, Multiplier: 1}

	t.Run("Retry_outside_handles_a_failed_message_again_and_its_key_waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 2, Timeout: 100 * time.Millisecond, Handler: r.failFirst(1)}), nil)
			s := newSource(100, time.Hour)
			steps := 0
			stopped := s.route(chain(func(*message.Message) ([]*message.Message, error) { steps++; return nil, nil }, retry.Middleware, b.Middleware))
			for _, id := range []string{"k0", "k1"} {
				s.add(id, id[:1])
				synctest.Wait()
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			equal(t, "batches", r.batches(), "k0 k1|k0|k1")
			equal(t, "calls of the step", steps, 4)
			equal(t, "acked", s.count(acked), 2)
			equal(t, "nacks of k0", s.find("k0").failures, 0)
			s.Close()
			<-stopped
		})
	})

	t.Run("Retry_inside_retries_only_the_step", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 1, Handler: r.failFirst(1)}), nil)
			steps := 0
			h := chain(func(*message.Message) ([]*message.Message, error) {
				if steps++; steps == 1 {
					return nil, errors.New("step")
				}
				return nil, nil
			}, b.Middleware, retry.Middleware)
			equal(t, "error", errors.Is(send(h, msgOf("a")).result(), errBoom), true)
			equal(t, "steps", steps, 2)
			equal(t, "batches", r.batches(), "a")
		})
	})

	t.Run("PoisonQueue_outside_takes_failed_messages_but_not_called_back_ones", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			poison := &published{}
			pq, _ := middleware.PoisonQueue(poison, "poison")
			b := mustNew(t, one(Batcher{Size: 2, Timeout: 100 * time.Millisecond, Handler: r.failFirst(1)}), nil)
			s := newSource(100, time.Hour)
			stopped := s.route(chain(nop, pq, b.Middleware))
			s.add("k0", "k")
			s.add("k1", "k")
			time.Sleep(time.Minute)
			synctest.Wait()
			equal(t, "poisoned", fmt.Sprint(poison.seen()), "[poison: k0]")
			equal(t, "batches", r.batches(), "k0 k1|k1")
			equal(t, "acked", s.count(acked), 2)
			s.Close()
			<-stopped
		})
	})

	t.Run("PoisonQueue_outside_with_IsFailure_ignores_cancelled_messages", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			poison := &published{}
			pq, _ := middleware.PoisonQueueWithFilter(poison, "poison", IsFailure)
			b := mustNew(t, one(Batcher{Size: 3, Handler: succeed}), nil)
			d := newDelivered("a", "k")
			p := send(chain(nop, pq, b.Middleware), d.msg)
			synctest.Wait()
			d.cancel(errFenced)
			equal(t, "error", errors.Is(p.result(), errFenced), true)
			equal(t, "poisoned", len(poison.seen()), 0)
		})
	})

	t.Run("PoisonQueue_inside_poisons_a_failed_step_and_the_message_still_joins_a_batch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			poison := &published{}
			pq, _ := middleware.PoisonQueue(poison, "poison")
			b := mustNew(t, one(Batcher{Size: 1, Handler: r.handle}), nil)
			h := chain(func(*message.Message) ([]*message.Message, error) { return nil, errBoom }, b.Middleware, pq)
			equal(t, "error", send(h, msgOf("a")).result(), nil)
			equal(t, "poisoned", fmt.Sprint(poison.seen()), "[poison: a]")
			equal(t, "batches", r.batches(), "a")
		})
	})

	t.Run("Timeout_outside_ends_the_waiting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(ctx context.Context, _ *Batch) error { time.Sleep(time.Hour); return ctx.Err() }
			b := mustNew(t, one(Batcher{Size: 10, Timeout: time.Minute, Handler: r.handle}), nil)
			h := chain(produce, middleware.Timeout(5*time.Second), b.Middleware)
			for _, msg := range []*message.Message{msgOf("a"), newDelivered("b", "").msg} {
				p := send(h, msg)
				equal(t, "error", p.result(), nil)
				equal(t, "took", p.took, time.Hour+5*time.Second)
			}
			equal(t, "trigger", r.seen()[0].trigger, TriggerDrain)
		})
	})

	t.Run("Timeout_inside_limits_only_the_step", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 10, Timeout: time.Minute, Handler: r.handle}), nil)
			p := send(chain(nop, b.Middleware, middleware.Timeout(5*time.Second)), msgOf("a"))
			equal(t, "error", p.result(), nil)
			equal(t, "took", p.took, time.Minute)
			equal(t, "trigger", r.seen()[0].trigger, TriggerTimeout)
		})
	})

	breaker := func() middleware.CircuitBreaker {
		return middleware.NewCircuitBreaker(gobreaker.Settings{
			ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 3 },
			Timeout:     time.Minute,
		})
	}
	t.Run("CircuitBreaker_outside_counts_each_message_of_a_failed_batch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 3, Timeout: time.Second, Handler: r.failFirst(1)}), nil)
			h := chain(nop, breaker().Middleware, b.Middleware)
			for _, p := range sendAll(h, "a", "b", "c") {
				equal(t, "error", errors.Is(p.result(), errBoom), true)
			}
			equal(t, "open", errors.Is(send(h, msgOf("d")).result(), gobreaker.ErrOpenState), true)
			equal(t, "batches", r.batches(), "a b c")
			time.Sleep(time.Minute + 1) // half open: one message, whose batch waits for its timeout
			p := send(h, msgOf("e"))
			equal(t, "error", p.result(), nil)
			equal(t, "took", p.took, time.Second)
		})
	})

	t.Run("CircuitBreaker_outside_counts_a_called_back_message_as_a_success", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 3, Timeout: time.Second, Handler: r.failFirst(1)}), nil)
			s := newSource(100, time.Second)
			stopped := s.route(chain(nop, breaker().Middleware, b.Middleware))
			for i := range 3 {
				s.add(fmt.Sprint("k", i), "k")
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			equal(t, "batches", r.batches(), "k0 k1 k2|k0 k1 k2") // never open
			s.Close()
			<-stopped
		})
	})

	t.Run("CircuitBreaker_inside_counts_only_the_step", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 1, Handler: r.failFirst(9)}), nil)
			h := chain(nop, b.Middleware, breaker().Middleware)
			for _, p := range sendAll(h, "a", "b", "c", "d", "e") {
				equal(t, "error", errors.Is(p.result(), errBoom), true)
			}
		})
	})

	// The memory of Watermill's own repository is cleaned by a goroutine that
	// never ends; this one has no goroutine.
	t.Run("Deduplicator_outside_drops_redeliveries_so_a_failed_message_is_lost", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 1, Handler: r.failFirst(1)}), nil)
			d := &middleware.Deduplicator{KeyFactory: middleware.NewMessageHasherAdler32(1 << 20), Repository: seenKeys{}}
			s := newSource(100, time.Second)
			stopped := s.route(chain(nop, d.Middleware, b.Middleware))
			s.add("a", "")
			time.Sleep(10 * time.Second)
			synctest.Wait()
			equal(t, "batches", r.batches(), "a")
			equal(t, "acked although it failed", s.count(acked), 1)
			s.Close()
			<-stopped
		})
	})

	t.Run("Deduplicator_inside_skips_the_step_but_not_the_batch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 1, Handler: r.handle}), nil)
			d := &middleware.Deduplicator{KeyFactory: middleware.NewMessageHasherAdler32(1 << 20), Repository: seenKeys{}}
			steps := 0
			h := chain(func(*message.Message) ([]*message.Message, error) { steps++; return nil, nil }, b.Middleware, d.Middleware)
			for _, p := range sendAll(h, "a", "a") {
				equal(t, "error", p.result(), nil)
			}
			equal(t, "steps", steps, 1)
			equal(t, "batches", r.batches(), "a|a")
		})
	})

	t.Run("InstantAck_outside_settles_the_message_so_it_leaves_its_batch_unhandled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Size: 2, Timeout: time.Second, Handler: r.handle}), nil)
			s := newSource(100, time.Second) // ends a message's context when it is settled
			stopped := s.route(chain(nop, middleware.InstantAck, b.Middleware))
			s.add("a", "")
			time.Sleep(10 * time.Second)
			synctest.Wait()
			equal(t, "acked", s.count(acked), 1)
			equal(t, "batches", r.batches(), "")
			s.Close()
			<-stopped
		})
	})

	t.Run("CorrelationID_marks_produced_messages_outside_and_inside", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := mustNew(t, one(Batcher{Size: 1, Handler: succeed}), nil)
			for _, h := range []message.HandlerFunc{
				chain(produce, middleware.CorrelationID, b.Middleware),
				chain(produce, b.Middleware, middleware.CorrelationID),
			} {
				msg := msgOf("a")
				middleware.SetCorrelationID("id", msg)
				p := send(h, msg)
				equal(t, "error", p.result(), nil)
				equal(t, "id", middleware.MessageCorrelationID(p.produced[0]), "id")
			}
		})
	})

	t.Run("Metrics_measures_step_and_batch_outside_and_only_the_step_inside", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			// As components/metrics does around a handler, without Prometheus.
			var took time.Duration
			var failed bool
			measure := func(h message.HandlerFunc) message.HandlerFunc {
				return func(msg *message.Message) (out []*message.Message, err error) {
					start := time.Now()
					defer func() { took, failed = time.Since(start), err != nil }()
					return h(msg)
				}
			}
			b := mustNew(t, one(Batcher{Timeout: time.Second, Handler: func(context.Context, *Batch) error { return errBoom }}), nil)
			step := func(*message.Message) ([]*message.Message, error) { time.Sleep(time.Millisecond); return nil, nil }
			send(chain(step, measure, b.Middleware), msgOf("a")).result()
			equal(t, "outside", took, time.Second+time.Millisecond)
			equal(t, "outside failed", failed, true)
			send(chain(step, b.Middleware, measure), msgOf("a")).result()
			equal(t, "inside", took, time.Millisecond)
			equal(t, "inside failed", failed, false)
		})
	})

	t.Run("Recoverer_turns_a_panic_of_the_step_into_an_error_outside_and_inside", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := mustNew(t, one(Batcher{Size: 1, Handler: succeed}), nil)
			step := func(*message.Message) ([]*message.Message, error) { panic("step") }
			for _, h := range []message.HandlerFunc{
				chain(step, middleware.Recoverer, b.Middleware),
				chain(step, b.Middleware, middleware.Recoverer),
			} {
				d := newDelivered("a", "k")
				before := d.msg.Context()
				contains(t, "error", send(h, d.msg).result(), "step")
				equal(t, "calls", d.events(), "CallBack")
				equal(t, "context", d.msg.Context(), before)
			}
		})
	})
}

// seenKeys is a middleware.ExpiringKeyRepository whose keys never expire.
type seenKeys map[string]bool

func (s seenKeys) IsDuplicate(_ context.Context, key string) (bool, error) {
	seen := s[key]
	s[key] = true
	return seen, nil
}

func TestIsFailure(t *testing.T) {
	for err, want := range map[error]bool{
		nil:                                 false,
		errBoom:                             true,
		context.DeadlineExceeded:            true,
		&UnknownBatcherError{}:              true,
		&ack.PanicError{}:                   true,
		context.Canceled:                    false,
		ErrClosed:                           false,
		ErrCloseTimeout:                     false,
		ErrAllEnded:                         false,
		fmt.Errorf("%w", ack.ErrCalledBack): false,

		&Failure{Err: errBoom}:                              true,
		&Failure{Err: ErrCloseTimeout, Interrupted: true}:   false,
		&stepError{context.Canceled}:                        true,
		&Failure{Err: context.Canceled}:                     true, // a call that the batch handler made
		fmt.Errorf("%w: %w", ack.ErrCalledBack, &Failure{}): false,
	} {
		equal(t, fmt.Sprint(err), IsFailure(err), want)
	}
}
