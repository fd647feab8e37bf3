package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

var _ cqrs.CommandEventMarshaler = (*subscriber.EventMarshaler)(nil)

type (
	rowPut struct {
		Key string `ots:"k"`
		V   int    `ots:"v"`
	}
	rowUpdated struct {
		Key string  `ots:"k"`
		A   *string `ots:"a"`
		V   *int    `ots:"v"`
	}
	rowDeleted struct {
		Key string `ots:"k"`
	}
)

// seen are the events that handlers got.
type seen struct {
	mu     sync.Mutex
	events []string
}

func (s *seen) add(format string, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf(format, args...))
	return nil
}

func (s *seen) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.events, ", ")
}

func TestEventMarshaler_processors_call_the_handlers_of_changes(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"group", "single"} {
		t.Run(kind, func(t *testing.T) {
			b := testbed.New(t, emulator.Options{})
			b.CreateTunnel(tunnel.TunnelTypeStream)
			cfg := testbed.Config(b.Emulator.Endpoint())
			s, err := subscriber.New(cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			marshaler, err := subscriber.NewEventMarshaler(map[string]any{
				testbed.Table + ".put": rowPut{}, testbed.Table + ".update": rowUpdated{}, testbed.Table + ".delete": &rowDeleted{},
			}, subscriber.EventOptions{})
			if err != nil {
				t.Fatal(err)
			}
			router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
			if err != nil {
				t.Fatal(err)
			}
			var got seen
			puts := func(_ context.Context, e *rowPut) error { return got.add("put %s %d", e.Key, e.V) }
			updates := func(_ context.Context, e *rowUpdated) error {
				return got.add("update %s %s %t", e.Key, *e.A, e.V == nil)
			}
			deletes := func(_ context.Context, e *rowDeleted) error { return got.add("delete %s", e.Key) }
			want := "put a 1, update a x true, delete a"
			if kind == "group" {
				p, err := cqrs.NewEventGroupProcessorWithConfig(router, cqrs.EventGroupProcessorConfig{
					GenerateSubscribeTopic: func(cqrs.EventGroupProcessorGenerateSubscribeTopicParams) (string, error) { return testbed.Topic, nil },
					SubscriberConstructor: func(cqrs.EventGroupProcessorSubscriberConstructorParams) (message.Subscriber, error) {
						return s, nil
					},
					Marshaler: marshaler,
				})
				if err != nil {
					t.Fatal(err)
				}
				if err := p.AddHandlersGroup("orders", cqrs.NewGroupEventHandler(puts), cqrs.NewGroupEventHandler(updates), cqrs.NewGroupEventHandler(deletes)); err != nil {
					t.Fatal(err)
				}
			} else {
				want = "delete a"
				p, err := cqrs.NewEventProcessorWithConfig(router, cqrs.EventProcessorConfig{
					GenerateSubscribeTopic: func(cqrs.EventProcessorGenerateSubscribeTopicParams) (string, error) { return testbed.Topic, nil },
					SubscriberConstructor: func(cqrs.EventProcessorSubscriberConstructorParams) (message.Subscriber, error) {
						return s, nil
					},
					Marshaler: marshaler, AckOnUnknownEvent: true,
				})
				if err != nil {
					t.Fatal(err)
				}
				if err := p.AddHandlers(cqrs.NewEventHandler("deletes", deletes)); err != nil {
					t.Fatal(err)
				}
			}
			ran := make(chan error, 1)
			go func() { ran <- router.Run(context.Background()) }() // ends with router.Close
			<-router.Running()
			if err := b.Put("a", 1); err != nil {
				t.Fatal(err)
			}
			if err := b.Emulator.Update(testbed.Table, emulator.Row{"k": "a", "a": "x"}); err != nil {
				t.Fatal(err)
			}
			if err := b.Emulator.Delete(testbed.Table, emulator.Row{"k": "a"}); err != nil {
				t.Fatal(err)
			}
			testbed.Eventually(t, 30*time.Second, "the handlers were called", func() bool { return got.all() == want })
			if err := errors.Join(router.Close(), <-ran, s.Close()); err != nil {
				t.Error(err)
			}
			if got.all() != want {
				t.Errorf("got %s, want %s", got.all(), want)
			}
		})
	}
}

// Watermill's own marshaler finds no name in a change: with AckOnUnknownEvent each is acked, and
// no handler is called. docs/watermill.md warns of it.
func TestJSONMarshaler_with_AckOnUnknownEvent_acks_changes_without_a_handler(t *testing.T) {
	msg, err := subscriber.JSON{}.Unmarshal(&ots.Record{Table: "orders", Type: ots.Update, PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(7)}}})
	if err != nil {
		t.Fatal(err)
	}
	if name := (cqrs.JSONMarshaler{}).NameFromMessage(msg); name != "" {
		t.Errorf("the name is %q", name)
	}
	if name := subscriber.EventName(msg); name != "orders.update" {
		t.Errorf("our name is %q", name)
	}
}

func TestExample_handles_each_change_once_and_ends_by_itself(t *testing.T) {
	var out strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := run(ctx, &out); err != nil || !strings.Contains(out.String(), "as it was written") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}
