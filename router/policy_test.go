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

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/batching"
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
		{"cancelled context", alive, fmt.Errorf("query: %w", context.Canceled), interrupted},
		{"batching closed", alive, batching.ErrClosed, interrupted},
		{"batching out of time", alive, fmt.Errorf("x: %w", batching.ErrCloseTimeout), interrupted},
		{"batch without messages left", alive, batching.ErrAllEnded, interrupted},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := verdictOf(c.ctx, c.err); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

// memoryLetters is a letterbox in memory.
type memoryLetters struct {
	letters []*DeadLetter
	err     error
}

func (m *memoryLetters) put(_ context.Context, l *DeadLetter) error {
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
	setup := func(attempts int) (*policy, *memoryLetters, chan struct{}) {
		letters, stopping := new(memoryLetters), make(chan struct{})
		p := newPolicy("orders", Failure{Attempts: attempts}, letters, nil, stopping, watermill.NopLogger{})
		return p, letters, stopping
	}
	alive := context.Background()

	t.Run("the_last_attempt_makes_a_dead_letter_of_the_message_as_it_came", func(t *testing.T) {
		p, box, _ := setup(3)
		h := p.middleware(failing)
		for n := range 2 {
			if err := deliver(h, alive); !errors.Is(err, boom) {
				t.Fatalf("attempt %d: %v", n+1, err)
			}
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
	t.Run("a_success_ends_the_count", func(t *testing.T) {
		p, box, _ := setup(2)
		bad, good := p.middleware(failing), p.middleware(func(*message.Message) ([]*message.Message, error) { return nil, nil })
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
		p, box, stopping := setup(1)
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
		p, box, _ := setup(1)
		box.err = errors.New("table gone")
		h := p.middleware(failing)
		if err := deliver(h, alive); !errors.Is(err, box.err) || !errors.Is(err, boom) {
			t.Fatalf("got %v", err)
		}
		box.err = nil
		if err := deliver(h, alive); err != nil || len(box.letters) != 1 || box.letters[0].Attempts != 2 {
			t.Errorf("got %v, letters %+v", err, box.letters)
		}
	})
	t.Run("a_panic_is_a_failure", func(t *testing.T) {
		p, box, _ := setup(1)
		if err := deliver(p.middleware(func(*message.Message) ([]*message.Message, error) { panic(boom) }), alive); err != nil {
			t.Fatal(err)
		}
		if len(box.letters) != 1 || box.letters[0].Error != "handler panicked: boom" {
			t.Errorf("letters %+v", box.letters)
		}
		if err := new(PanicError); errors.Is(err, boom) || !errors.Is(&PanicError{Value: boom}, boom) {
			t.Error("PanicError must unwrap to an error that was panicked with")
		}
	})
}

func TestCounts(t *testing.T) {
	c := newCounts(time.Second)
	start := time.Unix(0, 0)
	for i := range minSweep - 2 {
		c.add(fmt.Sprint("old ", i), start)
	}
	later := start.Add(c.keep + time.Second)
	if n := c.add("a", later); n != 1 {
		t.Errorf("first failure counts %d", n)
	}
	if n := c.add("b", later); n != 1 || len(c.entries) != 2 {
		t.Errorf("after the sweep %d entries are left", len(c.entries))
	}
	if n := c.add("a", later); n != 2 {
		t.Errorf("second failure counts %d", n)
	}
	c.forget("a")
	if n := c.add("a", later); n != 1 {
		t.Errorf("a forgotten message counts %d", n)
	}
}

func TestSlots(t *testing.T) {
	t.Run("bound_how_many_messages_are_processed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			inside, release := 0, make(chan struct{})
			h := withSlots(func(*message.Message) ([]*message.Message, error) {
				inside++ // one at a time by the select below; read when all are blocked
				<-release
				return nil, nil
			}, 1)
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
			h := withSlots(func(*message.Message) ([]*message.Message, error) { <-release; return nil, nil }, 1)
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
}
