package ack

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestFromContext_finds_the_delivery_that_a_context_carries(t *testing.T) {
	if d, ok := FromContext(t.Context()); ok {
		t.Fatalf("a context without a delivery has %v", d)
	}
	want := delivery("a")
	if d, ok := FromContext(NewContext(t.Context(), want)); !ok || d != want {
		t.Fatalf("got %v, %v", d, ok)
	}
	if d, ok := FromContext(ownContext{t.Context()}); !ok || d != want {
		t.Fatalf("a context that answers DeliveryKey: got %v, %v", d, ok)
	}
	cause := fmt.Errorf("%w: %w", ErrCalledBack, errors.New("boom"))
	if !errors.Is(cause, ErrCalledBack) {
		t.Fatal("the cause does not match ErrCalledBack")
	}
}

type delivery string

func (d delivery) Key() string            { return string(d) }
func (d delivery) HandOff()               {}
func (d delivery) Begin()                 {}
func (d delivery) CallBack(error)         {}
func (d delivery) Hurry() <-chan struct{} { return nil }

// ownContext answers DeliveryKey without a context from NewContext.
type ownContext struct{ context.Context }

func (c ownContext) Value(key any) any {
	if key == DeliveryKey {
		return delivery("a")
	}
	return c.Context.Value(key)
}
