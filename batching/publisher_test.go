package batching

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

func TestPublishTo(t *testing.T) {
	t.Run("publishes_copies_in_one_call", func(t *testing.T) {
		type key struct{}
		var out []*message.Message
		pub := publisherFunc(func(topic string, msgs ...*message.Message) error {
			equal(t, "topic", topic, "topic")
			out = append(out, msgs...)
			msgs[0].Metadata.Set("changed", "by the publisher")
			return nil
		})
		a := message.NewMessageWithContext(context.WithValue(t.Context(), key{}, "value"), "a", []byte("payload"))
		a.Metadata.Set("k", "v")
		ctx, cancel := context.WithCancel(t.Context())
		err := PublishTo(pub, "topic")(ctx, &Batch{Messages: []*message.Message{a, msgOf("b")}})
		equal(t, "error", err, nil)
		equal(t, "published", uuids(out), "a b")
		equal(t, "metadata", out[0].Metadata.Get("k"), "v")
		equal(t, "metadata of the original", a.Metadata.Get("changed"), "")
		equal(t, "value", out[0].Context().Value(key{}), any("value"))
		cancel()
		equal(t, "context", out[0].Context().Err(), context.Canceled)
	})

	t.Run("fails_just_the_messages_that_a_PartialError_names", func(t *testing.T) {
		a, b, c := msgOf("a"), msgOf("b"), msgOf("c")
		batch := &Batch{Messages: []*message.Message{a, b, c}}
		pub := &published{err: fmt.Errorf("wrapped: %w", partialError{1: errBoom, 2: ack.Transient(errBoom)})}
		equal(t, "error", PublishTo(pub, "topic")(t.Context(), batch), nil)
		equal(t, "a", batch.Err(a), nil)
		equal(t, "b", errors.Is(batch.Err(b), errBoom) && !ack.IsTransient(batch.Err(b)), true)
		equal(t, "c", ack.IsTransient(batch.Err(c)), true)
	})

	t.Run("fails_the_batch_when_a_PartialError_does_not_fit_it", func(t *testing.T) {
		for _, partial := range []partialError{{}, {1: errBoom}, {-1: errBoom}} {
			a := msgOf("a")
			batch := &Batch{Messages: []*message.Message{a}}
			if err := PublishTo(&published{err: partial}, "topic")(t.Context(), batch); err == nil || batch.Err(a) != nil {
				t.Errorf("%v: got %v", partial, err)
			}
		}
	})

	t.Run("fails_the_batch_when_Publish_does", func(t *testing.T) {
		err := PublishTo(&published{err: errBoom}, "topic")(t.Context(), &Batch{Messages: []*message.Message{msgOf("a")}})
		equal(t, "error", errors.Is(err, errBoom), true)
		contains(t, "error", err, `publish 1 messages to "topic"`)
	})
}

// partialError is a PartialError.
type partialError map[int]error

func (e partialError) Error() string { return fmt.Sprint("partial: ", map[int]error(e)) }

func (e partialError) MessageErrors() map[int]error { return e }

type publisherFunc func(topic string, msgs ...*message.Message) error

func (f publisherFunc) Publish(topic string, msgs ...*message.Message) error {
	return f(topic, msgs...)
}
func (f publisherFunc) Close() error { return nil }

func TestPublisher(t *testing.T) {
	publish := func(p *Publisher, topic string, ids ...string) <-chan error {
		done := make(chan error, 1)
		msgs := make([]*message.Message, len(ids))
		for i, id := range ids {
			msgs[i] = msgOf(id)
		}
		go func() { done <- p.Publish(topic, msgs...) }()
		synctest.Wait()
		return done
	}

	t.Run("collects_the_messages_of_many_calls_by_topic", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pub := &published{}
			p, err := NewPublisher(pub, Batcher{Size: 3, Timeout: time.Second}, nil)
			equal(t, "error", err, nil)
			a := publish(p, "x", "a")
			b := publish(p, "y", "b")
			c := publish(p, "x", "c", "d", "e")
			equal(t, "a", <-a, nil)
			equal(t, "full", fmt.Sprint(pub.seen()), "[x: a c d]")
			equal(t, "b", <-b, nil)
			equal(t, "c d e", <-c, nil)
			equal(t, "all", len(pub.seen()), 3)
			equal(t, "nothing", p.Publish("x"), nil)
			equal(t, "Close", p.Close(), nil)
		})
	})

	t.Run("keeps_the_order_of_a_topic_at_any_concurrency", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			running := map[string]bool{}
			set := func(topic string, on bool) (was bool) {
				mu.Lock()
				defer mu.Unlock()
				was = running[topic]
				running[topic] = on
				return was
			}
			p, err := NewPublisher(publisherFunc(func(topic string, _ ...*message.Message) error {
				if set(topic, true) {
					t.Errorf("topic %s is published twice at once", topic)
				}
				time.Sleep(time.Second)
				set(topic, false)
				return nil
			}), Batcher{Size: 1, Concurrency: 4}, nil)
			equal(t, "error", err, nil)
			start := time.Now()
			x, y := publish(p, "x", "a", "b", "c"), publish(p, "y", "d", "e", "f")
			equal(t, "x", <-x, nil)
			equal(t, "y", <-y, nil)
			equal(t, "took", time.Since(start), 3*time.Second)
		})
	})

	t.Run("returns_the_outcome_of_its_messages_to_each_caller_once_for_each_batch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p, err := NewPublisher(publisherFunc(func(topic string, msgs ...*message.Message) error {
				return fmt.Errorf("failed at %s", msgs[0].UUID)
			}), Batcher{Size: 2, Timeout: time.Second}, nil)
			equal(t, "error", err, nil)
			x, y := publish(p, "x", "a", "b"), publish(p, "y", "c")
			got := <-x
			contains(t, "x", got, "failed at a")
			joined, _ := got.(interface{ Unwrap() []error })
			equal(t, "errors", len(joined.Unwrap()), 1)
			contains(t, "y", <-y, "failed at c")
		})
	})

	t.Run("does_not_publish_messages_of_a_topic_that_wait_behind_a_failed_batch", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var sent []string
			fails := true
			p, err := NewPublisher(publisherFunc(func(topic string, msgs ...*message.Message) error {
				time.Sleep(time.Second)
				if topic == "x" && fails {
					fails = false
					return errBoom
				}
				for _, m := range msgs {
					sent = append(sent, m.UUID)
				}
				return nil
			}), Batcher{Size: 2, Timeout: 10 * time.Millisecond, Concurrency: 4}, nil)
			equal(t, "error", err, nil)
			one := publish(p, "x", "a", "b", "c", "d", "e")
			other, y := publish(p, "x", "f"), publish(p, "y", "z")
			got := <-one
			equal(t, "the batch's error", errors.Is(got, errBoom), true)
			equal(t, "unpublished message", errors.Is(got, ack.ErrCalledBack), true)
			equal(t, "that of another call", errors.Is(<-other, ack.ErrCalledBack), true)
			equal(t, "another topic", <-y, nil)
			equal(t, "sent", fmt.Sprint(sent), "[z]")
			equal(t, "again", <-publish(p, "x", "a", "b", "c", "d", "e", "f"), nil)
			equal(t, "sent", fmt.Sprint(sent), "[z a b c d e f]")
			equal(t, "Close", p.Close(), nil)
		})
	})

	t.Run("publishes_waiting_messages_at_once_when_the_context_of_a_message_ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pub := &published{}
			p, err := NewPublisher(pub, Batcher{Timeout: time.Hour}, nil)
			equal(t, "error", err, nil)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- p.Publish("x", message.NewMessageWithContext(ctx, "a", nil)) }()
			other := publish(p, "x", "b")
			synctest.Wait()
			start := time.Now()
			cancel()
			equal(t, "a", <-done, nil)
			equal(t, "b", <-other, nil)
			equal(t, "took", time.Since(start), 0)
			equal(t, "calls", len(pub.seen()), 1)
			equal(t, "Close", p.Close(), nil)
		})
	})

	t.Run("Close_publishes_waiting_messages_and_closes_the_underlying_publisher", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pub := &published{}
			p, err := NewPublisher(pub, Batcher{Timeout: time.Hour}, nil)
			equal(t, "error", err, nil)
			a := publish(p, "x", "a")
			equal(t, "Close", p.Close(), nil)
			equal(t, "a", <-a, nil)
			equal(t, "calls", fmt.Sprint(pub.seen()), "[x: a]")
			equal(t, "closed", pub.closed, true)
			equal(t, "later", errors.Is(p.Publish("x", msgOf("b")), ErrClosed), true)
		})
	})

	t.Run("one_error_lists_all_faults", func(t *testing.T) {
		p, err := NewPublisher(nil, Batcher{Size: -1, Handler: succeed}, nil)
		if p != nil || !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("got %v, %v", p, err)
		}
		contains(t, "error", err, "publisher is nil", "Handler is set", "Size is -1")
	})
}

func TestHandler(t *testing.T) {
	type order struct {
		ID    string
		Total int
	}
	mail := func(payload string) *message.Message { return message.NewMessage(payload, []byte(payload)) }

	t.Run("decodes_and_fails_alone_messages_that_it_cannot_decode", func(t *testing.T) {
		good, bad, second := mail(`{"ID":"a","Total":3}`), mail(`{"ID":`), mail(`{"ID":"b"}`)
		batch := &Batch{Messages: []*message.Message{good, bad, second}}
		h := Handler(JSON[order], func(_ context.Context, b *Batch, items []Item[order]) error {
			equal(t, "items", len(items), 2)
			equal(t, "value", items[0].Value, order{"a", 3})
			equal(t, "message", items[1].Message, second)
			b.Fail(items[1].Message, errBoom)
			return nil
		})
		equal(t, "error", h(t.Context(), batch), nil)
		equal(t, "good", batch.Err(good), nil)
		contains(t, "bad", batch.Err(bad), "decode message", "unexpected end of JSON")
		equal(t, "second", batch.Err(second), errBoom)
	})

	t.Run("is_not_called_when_nothing_can_be_decoded", func(t *testing.T) {
		h := Handler(JSON[order], func(context.Context, *Batch, []Item[order]) error {
			t.Error("called")
			return nil
		})
		equal(t, "error", h(t.Context(), &Batch{Messages: []*message.Message{mail("")}}), nil)
	})
}

// limitedPublisher accepts payloads up to a size.
type limitedPublisher struct {
	published
	limit int
}

func (l *limitedPublisher) MaxPayloadBytes() int { return l.limit }

func TestPublisher_returns_the_largest_payload_of_the_underlying_publisher(t *testing.T) {
	for _, c := range []struct {
		behind message.Publisher
		want   int
	}{{&limitedPublisher{limit: 7}, 7}, {new(published), 0}} {
		p, err := NewPublisher(c.behind, Batcher{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "bytes", p.MaxPayloadBytes(), c.want)
		equal(t, "error of Close", p.Close(), nil)
	}
}
