package router

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/internal/letters"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestVerdict(t *testing.T) {
	boom := errors.New("boom")
	ended := func(cause error) context.Context {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(cause)
		return ctx
	}
	late, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
	defer cancel()
	alive := context.Background()
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want verdict
	}{
		{"success", alive, nil, succeeded},
		{"success on a lost channel", ended(subscriber.ErrChannelLost), nil, succeeded},
		{"failure", alive, boom, failed},
		{"handler's own deadline", alive, fmt.Errorf("query: %w", context.DeadlineExceeded), failed},
		{"deadline of a middleware outside", late, boom, failed},
		{"called back, whatever it returned", ended(fmt.Errorf("%w: %w", ack.ErrCalledBack, boom)), boom, takenBack},
		{"called back, successful", ended(ack.ErrCalledBack), nil, takenBack},
		{"channel lost", ended(subscriber.ErrChannelLost), boom, interrupted},
		{"drain over", ended(subscriber.ErrDrainTimeout), boom, interrupted},
		{"handler's own call that was cancelled", alive, fmt.Errorf("query: %w", context.Canceled), failed},
		{"the same in a batch", alive, &batching.Failure{Err: context.Canceled, Alone: true}, failed},
		{"an own publisher that was closed", alive, fmt.Errorf("publish: %w", batching.ErrClosed), failed},
		{"batch that was not handled to its end", alive, fmt.Errorf("x: %w", &batching.Failure{Err: batching.ErrCloseTimeout, Interrupted: true}), interrupted},
		{"an earlier message failed", alive, fmt.Errorf("x: %w", ack.ErrCalledBack), interrupted},
		{"given back", alive, fmt.Errorf("x: %w", errGivenBack), interrupted},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := verdictOf(c.ctx, c.err); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

// memoryLetters is a letterStore in memory.
type memoryLetters struct {
	letters []*letters.Letter
	err     error
}

func (m *memoryLetters) Put(_ context.Context, l *letters.Letter) error {
	if m.err != nil {
		return m.err
	}
	m.letters = append(m.letters, l)
	return nil
}

func TestPolicy(t *testing.T) {
	boom := errors.New("boom")
	failing := func(msg *message.Message) ([]*message.Message, error) {
		msg.Payload, msg.UUID = []byte("changed"), "changed"
		msg.Metadata["changed"] = "yes"
		return nil, boom
	}
	deliver := func(h message.HandlerFunc, ctx context.Context) error {
		msg := message.NewMessage("id", []byte("payload"))
		msg.Metadata["ots.table"] = "t"
		msg.SetContext(ctx)
		_, err := h(msg)
		return err
	}
	setup := func(f Failure) (*policy, *memoryLetters, chan struct{}) {
		letters, stopping := new(memoryLetters), make(chan struct{})
		p := newPolicy(parts{name: "orders", cfg: Tunnel{Failure: f}, letters: letters, logger: watermill.NopLogger{}}, stopping)
		return p, letters, stopping
	}
	alive := context.Background()
	fine := func(*message.Message) ([]*message.Message, error) { return nil, nil }
	// another has another message succeed.
	another := func(t *testing.T, p *policy) {
		t.Helper()
		if _, err := p.middleware(fine)(message.NewMessage("other", nil)); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("the_last_attempt_makes_a_dead_letter_of_the_message_as_it_came", func(t *testing.T) {
		p, box, _ := setup(Failure{Attempts: 3})
		h := p.middleware(failing)
		for n := range 2 {
			if err := deliver(h, alive); !errors.Is(err, boom) {
				t.Fatalf("attempt %d: %v", n+1, err)
			}
			another(t, p)
		}
		if err := deliver(h, alive); err != nil {
			t.Fatalf("last attempt: %v", err)
		}
		if len(box.letters) != 1 {
			t.Fatalf("%d letters", len(box.letters))
		}
		l := box.letters[0]
		if l.Pipeline != "orders" || l.ID != "id" || string(l.Payload) != "payload" || l.Metadata["changed"] != "" || l.Table != "t" || l.Attempts != 3 || l.Error != "boom" {
			t.Errorf("letter %+v", l)
		}
		if len(p.counts.entries) != 0 {
			t.Errorf("still counted: %v", p.counts.entries)
		}
	})
	t.Run("records_whose_messages_have_equal_UUIDs_are_counted_and_kept_apart", func(t *testing.T) {
		p, box, _ := setup(Failure{Attempts: 3})
		h := p.middleware(func(*message.Message) ([]*message.Message, error) { return nil, boom })
		for range 3 {
			for _, record := range []string{"r1", "r2"} {
				msg := message.NewMessage("order-7", nil)
				ots.WithRecord(msg, &ots.Record{UUID: record})
				_, _ = h(msg) // the third makes a letter
				another(t, p)
			}
		}
		if len(box.letters) != 2 || box.letters[0].Identity != "r1" || box.letters[1].Identity != "r2" || box.letters[0].ID != "order-7" || box.letters[1].Attempts != 3 {
			t.Errorf("letters %+v", box.letters)
		}
	})
	t.Run("a_payload_that_the_handler_changed_in_place_is_in_the_letter_as_it_came", func(t *testing.T) {
		p, box, _ := setup(Failure{})
		h := p.middleware(func(msg *message.Message) ([]*message.Message, error) {
			copy(msg.Payload, "XXXXXXX")
			return nil, backoff.Permanent(boom)
		})
		if err := deliver(h, alive); err != nil || string(box.letters[0].Payload) != "payload" {
			t.Errorf("got %v, letters %+v", err, box.letters)
		}
	})
	t.Run("a_message_that_fails_while_nothing_succeeds_is_kept", func(t *testing.T) {
		p, box, _ := setup(Failure{Attempts: 2})
		h := p.middleware(failing)
		another(t, p) // before the first failure
		for range 100 {
			if err := deliver(h, alive); !errors.Is(err, boom) {
				t.Fatal(err)
			}
		}
		another(t, p)
		if err := deliver(h, alive); err != nil || len(box.letters) != 1 || box.letters[0].Attempts != 2 {
			t.Errorf("when others succeed: %v, letters %+v", err, box.letters)
		}
	})
	t.Run("give_up_after_decides_without_a_witness", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, box, _ := setup(Failure{GiveUpAfter: time.Minute})
			h := p.middleware(failing)
			for range 60 {
				if err := deliver(h, alive); !errors.Is(err, boom) {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
			}
			if err := deliver(h, alive); err != nil || len(box.letters) != 1 {
				t.Errorf("after a minute: %v, letters %+v", err, box.letters)
			}
		})
		synctest.Test(t, func(t *testing.T) {
			p, box, _ := setup(Failure{GiveUpAfter: NeverGiveUp})
			h := p.middleware(failing)
			for range 100 {
				_ = deliver(h, alive)
				time.Sleep(24 * time.Hour)
			}
			if len(box.letters) != 0 {
				t.Errorf("letters %+v", box.letters)
			}
		})
		synctest.Test(t, func(t *testing.T) {
			p, box, _ := setup(Failure{})
			h := p.middleware(failing)
			_ = deliver(h, alive)
			time.Sleep(10*time.Minute - 1)
			if err := deliver(h, alive); err == nil {
				t.Error("given up before the default of ten minutes")
			}
			time.Sleep(time.Nanosecond)
			if err := deliver(h, alive); err != nil || len(box.letters) != 1 {
				t.Errorf("after ten minutes: %v, letters %+v", err, box.letters)
			}
		})
	})
	t.Run("an_error_may_say_that_it_is_permanent_or_transient", func(t *testing.T) {
		p, box, _ := setup(Failure{})
		if err := deliver(p.middleware(func(*message.Message) ([]*message.Message, error) {
			return nil, fmt.Errorf("x: %w", backoff.Permanent(boom))
		}), alive); err != nil || len(box.letters) != 1 {
			t.Errorf("permanent: %v, letters %+v", err, box.letters)
		}
		p, box, _ = setup(Failure{Attempts: 1})
		h := p.middleware(func(*message.Message) ([]*message.Message, error) {
			return nil, fmt.Errorf("x: %w", ack.Transient(boom))
		})
		for range 100 {
			if err := deliver(h, alive); !errors.Is(err, boom) {
				t.Fatal(err)
			}
			another(t, p)
		}
		if len(box.letters) != 0 {
			t.Errorf("transient: letters %+v", box.letters)
		}
	})
	t.Run("failures_in_a_batch_that_are_not_its_own_never_count", func(t *testing.T) {
		p, box, _ := setup(Failure{Attempts: 1})
		n := uint64(0)
		h := p.middleware(func(*message.Message) ([]*message.Message, error) {
			n += 10
			return nil, &batching.Failure{Batcher: "default", Err: boom, Messages: 10, Before: n, After: n + 9}
		})
		for range 100 {
			if err := deliver(h, alive); !errors.Is(err, boom) {
				t.Fatal(err)
			}
		}
		if len(box.letters) != 0 {
			t.Errorf("letters %+v", box.letters)
		}
	})
	t.Run("failures_outside_of_batches_do_not_count_while_a_batcher_is_down", func(t *testing.T) {
		p, box, _ := setup(Failure{Attempts: 2})
		down := true
		p.down = func() bool { return down }
		h := p.middleware(failing)
		for range 100 {
			_ = deliver(h, alive)
			another(t, p)
		}
		if len(box.letters) != 0 {
			t.Errorf("letters %+v", box.letters)
		}
		down = false
		_ = deliver(h, alive)
		if err := deliver(h, alive); err != nil || len(box.letters) != 1 {
			t.Errorf("when it is over: %v, letters %+v", err, box.letters)
		}
	})
	t.Run("a_success_ends_the_count", func(t *testing.T) {
		p, box, _ := setup(Failure{Attempts: 2})
		bad, good := p.middleware(failing), p.middleware(fine)
		for range 5 {
			_ = deliver(bad, alive)
			if err := deliver(good, alive); err != nil {
				t.Fatal(err)
			}
		}
		if len(box.letters) != 0 || len(p.counts.entries) != 0 {
			t.Errorf("%d letters, counts %v", len(box.letters), p.counts.entries)
		}
	})
	t.Run("interruptions_are_never_attempts", func(t *testing.T) {
		p, box, stopping := setup(Failure{Attempts: 1})
		h := p.middleware(failing)
		for _, cause := range []error{subscriber.ErrChannelLost, subscriber.ErrDrainTimeout, ack.ErrCalledBack, context.Canceled} {
			ctx, cancel := context.WithCancelCause(alive)
			cancel(cause)
			if err := deliver(h, ctx); (err == nil) != errors.Is(cause, ack.ErrCalledBack) {
				t.Errorf("%v: got %v", cause, err)
			}
		}
		close(stopping)
		if err := deliver(h, alive); !errors.Is(err, boom) {
			t.Errorf("stopping: got %v", err)
		}
		if len(box.letters) != 0 || len(p.counts.entries) != 0 {
			t.Errorf("%d letters, counts %v", len(box.letters), p.counts.entries)
		}
	})
	t.Run("a_letter_that_cannot_be_kept_keeps_the_message", func(t *testing.T) {
		p, box, _ := setup(Failure{Attempts: 2})
		box.err = errors.New("table gone")
		h := p.middleware(failing)
		_ = deliver(h, alive)
		another(t, p)
		if err := deliver(h, alive); !errors.Is(err, box.err) || !errors.Is(err, boom) {
			t.Fatalf("got %v", err)
		}
		box.err = nil
		if err := deliver(h, alive); err != nil || len(box.letters) != 1 || box.letters[0].Attempts != 3 {
			t.Errorf("got %v, letters %+v", err, box.letters)
		}
	})
	t.Run("a_panic_is_a_failure", func(t *testing.T) {
		p, box, _ := setup(Failure{Attempts: 1})
		h := p.middleware(func(*message.Message) ([]*message.Message, error) { panic(boom) })
		if err := deliver(h, alive); !errors.Is(err, boom) {
			t.Fatal(err)
		}
		another(t, p)
		if err := deliver(h, alive); err != nil {
			t.Fatal(err)
		}
		if len(box.letters) != 1 || box.letters[0].Error != "handler panicked: boom" {
			t.Errorf("letters %+v", box.letters)
		}
		if err := new(ack.PanicError); errors.Is(err, boom) || !errors.Is(&ack.PanicError{Value: boom}, boom) {
			t.Error("PanicError must unwrap to an error that was panicked with")
		}
	})
	t.Run("too_many_letters_stop_the_pipeline_and_make_no_more", func(t *testing.T) {
		letters := new(memoryLetters)
		var ended []error
		p := newPolicy(parts{
			name: "orders", cfg: Tunnel{Failure: Failure{StopAfter: &StopAfter{Letters: 2, Of: 10}}}, letters: letters,
			end: func(err error) { ended = append(ended, err) }, logger: watermill.NopLogger{},
		}, nil)
		bad := p.middleware(func(*message.Message) ([]*message.Message, error) { return nil, backoff.Permanent(boom) })
		for range 5 { // two letters among ten are allowed, however often
			for range 2 {
				_ = deliver(bad, alive)
			}
			for range 8 {
				another(t, p)
			}
		}
		if len(ended) != 0 || len(letters.letters) != 10 {
			t.Fatalf("ended %v, %d letters", ended, len(letters.letters))
		}
		for range 5 {
			_ = deliver(bad, alive)
		}
		var stopped *TooManyLettersError
		if len(ended) != 1 || !errors.As(ended[0], &stopped) || *stopped != (TooManyLettersError{"orders", 3, 10}) {
			t.Errorf("ended %v", ended)
		}
		if len(letters.letters) != 13 {
			t.Errorf("%d letters", len(letters.letters))
		}
	})
}

func TestSlots(t *testing.T) {
	t.Run("bound_how_many_messages_are_processed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			inside, release := 0, make(chan struct{})
			h := withSlots(func(*message.Message) ([]*message.Message, error) {
				inside++ // one at a time by the select below; read when all are blocked
				<-release
				return nil, nil
			}, 1, nil)
			for range 3 {
				go func() { _, _ = h(message.NewMessage("", nil)) }() // ends when release is closed
			}
			synctest.Wait()
			if inside != 1 {
				t.Errorf("%d messages are inside", inside)
			}
			close(release)
			synctest.Wait()
			if inside != 3 {
				t.Errorf("%d messages came in", inside)
			}
		})
	})
	t.Run("waiting_ends_with_the_message", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			h := withSlots(func(*message.Message) ([]*message.Message, error) { <-release; return nil, nil }, 1, nil)
			go func() { _, _ = h(message.NewMessage("", nil)) }() // ends when release is closed
			synctest.Wait()
			ctx, cancel := context.WithCancelCause(context.Background())
			msg := message.NewMessage("", nil)
			msg.SetContext(ctx)
			got := make(chan error)
			go func() { _, err := h(msg); got <- err }() // ends with ctx
			synctest.Wait()
			cancel(subscriber.ErrChannelLost)
			if err := <-got; !errors.Is(err, subscriber.ErrChannelLost) {
				t.Errorf("got %v", err)
			}
			close(release)
		})
	})
	t.Run("waiting_ends_with_the_pipeline_and_nothing_begins_after", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			calls, release, stopping := 0, make(chan struct{}), make(chan struct{})
			h := withSlots(func(*message.Message) ([]*message.Message, error) { calls++; <-release; return nil, nil }, 1, stopping)
			errs := make(chan error, 100)
			for range 100 {
				go func() { _, err := h(message.NewMessage("", nil)); errs <- err }() // ends with stopping or release
			}
			synctest.Wait()
			close(stopping)
			synctest.Wait()
			if n := len(errs); n != 99 {
				t.Errorf("%d of 99 were given back at once", n)
			}
			close(release)
			for range 99 {
				if err := <-errs; verdictOf(context.Background(), err) != interrupted {
					t.Errorf("got %v", err)
				}
			}
			if err := <-errs; err != nil || calls != 1 {
				t.Errorf("the one at work: %v; %d calls", err, calls)
			}
		})
	})
}
