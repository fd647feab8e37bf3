package feed_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/internal/feed"
)

var errBad = errors.New("bad")

// handled keeps the UUIDs of messages in the order of their calls.
type handled struct {
	mu  sync.Mutex
	ids []string
}

func (h *handled) add(msg *message.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ids = append(h.ids, msg.UUID)
}

func messages(ids ...string) (all []*message.Message) {
	for _, id := range ids {
		all = append(all, message.NewMessage(id, nil))
	}
	return all
}

func TestRun_handles_a_key_in_order_until_one_fails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h handled
		begun := time.Now()
		errs := feed.Run(t.Context(), func(msg *message.Message) error {
			time.Sleep(time.Second)
			h.add(msg)
			if msg.UUID == "a2" {
				return errBad
			}
			return nil
		}, messages("a1", "a2", "a3", "b1", "c1"), []string{"a", "a", "a", "b", ""})
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("it took %v: keys wait for each other, or a key's messages do not", took)
		}
		if i := slices.Index(h.ids, "a1"); i > slices.Index(h.ids, "a2") || slices.Contains(h.ids, "a3") || len(h.ids) != 4 {
			t.Errorf("handled %v", h.ids)
		}
		for i, want := range []error{nil, errBad, ack.ErrCalledBack, nil, nil} {
			if !errors.Is(errs[i], want) || want == nil && errs[i] != nil {
				t.Errorf("message %d: %v, want %v", i, errs[i], want)
			}
		}
	})
}

// A message that has its place in a batch lets the next one of its key begin. If it fails then,
// the next one is called back.
func TestRun_calls_back_what_began_after_a_hand_off(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := feed.Run(t.Context(), func(msg *message.Message) error {
			d, ok := ack.FromContext(msg.Context())
			if !ok || d.Key() != "a" {
				t.Errorf("the message carries %v", d)
				return nil
			}
			d.HandOff()
			if msg.UUID == "a1" {
				<-d.Hurry() // closed when all have handed off
				d.CallBack(errBad)
				return errBad
			}
			<-msg.Context().Done()
			return context.Cause(msg.Context())
		}, messages("a1", "a2"), []string{"a", "a"})
		if !errors.Is(errs[0], errBad) || !errors.Is(errs[1], ack.ErrCalledBack) || !errors.Is(errs[1], errBad) {
			t.Errorf("the outcomes are %v", errs)
		}
	})
}

func TestRunInOrder_lets_each_message_wait_for_the_one_before(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h handled
		begun := time.Now()
		errs := feed.RunInOrder(t.Context(), func(msg *message.Message) error {
			time.Sleep(time.Second)
			h.add(msg)
			return nil
		}, messages("a", "b", "c"), []string{"a", "b", ""})
		if took := time.Since(begun); took != 3*time.Second || !slices.Equal(h.ids, []string{"a", "b", "c"}) || errors.Join(errs...) != nil {
			t.Errorf("handled %v in %v: %v", h.ids, took, errs)
		}
	})
}

func TestRun_ends_with_its_context(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errBad)
	errs := feed.Run(ctx, func(msg *message.Message) error {
		<-msg.Context().Done()
		return context.Cause(msg.Context())
	}, messages("a1"), []string{"a"})
	if !errors.Is(errs[0], errBad) {
		t.Errorf("the outcome is %v", errs[0])
	}
}
