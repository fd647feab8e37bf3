package subscriber

import (
	"context"
	"errors"
	"maps"
	"regexp"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/ots"
)

// identity is what a UUID depends on.
type identity struct {
	tunnel, channel string
	typ             ots.RecordType
	sequence        ots.Sequence
	key             string
}

func (i identity) uuid() string { return newUUIDs(i.tunnel, i.channel).of(i.typ, i.sequence, i.key) }

// keyBytes encodes a primary key as the service does.
func keyBytes(t testing.TB, cells ...plainbuffer.Cell) string {
	var row plainbuffer.Row
	if err := plainbuffer.Decode(plainbuffer.AppendPrimaryKey(nil, cells), &row); err != nil {
		t.Fatal(err)
	}
	return row.KeyBytes
}

func golden(t testing.TB) identity {
	return identity{
		"3b3e2d29-6d2e-4b7e-9c3a-0d5f5b7a1c11", "channel-1", ots.Put, ots.Sequence{Epoch: 1, Timestamp: 1700000000123456, RowIndex: 2},
		keyBytes(t, plainbuffer.Cell{Name: "id", Value: plainbuffer.IntegerValue(7), HasValue: true}),
	}
}

// A UUID that changes with a release makes inbox tables take old records for
// others: these values must never change. They were computed a second time from
// the description of the form, by a program that shares no code with this one.
func TestL2_uuids_are_the_same_in_all_releases(t *testing.T) {
	stream, base := golden(t), golden(t)
	base.sequence = ots.Sequence{}
	deleted := golden(t)
	deleted.typ, deleted.key = ots.Delete, keyBytes(t,
		plainbuffer.Cell{Name: "a", Value: plainbuffer.StringValue("é"), HasValue: true},
		plainbuffer.Cell{Name: "b", Value: plainbuffer.BinaryValue([]byte{0, 255}), HasValue: true})
	for want, i := range map[string]identity{
		"ab602e8a-626b-85b4-91ed-8c52e818580e": stream,
		"4a3598fd-3c62-8a43-b66a-e59331c574c5": base,
		"a93bc680-a120-8453-a12c-c59468f510c4": deleted,
	} {
		if got := i.uuid(); got != want {
			t.Errorf("%+v has %s, want %s", i, got, want)
		}
	}
}

func TestL2_uuid_differs_with_each_of_its_parts(t *testing.T) {
	g := golden(t)
	variants := map[string]identity{"itself": g}
	vary := func(name string, change func(*identity)) {
		v := g
		change(&v)
		variants[name] = v
	}
	vary("tunnel", func(i *identity) { i.tunnel += "x" })
	vary("channel", func(i *identity) { i.channel += "x" })
	vary("border of tunnel and channel", func(i *identity) { i.tunnel, i.channel = i.tunnel+"c", i.channel[1:] })
	vary("update", func(i *identity) { i.typ = ots.Update })
	vary("delete", func(i *identity) { i.typ = ots.Delete })
	vary("epoch", func(i *identity) { i.sequence.Epoch++ })
	vary("timestamp", func(i *identity) { i.sequence.Timestamp++ })
	vary("row index", func(i *identity) { i.sequence.RowIndex++ })
	vary("base data", func(i *identity) { i.sequence = ots.Sequence{} })
	vary("key", func(i *identity) {
		i.key = keyBytes(t, plainbuffer.Cell{Name: "id", Value: plainbuffer.IntegerValue(8), HasValue: true})
	})
	vary("key's type", func(i *identity) {
		i.key = keyBytes(t, plainbuffer.Cell{Name: "id", Value: plainbuffer.StringValue("7"), HasValue: true})
	})
	vary("key's name", func(i *identity) {
		i.key = keyBytes(t, plainbuffer.Cell{Name: "ID", Value: plainbuffer.IntegerValue(7), HasValue: true})
	})
	seen := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(variants)) {
		id := variants[name].uuid()
		if other, ok := seen[id]; ok {
			t.Errorf("%s and %s have one UUID", name, other)
		}
		seen[id] = name
		if id != variants[name].uuid() {
			t.Errorf("%s: two calls, two UUIDs", name)
		}
	}
}

func TestUUID_has_the_form_of_RFC_9562_version_8(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	u := newUUIDs("t", "c")
	seen := make(map[string]bool)
	for i := range 10000 {
		id := u.of(ots.Put, ots.Sequence{Timestamp: int64(i)}, "key")
		if !form.MatchString(id) || seen[id] {
			t.Fatalf("%d: %s, seen %t", i, id, seen[id])
		}
		seen[id] = true
	}
	long := make([]byte, 1000) // beyond the buffer on the stack
	if id := u.of(ots.Put, ots.Sequence{}, string(long)); !form.MatchString(id) {
		t.Errorf("long key: %s", id)
	}
}

func TestMetadata_of_stream_and_base_data(t *testing.T) {
	r := &ots.Record{
		Table: "orders", Tunnel: "audit", Channel: "c1", Type: ots.Update, Sequence: ots.Sequence{Epoch: 1, Timestamp: 1700000000123456, RowIndex: 2},
		PrimaryKey: []ots.Column{{Name: "u", Value: ots.StringValue("u1")}, {Name: "id", Value: ots.IntegerValue(7)}},
	}
	want := message.Metadata{
		"ots.table": "orders", "ots.tunnel": "audit", "ots.channel": "c1", "ots.type": "update",
		"ots.timestamp": "1700000000123456", "ots.key": `["u1",7]`, "ots.phase": "stream",
	}
	msg, err := JSON{}.Unmarshal(r)
	if err != nil || !maps.Equal(msg.Metadata, want) || msg.UUID != "" {
		t.Errorf("got %v, UUID %q, %v", msg.Metadata, msg.UUID, err)
	}
	r.Sequence = ots.Sequence{}
	delete(want, "ots.timestamp")
	want["ots.phase"] = "base"
	if msg, err = (JSON{}).Unmarshal(r); err != nil || !maps.Equal(msg.Metadata, want) {
		t.Errorf("base data: got %v, %v", msg.Metadata, err)
	}
}

func TestRecordFromMessage_finds_the_record_or_says_no(t *testing.T) {
	msg := message.NewMessage("id", nil)
	if r, ok := ots.RecordFromMessage(msg); ok || r != nil {
		t.Errorf("a message of another source has the record %v", r)
	}
	want := new(ots.Record)
	ots.WithRecord(msg, want)
	if r, ok := ots.RecordFromMessage(msg); !ok || r != want {
		t.Errorf("got %p, %t; want %p", r, ok, want)
	}
}

// flow is a subscription to the fake tunnel with its messages.
func flow(t *testing.T, ctx context.Context, f *fakeService, change func(*Config)) (*Subscriber, <-chan *message.Message) {
	t.Helper()
	s := fakeSubscriber(t, f, change)
	messages, err := s.Subscribe(ctx, "table/tunnel")
	if err != nil {
		t.Fatal(err)
	}
	return s, messages
}

type ctxKey struct{}

func TestMessageContext_has_the_subscriptions_values_and_outlives_its_end(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.WithValue(context.Background(), ctxKey{}, "value"))
		_, messages := flow(t, ctx, fakeTunnel(1), nil)
		msg := <-messages
		if v := msg.Context().Value(ctxKey{}); v != "value" {
			t.Errorf("the value is %v", v)
		}
		if r, ok := ots.RecordFromMessage(msg); !ok || r.Table != "table" || r.Tunnel != "tunnel" || r.Channel != "c1" || r.Instance != "inst" || r.Attempt != 1 {
			t.Errorf("the record is %+v, %t", r, ok)
		}
		cancel()
		time.Sleep(DefaultCloseTimeout - time.Second)
		if err := msg.Context().Err(); err != nil {
			t.Errorf("the context ended with Subscribe's: %v", err)
		}
		msg.Ack()
		if _, open := <-messages; open {
			t.Error("another message")
		}
		if cause := context.Cause(msg.Context()); !errors.Is(cause, ErrSettled) {
			t.Errorf("after the ack the cause is %v", cause)
		}
	})
}

func TestMessageContext_ends_with_why(t *testing.T) {
	messageContextEndsWithWhy(t, func(ack.Delivery) {})
}

func TestMessageContext_that_is_waited_for_ends_with_why(t *testing.T) {
	messageContextEndsWithWhy(t, func(d ack.Delivery) { d.(ack.Ender).WillWait() })
}

// TestMessageContext_has_one_Done: whatever wants to wait, and whenever.
func TestMessageContext_has_one_Done(t *testing.T) {
	const ask, wait, end = "ask", "wait", "end"
	for name, steps := range map[string][]string{
		"waited for and then asked":     {wait, ask, end, ask},
		"asked and then waited for":     {ask, wait, ask, end, ask},
		"waited for when it has ended":  {end, wait, ask, ask},
		"waited for, and asked at last": {wait, end, ask, ask},
	} {
		t.Run(name, func(t *testing.T) {
			s := idleSession()
			r := openRun(s)
			d := &delivery{scope: r.taker.scope}
			defer r.cancel(errSessionOver)
			var done []<-chan struct{}
			for _, step := range steps {
				switch step {
				case ask:
					done = append(done, d.Done())
				case wait:
					d.WillWait()
				case end:
					d.cancel(ErrSettled)
				}
			}
			for _, c := range done {
				if c != done[0] || !closed(c) {
					t.Errorf("Done was %v", done)
				}
			}
			if d.Err() == nil || !errors.Is(context.Cause(d), ErrSettled) {
				t.Errorf("it ended with %v because of %v", d.Err(), context.Cause(d))
			}
		})
	}
}

func messageContextEndsWithWhy(t *testing.T, prepare func(ack.Delivery)) {
	cause := errors.New("the first of the batch failed")
	for name, c := range map[string]struct {
		end  func(s *Subscriber, f *fakeService, first, msg *message.Message)
		want []error
	}{
		"ack":  {func(_ *Subscriber, _ *fakeService, _, msg *message.Message) { msg.Ack() }, []error{ErrSettled}},
		"nack": {func(_ *Subscriber, _ *fakeService, _, msg *message.Message) { msg.Nack() }, []error{ErrSettled}},
		"channel not listed any more": {func(_ *Subscriber, f *fakeService, _, _ *message.Message) {
			f.always("heartbeat", reply{})
		}, []error{ErrChannelLost}},
		"client gone": {func(_ *Subscriber, f *fakeService, _, _ *message.Message) {
			f.always("heartbeat", gone)
		}, []error{ErrChannelLost}},
		"read says gone": {func(_ *Subscriber, f *fakeService, _, _ *message.Message) {
			f.always("readrecords", gone)
		}, []error{ErrChannelLost}},
		"drain": {func(s *Subscriber, _ *fakeService, _, _ *message.Message) { _ = s.Close() }, []error{ErrDrainTimeout}},
		"call back": {func(_ *Subscriber, _ *fakeService, first, _ *message.Message) {
			d, _ := ack.FromContext(first.Context())
			d.CallBack(cause)
		}, []error{ack.ErrCalledBack, cause}},
		"nack of an earlier one": {func(_ *Subscriber, _ *fakeService, first, _ *message.Message) { first.Nack() }, []error{ack.ErrCalledBack, errNacked}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeTunnel(2)
				s, messages := flow(t, context.Background(), f, func(c *Config) { c.Ordering = OrderByChannel })
				first := <-messages
				d, ok := ack.FromContext(first.Context())
				if !ok || d.Key() == "" {
					t.Fatalf("the context carries the delivery %v", d)
				}
				d.HandOff() // as a message in an ordered batch does
				msg := <-messages
				d, _ = ack.FromContext(msg.Context())
				prepare(d)
				ended := msg.Context().Done()
				child, cancel := context.WithTimeout(msg.Context(), time.Hour)
				defer cancel()
				prepare(d) // too late, if not again
				if err := msg.Context().Err(); err != nil || closed(ended) {
					t.Fatalf("it has ended before its time: %v", err)
				}
				c.end(s, f, first, msg)
				for what, done := range map[string]<-chan struct{}{"the context": ended, "its Done of later": msg.Context().Done(), "its child": child.Done()} {
					select {
					case <-done:
					case <-time.After(time.Minute):
						t.Fatal(what + " does not end")
					}
				}
				late, cancelLate := context.WithCancel(msg.Context())
				defer cancelLate()
				for what, ctx := range map[string]context.Context{"context": msg.Context(), "child": child, "late child": late} {
					if err := ctx.Err(); !errors.Is(err, context.Canceled) {
						t.Errorf("%s: the error is %v", what, err)
					}
					for _, want := range c.want {
						if got := context.Cause(ctx); !errors.Is(got, want) {
							t.Errorf("%s: the cause is %v, want %v", what, got, want)
						}
					}
				}
				go func() { // whatever is redelivered
					for m := range messages {
						m.Ack()
					}
				}()
				first.Ack()
				msg.Ack()
				_ = s.Close()
			})
		})
	}
}

// refuser refuses each record a few times, and panics between.
type refuser struct{ refusals, calls int }

func (r *refuser) Unmarshal(rec *ots.Record) (*message.Message, error) {
	r.calls++
	switch {
	case r.calls > r.refusals:
		return JSON{}.Unmarshal(rec)
	case r.calls%3 == 0:
		panic("unmarshaler gives up")
	case r.calls%3 == 1:
		return nil, errors.New("unmarshaler refuses")
	}
	return nil, nil
}

func TestL8_record_that_the_unmarshaler_refuses_is_a_failed_message(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(1)
		u := &refuser{refusals: 7}
		s, messages := flow(t, context.Background(), f, func(c *Config) { c.Unmarshaler = u })
		msg := <-messages
		if r, _ := ots.RecordFromMessage(msg); r.Attempt != 8 || u.calls != 8 {
			t.Errorf("attempt %d after %d calls", r.Attempt, u.calls)
		}
		if got := stored(t, f); len(got) != 0 {
			t.Errorf("stored %v past a record that was not handled", got)
		}
		msg.Ack()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if got := stored(t, f); !slices.Equal(got, []string{"t1@1"}) {
			t.Errorf("stored %v", got)
		}
	})
}

func TestMessage_keeps_the_UUID_of_the_unmarshaler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, messages := flow(t, context.Background(), fakeTunnel(1), func(c *Config) {
			c.Unmarshaler = unmarshalerFunc(func(*ots.Record) (*message.Message, error) { return message.NewMessage("own", nil), nil })
		})
		msg := <-messages
		if msg.UUID != "own" {
			t.Errorf("UUID is %s", msg.UUID)
		}
		msg.Ack()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

type unmarshalerFunc func(*ots.Record) (*message.Message, error)

func (f unmarshalerFunc) Unmarshal(r *ots.Record) (*message.Message, error) { return f(r) }

func TestL8_nacked_message_leaves_no_backoff_behind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sessionOf(subscriptionOf(new(fakeService), Config{}, nil))
		r := openRun(s)
		defer r.cancel(errSessionOver)
		p := mustDecode(t, wirePage("t", nil, someRecord(1), someRecord(1)))
		r.tracker.Add(ledger.Page{Token: "t", Keys: p.keys, Bytes: 1, Value: p})
		first, _, _ := r.tracker.Next(time.Now())
		r.tracker.HandOff(first)
		second, _, _ := r.tracker.Next(time.Now())
		r.taker.nack(first, errNacked)  // takes the second back
		r.taker.nack(second, errNacked) // its end, which counts for nothing
		if n := len(r.failures.by); n != 1 {
			t.Errorf("%d backoffs are kept, want that of the failed record", n)
		}
		r.failures.forget(first.ID())
		if n := len(r.failures.by); n != 0 {
			t.Errorf("%d backoffs are kept", n)
		}
	})
}

func BenchmarkUUID(b *testing.B) {
	u := newUUIDs("3b3e2d29-6d2e-4b7e-9c3a-0d5f5b7a1c11", "channel-1")
	key := keyBytes(b, plainbuffer.Cell{Name: "id", Value: plainbuffer.IntegerValue(7), HasValue: true})
	seq := ots.Sequence{Epoch: 1, Timestamp: 1700000000123456, RowIndex: 2}
	b.ReportAllocs()
	for b.Loop() {
		u.of(ots.Put, seq, key)
	}
}
