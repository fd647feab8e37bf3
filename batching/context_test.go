package batching

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/watermill-ots/watermill-ots/ack"
)

var (
	errFenced    = errors.New("fenced")
	errTakenBack = fmt.Errorf("%w: an earlier one failed", ack.ErrCalledBack)
)

// deliveredMsg is a message with a Delivery that only records its calls, for tests
// that play the subscriber themselves.
type deliveredMsg struct {
	msg    *message.Message
	cancel context.CancelCauseFunc
	key    string
	hurry  chan struct{}

	mu    sync.Mutex
	calls []string
}

func newDelivered(uuid, key string) *deliveredMsg {
	d := &deliveredMsg{key: key, hurry: make(chan struct{})}
	ctx, cancel := context.WithCancelCause(context.Background())
	d.cancel = cancel
	d.msg = message.NewMessageWithContext(ack.NewContext(ctx, d), uuid, nil)
	return d
}

// endedDelivery is a Delivery that is an ack.Ender: it ends with the context.
type endedDelivery struct {
	ack.Delivery
	ctx context.Context
}

func (d endedDelivery) Done() <-chan struct{} { return d.ctx.Done() }
func (d endedDelivery) WillWait()             {}

func (d *deliveredMsg) tell(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, what)
}

func (d *deliveredMsg) events() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.calls, ",")
}

func (d *deliveredMsg) Key() string            { return d.key }
func (d *deliveredMsg) HandOff()               { d.tell("HandOff") }
func (d *deliveredMsg) Begin()                 { d.tell("Begin") }
func (d *deliveredMsg) CallBack(error)         { d.tell("CallBack") }
func (d *deliveredMsg) Hurry() <-chan struct{} { return d.hurry }

func TestDelivery(t *testing.T) {
	t.Run("HandOff_is_called_when_waiting_Begin_when_running_and_CallBack_before_the_error", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := mustNew(t, one(Batcher{Timeout: time.Second, Handler: func(_ context.Context, b *Batch) error {
				time.Sleep(time.Second)
				b.Fail(b.Messages[0], errBoom)
				return nil
			}}), nil)
			bad, good := newDelivered("a", ""), newDelivered("b", "")
			var atReturn string
			h := b.Middleware(nop)
			sendAllMsgs(func(m *message.Message) ([]*message.Message, error) {
				out, err := h(m)
				if m == bad.msg {
					atReturn = bad.events()
				}
				return out, err
			}, bad.msg, good.msg)
			equal(t, "while waiting", bad.events(), "HandOff")
			time.Sleep(1500 * time.Millisecond)
			equal(t, "while running", bad.events(), "HandOff,Begin")
			time.Sleep(time.Second)
			synctest.Wait()
			equal(t, "as the middleware returned", atReturn, "HandOff,Begin,CallBack")
			equal(t, "the good one", good.events(), "HandOff,Begin")
		})
	})

	t.Run("an_unknown_batcher_is_called_back_too", func(t *testing.T) {
		b := mustNew(t, Config{Batchers: map[string]Batcher{"a": {Handler: succeed}}}, nil)
		d := newDelivered("a", "k")
		_, err := b.Middleware(nop)(d.msg)
		contains(t, "error", err, `"default"`)
		equal(t, "calls", d.events(), "CallBack")
	})

	t.Run("hurry_has_the_batch_handled_at_once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, one(Batcher{Timeout: time.Hour, Handler: r.handle}), nil)
			d, other := newDelivered("a", ""), newDelivered("b", "")
			sendAllMsgs(b.Middleware(nop), d.msg, other.msg)
			close(d.hurry)
			synctest.Wait()
			equal(t, "call", r.seen()[0], handled{batcher: "default", uuids: "a b", trigger: TriggerDrain})
		})
	})

	t.Run("the_message_that_fills_the_window_is_hurried_too", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			s := newSource(1, time.Second)
			b := mustNew(t, one(Batcher{Size: 100, Timeout: time.Hour, Handler: r.handle}), nil)
			stopped := s.route(b.Middleware(nop))
			s.add("a", "")
			s.add("b", "")
			synctest.Wait()
			equal(t, "batches", r.batches(), "a")
			s.Close()
			<-stopped
		})
	})

	t.Run("a_window_full_of_waiting_messages_does_not_stall", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			s := newSource(10, time.Second)
			b := mustNew(t, one(Batcher{Size: 100, Timeout: time.Hour, Handler: r.handle}), nil)
			stopped := s.route(b.Middleware(func(msg *message.Message) ([]*message.Message, error) {
				SetBatchKey(msg, msg.UUID) // a separate batch for each
				return nil, nil
			}))
			for i := range 25 {
				s.add(fmt.Sprint("m", i), "")
			}
			synctest.Wait()
			equal(t, "not delivered", s.count(queued), 0)
			equal(t, "acked or waiting", s.count(acked)+s.count(handedOff), 25)
			s.Close() // drains
			<-stopped
			equal(t, "acked", s.count(acked), 25)
			equal(t, "at", r.seen()[24].at, 0)
		})
	})
}

// TestContextEnd has one row for each way in which a message's context may end.
func TestContextEnd(t *testing.T) {
	type outcome struct {
		err     error // errors.Is; nil: nil
		batches string
		after   time.Duration // when the message's handler returned
	}
	deadline := func(d *deliveredMsg) {
		ctx, cancel := context.WithTimeout(d.msg.Context(), time.Second)
		context.AfterFunc(ctx, cancel)
		d.msg.SetContext(ctx)
	}
	for _, test := range []struct {
		name     string
		end      error // the cause with which "a" ends after 1 s; nil: a deadline
		delivery bool
		running  bool // while the batch runs (0 s to 10 s); else the batch waits, due at 60 s
		want     outcome
	}{
		{"called_back_while_waiting_leaves_without_an_error", errTakenBack, true, false, outcome{nil, "b", time.Second}},
		{"fenced_while_waiting_leaves_with_the_cause", errFenced, true, false, outcome{errFenced, "b", time.Second}},
		{"fenced_while_waiting_is_a_cancellation", errFenced, true, false, outcome{context.Canceled, "b", time.Second}},
		{"drain_over_while_waiting_leaves", context.Canceled, true, false, outcome{context.Canceled, "b", time.Second}},
		{"deadline_while_waiting_flushes", nil, true, false, outcome{nil, "a b", 11 * time.Second}},
		{"cancelled_without_delivery_while_waiting_leaves", context.Canceled, false, false, outcome{context.Canceled, "b", time.Second}},
		{"called_back_while_running_waits_and_has_no_outcome", errTakenBack, true, true, outcome{nil, "a b", 10 * time.Second}},
		{"fenced_while_running_waits", errFenced, true, true, outcome{nil, "a b", 10 * time.Second}},
		{"deadline_while_running_waits", nil, true, true, outcome{nil, "a b", 10 * time.Second}},
		{"cancelled_without_delivery_while_running_waits", context.Canceled, false, true, outcome{nil, "a b", 10 * time.Second}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRecorder()
				r.after = func(ctx context.Context, b *Batch) error {
					select {
					case <-ctx.Done():
						t.Errorf("the handler's context ended: %v", context.Cause(ctx))
					case <-time.After(10 * time.Second):
					}
					return nil
				}
				c := Batcher{Size: 3, Timeout: time.Minute, Handler: r.handle}
				if test.running {
					c.Size = 2
				}
				b := mustNew(t, one(c), nil)
				a, other := newDelivered("a", ""), newDelivered("b", "")
				if !test.delivery {
					a.msg.SetContext(ack.NewContext(a.msg.Context(), nil))
				}
				if test.end == nil {
					deadline(a)
				}
				p := sendAllMsgs(b.Middleware(produce), a.msg, other.msg)
				time.Sleep(time.Second)
				if test.end != nil {
					a.cancel(test.end)
				}
				<-p[0].done
				if !errors.Is(p[0].err, test.want.err) {
					t.Errorf("got %v, want %v", p[0].err, test.want.err)
				}
				equal(t, "took", p[0].took, test.want.after)
				published := p[0].err == nil && test.end != errTakenBack
				equal(t, "produced", len(p[0].produced) == 1, published)
				equal(t, "the other one", p[1].result(), nil)
				equal(t, "batches", r.batches(), test.want.batches)
			})
		})
	}

	t.Run("called_back_in_a_failed_batch_is_not_a_failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := mustNew(t, one(Batcher{Size: 1, Handler: func(context.Context, *Batch) error {
				time.Sleep(time.Second)
				return errBoom
			}}), nil)
			d := newDelivered("a", "k")
			p := send(b.Middleware(produce), d.msg)
			synctest.Wait()
			d.cancel(errTakenBack)
			equal(t, "error", p.result(), nil)
			equal(t, "calls", d.events(), "HandOff,Begin")
		})
	})

	t.Run("gone_before_the_processing_step_skips_it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := mustNew(t, one(Batcher{Size: 1, Handler: succeed}), nil)
			h := b.Middleware(func(*message.Message) ([]*message.Message, error) {
				t.Error("the step was called")
				return nil, nil
			})
			for cause, want := range map[error]error{errTakenBack: nil, errFenced: errFenced} {
				d := newDelivered("a", "k")
				d.cancel(cause)
				if err := send(h, d.msg).result(); !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
				equal(t, "calls", d.events(), "")
			}
		})
	})

	t.Run("called_back_in_the_processing_step_does_not_join", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for _, err := range []error{nil, errBoom} {
				r := newRecorder()
				b := mustNew(t, one(Batcher{Size: 1, Handler: r.handle}), nil)
				d := newDelivered("a", "k")
				p := send(b.Middleware(func(m *message.Message) ([]*message.Message, error) {
					d.cancel(errTakenBack)
					return []*message.Message{msgOf("out")}, err
				}), d.msg)
				equal(t, "error", p.result(), nil)
				equal(t, "produced", len(p.produced), 0)
				equal(t, "batches", r.batches(), "")
				equal(t, "calls", d.events(), "")
			}
		})
	})

	t.Run("the_handlers_context_ends_when_all_its_messages_are_gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var cause error
			b := mustNew(t, one(Batcher{Size: 2, Handler: func(ctx context.Context, _ *Batch) error {
				<-ctx.Done()
				cause = context.Cause(ctx)
				return cause
			}}), nil)
			a, c := newDelivered("a", ""), newDelivered("c", "")
			p := sendAllMsgs(b.Middleware(nop), a.msg, c.msg)
			a.cancel(errFenced)
			time.Sleep(time.Hour)
			equal(t, "one of two", cause, nil)
			c.cancel(errTakenBack)
			equal(t, "fenced", errors.Is(p[0].result(), ErrAllEnded), true)
			equal(t, "called back", p[1].result(), nil)
			equal(t, "cause", cause, ErrAllEnded)
		})
	})

	t.Run("a_batch_whose_messages_have_all_ended_is_not_handled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(context.Context, *Batch) error { time.Sleep(time.Second); return nil }
			b := mustNew(t, one(Batcher{Size: 2, Handler: r.handle}), nil)
			h := b.Middleware(nop)
			x, y, z := newDelivered("x", ""), newDelivered("y", ""), newDelivered("z", "")
			sendAllMsgs(h, msgOf("a"), msgOf("b"), x.msg, y.msg, z.msg) // x y is full and waits for the partition
			x.cancel(errFenced)
			y.cancel(errFenced)
			z.cancel(errTakenBack) // alone in an open batch
			synctest.Wait()
			equal(t, "unfinished", b.unfinishedBatches(), 1)
			time.Sleep(time.Minute)
			equal(t, "batches", r.batches(), "a b")
			equal(t, "the batcher continues", sendAll(h, "c", "d")[1].result(), nil)
		})
	})
}

func TestRoute(t *testing.T) {
	t.Run("copies_produced_messages_and_metadata_do_not_carry_it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, Config{Batchers: map[string]Batcher{
				"sqs": {Size: 1, Handler: r.handle}, "default": {Size: 1, Handler: r.handle},
			}}, nil)
			p := send(b.Middleware(func(msg *message.Message) ([]*message.Message, error) {
				SetBatcher(msg, "sqs")
				SetBatchKey(msg, "x")
				return []*message.Message{msg.Copy(), msg.CopyWithContext()}, nil
			}), msgOf("a"))
			equal(t, "error", p.result(), nil)
			equal(t, "metadata", len(p.msg.Metadata), 0)
			equal(t, "batcher", r.seen()[0].batcher, "sqs")
			for _, out := range p.produced {
				equal(t, "metadata", len(out.Metadata), 0)
				equal(t, "error", send(b.Middleware(nop), out).result(), nil)
			}
			for _, c := range r.seen()[1:] {
				equal(t, "batcher of a copy", c.batcher, "default")
				equal(t, "batch key of a copy", c.key, "")
			}
		})
	})

	t.Run("a_middleware_outside_may_choose_and_the_step_may_change_it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, Config{
				Defaults: Batcher{Size: 1, Handler: r.handle},
				Batchers: map[string]Batcher{"a": {}, "b": {}},
			}, nil)
			tries := 0
			inside := b.Middleware(func(msg *message.Message) ([]*message.Message, error) {
				if tries++; tries == 2 {
					SetBatcher(msg, "b")
				}
				return nil, nil
			})
			p := send(func(msg *message.Message) ([]*message.Message, error) {
				SetBatcher(msg, "a")
				SetBatchKey(msg, "x")
				for range 3 { // as Retry does
					if _, err := inside(msg); err != nil {
						return nil, err
					}
				}
				return nil, nil
			}, msgOf("m"))
			equal(t, "error", p.result(), nil)
			for i, want := range []string{"a/x", "b/x", "a/x"} {
				equal(t, "batcher", r.seen()[i].batcher+"/"+r.seen()[i].key, want)
			}
		})
	})

	t.Run("a_step_that_replaces_the_context_still_sets_the_route", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			b := mustNew(t, Config{Defaults: Batcher{Size: 1, Handler: r.handle}, Batchers: map[string]Batcher{"a": {}, "b": {}}}, nil)
			p := send(b.Middleware(func(msg *message.Message) ([]*message.Message, error) {
				SetBatcher(msg, "a")
				msg.SetContext(context.Background())
				if msg.UUID == "2" {
					SetBatcher(msg, "b")
				}
				return nil, nil
			}), msgOf("1"))
			equal(t, "error", p.result(), nil)
			equal(t, "batcher", r.seen()[0].batcher, "a")
		})
	})

	t.Run("the_handler_sees_values_that_the_step_set_and_the_context_is_as_before_afterwards", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			type key struct{}
			outer := context.WithValue(context.Background(), key{}, "outer")
			ctx, cancel := context.WithCancelCause(outer)
			defer cancel(nil)
			b := mustNew(t, one(Batcher{Size: 1, Handler: func(_ context.Context, b *Batch) error {
				c := b.Messages[0].Context()
				equal(t, "value", c.Value(key{}), any("inner"))
				equal(t, "the step's Timeout has no effect", c.Err(), nil)
				_, has := c.Deadline()
				equal(t, "deadline", has, false)
				derived, stop := context.WithCancel(c)
				defer stop()
				cancel(errBoom)
				<-derived.Done()
				equal(t, "cause", context.Cause(derived), errBoom)
				equal(t, "cause", context.Cause(c), errBoom)
				return nil
			}}), nil)
			step := middleware.Timeout(time.Second)(func(msg *message.Message) ([]*message.Message, error) {
				msg.SetContext(context.WithValue(msg.Context(), key{}, "inner"))
				return nil, nil
			})
			msg := message.NewMessageWithContext(ctx, "a", nil)
			equal(t, "error", send(b.Middleware(step), msg).result(), nil)
			equal(t, "context", msg.Context(), ctx)
		})
	})
}

func TestClose(t *testing.T) {
	t.Run("handles_waiting_messages_and_refuses_later_ones", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(context.Context, *Batch) error { time.Sleep(3 * time.Second); return nil }
			b := mustNew(t, Config{
				Defaults: Batcher{Timeout: time.Hour, Handler: r.handle},
				Batchers: map[string]Batcher{DefaultBatcher: {}, "x": {}},
			}, nil)
			h := b.Middleware(byName)
			p := sendAll(h, "a>default/1", "b>default/2", "c>x/")
			equal(t, "Close", b.Close(), nil)
			equal(t, "Close took", time.Since(r.start), 6*time.Second)
			for _, p := range p {
				equal(t, "error", p.result(), nil)
			}
			for _, c := range r.seen() {
				equal(t, "trigger", c.trigger, TriggerClose)
			}
			d := newDelivered("late", "k")
			_, err := b.Middleware(nop)(d.msg)
			equal(t, "late", errors.Is(err, ErrClosed), true)
			equal(t, "late", d.events(), "CallBack")
			equal(t, "again", b.Close(), nil)
		})
	})

	t.Run("cancels_handlers_after_CloseTimeout_and_fails_batches_that_have_not_begun", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			calls := 0
			cfg := one(Batcher{Size: 1, Handler: func(ctx context.Context, _ *Batch) error {
				calls++
				<-ctx.Done()
				return context.Cause(ctx)
			}})
			cfg.CloseTimeout = 5 * time.Second
			b := mustNew(t, cfg, nil)
			p := sendAll(b.Middleware(nop), "a", "b")
			equal(t, "Close", b.Close(), nil)
			equal(t, "took", time.Since(start), 5*time.Second)
			equal(t, "calls", calls, 1)
			for _, p := range p {
				equal(t, p.msg.UUID, errors.Is(p.result(), ErrCloseTimeout), true)
			}
		})
	})

	t.Run("reports_handlers_that_do_not_end_to_every_caller", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			release := make(chan struct{})
			b := mustNew(t, one(Batcher{Size: 1, Handler: func(context.Context, *Batch) error { <-release; return nil }}), nil)
			p := sendAll(b.Middleware(nop), "a")[0]
			errs := make(chan error)
			for range 3 {
				go func() { errs <- b.Close() }()
			}
			for range 3 {
				err := <-errs
				equal(t, "Close", errors.Is(err, ErrCloseTimeout), true)
				contains(t, "Close", err, "1 batches are not done and 0 messages not settled after 11s")
			}
			equal(t, "took", time.Since(start), 11*time.Second)
			close(release)
			equal(t, "a", p.result(), nil)
		})
	})

	t.Run("without_messages_is_immediate_and_leaves_nothing", func(t *testing.T) {
		b := mustNew(t, one(Batcher{Handler: succeed}), nil)
		equal(t, "Close", b.Close(), nil)
	})
}
