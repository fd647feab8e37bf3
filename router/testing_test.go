package router_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// row is a record of key k with the number v.
func row(k string, v int64) *ots.Record {
	return &ots.Record{
		PrimaryKey: []ots.Column{{Name: "k", Value: ots.StringValue(k)}},
		Columns:    []ots.Cell{{Name: "v", Value: ots.IntegerValue(v)}},
	}
}

func rows(n int) []*ots.Record {
	out := make([]*ots.Record, n)
	for i := range out {
		out[i] = row(fmt.Sprintf("k%d", i), int64(i))
	}
	return out
}

func try(t *testing.T, r *router.Router, records ...*ots.Record) []router.Outcome {
	t.Helper()
	out, err := r.TestRecords(context.Background(), "numbers", records...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func handle(t *testing.T, yaml string, h router.Handlers) *router.Router {
	t.Helper()
	r := build(t, offline(yaml))
	if err := r.Handle("numbers", h); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

const twoBatchers = "    batchers:\n      even: {batch_size: 3, batch_timeout: 1h}\n      odd: {batch_size: 100, batch_timeout: 1h}\n"

func evenOrOdd(msg *message.Message) error {
	batching.SetBatcher(msg, []string{"even", "odd"}[version(msg)%2])
	return nil
}

func TestPipeline(t *testing.T) {
	t.Run("messages_meet_in_the_batches_that_process_chose", func(t *testing.T) {
		r := handle(t, twoBatchers, router.Handlers{Process: evenOrOdd, Batches: batchHandlers{"even": noBatch, "odd": noBatch}})
		out := try(t, r, rows(8)...)
		var got []string
		for i, o := range out {
			if o.Err != nil || o.Dropped {
				t.Errorf("message %d: %v, dropped %v", i, o.Err, o.Dropped)
			}
			got = append(got, fmt.Sprintf("%s/%d/%s", o.Batch.Batcher, len(o.Batch.Messages), o.Batch.Trigger))
		}
		want := "even/3/size odd/4/drain even/3/size odd/4/drain even/3/size odd/4/drain even/1/drain odd/4/drain"
		if strings.Join(got, " ") != want {
			t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
		}
		if out[0].Batch != out[2].Batch || out[0].Batch == out[6].Batch {
			t.Error("0 and 2 must share a batch, 0 and 6 must not")
		}
	})
	t.Run("a_dropped_message_is_acked_and_joins_nothing", func(t *testing.T) {
		var failed atomic.Int32
		r := handle(t, twoBatchers, router.Handlers{
			Process: func(msg *message.Message) error {
				if version(msg) == 2 {
					return fmt.Errorf("not for us: %w", router.ErrDrop)
				}
				return evenOrOdd(msg)
			},
			Batches: batchHandlers{"even": noBatch, "odd": noBatch},
			Failed:  func(*message.Message, error) { failed.Add(1) },
		})
		out := try(t, r, rows(4)...)
		for i, o := range out {
			if o.Err != nil || o.Dropped != (i == 2) || (o.Batch == nil) != (i == 2) {
				t.Errorf("message %d: %+v", i, o)
			}
		}
		if failed.Load() != 0 {
			t.Error("Failed was called for a dropped message")
		}
	})
	t.Run("a_batch_handler_cannot_drop", func(t *testing.T) {
		r := handle(t, "    batchers: {default: }\n", router.Handlers{Batches: batchHandlers{"default": func(context.Context, *batching.Batch) error { return router.ErrDrop }}})
		if out := try(t, r, row("a", 1)); out[0].Err == nil || out[0].Dropped {
			t.Errorf("got %+v", out[0])
		}
	})
	t.Run("failures_are_told_and_stay_with_their_message", func(t *testing.T) {
		boom := errors.New("boom")
		told := make(chan string, 10)
		r := handle(t, twoBatchers, router.Handlers{
			Process: func(msg *message.Message) error {
				if version(msg) == 1 {
					return boom
				}
				if version(msg) == 3 {
					panic(boom)
				}
				return evenOrOdd(msg)
			},
			Batches: batchHandlers{
				"even": func(_ context.Context, b *batching.Batch) error {
					b.Fail(b.Messages[1], boom)
					return nil
				},
				"odd": noBatch,
			},
			Failed: func(msg *message.Message, err error) {
				told <- msg.UUID
				panic("Failed must not hurt anybody")
			},
		})
		for i, o := range try(t, r, rows(6)...) {
			if shouldFail := i == 1 || i == 2 || i == 3; errors.Is(o.Err, boom) != shouldFail {
				t.Errorf("message %d: %v", i, o.Err)
			}
		}
		if len(told) != 3 {
			t.Errorf("Failed was called %d times", len(told))
		}
	})
	t.Run("after_a_failure_later_changes_of_the_key_are_called_back", func(t *testing.T) {
		r := handle(t, twoBatchers, router.Handlers{Process: evenOrOdd, Batches: batchHandlers{
			"even": func(_ context.Context, b *batching.Batch) error { return errors.New("down") },
			"odd":  noBatch,
		}})
		out := try(t, r, row("a", 0), row("a", 1), row("b", 1))
		if out[0].Err == nil || errors.Is(out[0].Err, ack.ErrCalledBack) || !errors.Is(out[1].Err, ack.ErrCalledBack) || out[2].Err != nil {
			t.Errorf("got %v | %v | %v", out[0].Err, out[1].Err, out[2].Err)
		}
	})
	t.Run("an_unknown_batcher_fails_one_message", func(t *testing.T) {
		r := handle(t, twoBatchers, router.Handlers{
			Process: func(msg *message.Message) error {
				if version(msg) == 0 {
					batching.SetBatcher(msg, "evn")
					return nil
				}
				return evenOrOdd(msg)
			},
			Batches: batchHandlers{"even": noBatch, "odd": noBatch},
		})
		out := try(t, r, rows(2)...)
		var unknown *batching.UnknownBatcherError
		if !errors.As(out[0].Err, &unknown) || out[1].Err != nil {
			t.Errorf("got %v | %v", out[0].Err, out[1].Err)
		}
	})
	t.Run("without_batchers_process_is_all", func(t *testing.T) {
		r := handle(t, "", router.Handlers{Process: func(msg *message.Message) error {
			msg.Payload = []byte("changed")
			return nil
		}})
		out := try(t, r, row("a", 1))
		if out[0].Err != nil || out[0].Batch != nil || string(out[0].Message.Payload) != "changed" {
			t.Errorf("got %+v", out[0])
		}
	})
	t.Run("middlewares_are_around_everything_in_their_order", func(t *testing.T) {
		var trace []string
		mark := func(name string) message.HandlerMiddleware {
			return func(h message.HandlerFunc) message.HandlerFunc {
				return func(msg *message.Message) ([]*message.Message, error) {
					trace = append(trace, name)
					return h(msg)
				}
			}
		}
		r := build(t, offline(""))
		r.AddMiddleware(mark("router 1"), mark("router 2"))
		err := r.Handle("numbers", router.Handlers{
			Process:     func(*message.Message) error { trace = append(trace, "process"); return nil },
			Middlewares: []message.HandlerMiddleware{mark("tunnel 1"), mark("tunnel 2")},

			ProcessMiddlewares: []message.HandlerMiddleware{mark("process 1"), mark("process 2")},
		})
		if err != nil {
			t.Fatal(err)
		}
		try(t, r, row("a", 1))
		if got, want := strings.Join(trace, ", "), "router 1, router 2, tunnel 1, tunnel 2, process 1, process 2, process"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("forward_publishes_copies", func(t *testing.T) {
		for _, yaml := range []string{
			"    forward: {publisher: out, topic: t}\n",
			"    batchers: {default: {forward: {publisher: out, topic: t}}}\n",
		} {
			r := build(t, offline(yaml))
			pub := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: 10}, nil)
			messages, err := pub.Subscribe(context.Background(), "t")
			if err != nil {
				t.Fatal(err)
			}
			if err := r.RegisterPublisher("out", pub); err != nil {
				t.Fatal(err)
			}
			out := try(t, r, row("a", 1))
			if out[0].Err != nil {
				t.Fatal(out[0].Err)
			}
			got := <-messages
			if got.UUID != "record-1" || got.Metadata.Get(subscriber.MetadataTable) != "changes" || got == out[0].Message {
				t.Errorf("published %+v", got)
			}
			got.Ack()
			if err := pub.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("a_failed_publish_fails_the_message", func(t *testing.T) {
		r := build(t, offline("    forward: {topic: t}\n"))
		pub := gochannel.NewGoChannel(gochannel.Config{}, nil)
		if err := pub.Close(); err != nil {
			t.Fatal(err)
		}
		if err := r.RegisterPublisher("default", pub); err != nil {
			t.Fatal(err)
		}
		if out := try(t, r, row("a", 1)); out[0].Err == nil {
			t.Error("no error")
		}
	})
}

type unmarshalFunc func(*ots.Record) (*message.Message, error)

func (f unmarshalFunc) Unmarshal(r *ots.Record) (*message.Message, error) { return f(r) }

func TestTest(t *testing.T) {
	t.Run("gives_the_typed_record_and_the_metadata", func(t *testing.T) {
		var got *ots.Record
		r := handle(t, "", router.Handlers{Process: func(msg *message.Message) error {
			got, _ = ots.RecordFromMessage(msg)
			return nil
		}})
		out := try(t, r, row("a", 7))
		if got == nil || got.Table != "changes" || got.Tunnel != "consumer" || got.Instance != "i" || got.Type != ots.Put || got.Attempt != 1 {
			t.Errorf("record %+v", got)
		}
		if m := out[0].Message; m.Metadata.Get(subscriber.MetadataKey) != `["a"]` || string(m.Payload) != `{"type":"put","key":{"k":"a"},"columns":{"v":7}}` {
			t.Errorf("message %s %v", m.Payload, m.Metadata)
		}
	})
	t.Run("makes_any_payload_that_has_a_name", func(t *testing.T) {
		for format, want := range map[string]string{"json": `{"type":"put"`, "cloudevents": `{"specversion":"1.0","id":"record-1"`, "debezium": `{"before":`, "raw": "\x75", "none": ""} {
			out := try(t, handle(t, "    payload: "+format+"\n", router.Handlers{Process: noProcess}), row("a", 1))
			if payload := string(out[0].Message.Payload); !strings.HasPrefix(payload, want) || want == "" && payload != "" {
				t.Errorf("%s makes %q", format, payload)
			}
		}
	})
	t.Run("drops_records_that_the_payload_format_skips", func(t *testing.T) {
		r := handle(t, "    payload: odd\n", router.Handlers{Process: noProcess})
		err := r.RegisterPayload("odd", unmarshalFunc(func(rec *ots.Record) (*message.Message, error) {
			if v, _ := rec.Column("v"); v.Int64()%2 == 0 {
				return nil, fmt.Errorf("an even value: %w", ots.ErrSkip)
			}
			return message.NewMessage("odd-"+rec.UUID, nil), nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		out := try(t, r, row("a", 1), row("b", 2), row("c", 3))
		for i, id := range []string{"odd-record-1", "", "odd-record-3"} {
			if o := out[i]; o.Err != nil || o.Dropped != (id == "") || id != "" && o.Message.UUID != id {
				t.Errorf("record %d: %+v", i+1, o)
			}
		}
	})
	t.Run("orders_as_the_tunnel_does", func(t *testing.T) {
		for ordering, called := range map[string][]bool{"key": {false, true, false}, "channel": {false, true, true}, "none": {false, false, false}} {
			r := handle(t, "    ordering: "+ordering+"\n", router.Handlers{Process: func(msg *message.Message) error {
				if version(msg) == 0 {
					return errors.New("first")
				}
				return nil
			}})
			for i, o := range try(t, r, row("a", 0), row("a", 1), row("b", 1)) {
				if errors.Is(o.Err, ack.ErrCalledBack) != called[i] {
					t.Errorf("%s: message %d: %v", ordering, i, o.Err)
				}
			}
		}
	})
	t.Run("takes_messages_without_a_record", func(t *testing.T) {
		r := handle(t, "", router.Handlers{Process: noProcess})
		out, err := r.Test(context.Background(), "numbers", message.NewMessage("same", nil), message.NewMessage("same", nil))
		if err != nil || len(out) != 2 || out[0].Err != nil || out[1].Err != nil {
			t.Errorf("got %+v, %v", out, err)
		}
	})
	t.Run("refuses_a_message_twice_and_unknown_tunnels", func(t *testing.T) {
		r := handle(t, "", router.Handlers{Process: noProcess})
		m := message.NewMessage("m", nil)
		if _, err := r.Test(context.Background(), "numbers", m, m); err == nil {
			t.Error("a message was taken twice")
		}
		if _, err := r.Test(context.Background(), "nmbers"); err == nil || !strings.Contains(err.Error(), `did you mean "numbers"?`) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("ends_with_its_context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		r := handle(t, "", router.Handlers{Process: func(msg *message.Message) error {
			cancel()
			<-msg.Context().Done()
			return msg.Context().Err()
		}})
		out, err := r.Test(ctx, "numbers", message.NewMessage("m", nil))
		if err != nil || !errors.Is(out[0].Err, context.Canceled) {
			t.Errorf("got %+v, %v", out, err)
		}
	})
	t.Run("is_refused_after_close", func(t *testing.T) {
		r := build(t, offline(""))
		if err := r.Handle("numbers", router.Handlers{Process: noProcess}); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Test(context.Background(), "numbers"); !errors.Is(err, router.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestTest_never_waits_for_time_not_even_for_messages_of_one_key_in_several_batches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := build(t, offline("    batchers: {default: {batch_size: 2, batch_timeout: 1h}}\n"))
		err := r.Handle("numbers", router.Handlers{Batches: map[string]func(context.Context, *batching.Batch) error{
			"default": func(context.Context, *batching.Batch) error { return nil },
		}})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for i, o := range try(t, r, row("a", 1), row("a", 2), row("a", 3), row("a", 4), row("a", 5)) {
			if o.Err != nil {
				t.Errorf("message %d: %v", i, o.Err)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}
