package router

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/ThreeDotsLabs/watermill/message"
)

func TestScopedSlots(t *testing.T) {
	scopeOf := func(msg *message.Message) string { return msg.UUID[:1] }
	slotted := func(n int, stopping <-chan struct{}, h message.HandlerFunc) (*scopedSlots, message.HandlerFunc) {
		s := newScopedSlots(h, n, stopping)
		return s, s.around(scopeOf)
	}

	t.Run("exist_while_messages_have_or_wait_for_one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			let, in := make(chan struct{}), make(chan string, 100)
			s, h := slotted(2, nil, func(msg *message.Message) ([]*message.Message, error) {
				in <- msg.UUID
				<-let
				return nil, errors.New(msg.UUID)
			})
			for i := range 5 {
				for _, scope := range []string{"a", "b"} {
					go func() {
						id := fmt.Sprint(scope, i)
						if _, err := h(message.NewMessage(id, nil)); err == nil || err.Error() != id {
							t.Errorf("%s: got %v", id, err)
						}
					}()
				}
			}
			synctest.Wait()
			if len(in) != 4 || len(s.scopes) != 2 || s.scopes["a"].messages != 5 {
				t.Errorf("%d calls in %d scopes", len(in), len(s.scopes))
			}
			close(let)
			synctest.Wait()
			if len(in) != 10 || len(s.scopes) != 0 {
				t.Errorf("in the end %d calls in %d scopes", len(in), len(s.scopes))
			}
		})
	})

	t.Run("are_given_up_by_messages_that_panic_end_or_are_given_back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			stopping, let := make(chan struct{}), make(chan struct{})
			s, h := slotted(1, stopping, func(msg *message.Message) ([]*message.Message, error) {
				<-let
				panic("boom")
			})
			ctx, cancel := context.WithCancel(context.Background())
			for i := range 3 {
				go func() {
					defer func() { _ = recover() }()
					msg := message.NewMessage(fmt.Sprint("a", i), nil)
					if i == 1 {
						msg.SetContext(ctx)
					}
					_, _ = h(msg)
				}()
				synctest.Wait()
			}
			cancel()
			synctest.Wait()
			if n := s.scopes["a"].messages; n != 2 {
				t.Errorf("%d messages, want 2", n)
			}
			close(stopping)
			synctest.Wait()
			close(let)
			synctest.Wait()
			if len(s.scopes) != 0 {
				t.Errorf("%d scopes are left", len(s.scopes))
			}
		})
	})
}

// BenchmarkSlots measures what processors.concurrency costs a message, in one scope and divided.
func BenchmarkSlots(b *testing.B) {
	h := func(*message.Message) ([]*message.Message, error) { return nil, nil }
	for name, scopeOf := range map[string]func(*message.Message) string{
		"scope=tunnel":  nil,
		"scope=channel": func(msg *message.Message) string { return msg.UUID },
	} {
		b.Run(name, func(b *testing.B) {
			slotted := withScopedSlots(h, 16, scopeOf, nil)
			msg := message.NewMessage("channel", nil)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = slotted(msg)
			}
		})
	}
}
