package batching

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
)

// joins sends messages through Join, and records what becomes of them.
type joins struct {
	t *testing.T
	b *Batching

	hurry, draining chan struct{} // of all deliveries that follow
	failed          func(msg *message.Message, err error) error
	deferral        *Deferral

	mu   sync.Mutex
	said []string // "succeeded a b", "failed c", and what the deliveries were settled with
}

func newJoins(t *testing.T, c Batcher) *joins {
	b := mustNew(t, one(c), nil)
	return joinsTo(t, b)
}

func joinsTo(t *testing.T, b *Batching) *joins {
	j := &joins{t: t, b: b, hurry: make(chan struct{}), draining: make(chan struct{}), failed: func(_ *message.Message, err error) error { return err }}
	j.deferral = &Deferral{
		Process:   func(*message.Message) ([]*message.Message, error) { return nil, nil },
		Succeeded: func(messages []*message.Message) { j.say("succeeded %s", uuids(messages)) },
		Failed: func(msg *message.Message, _ any, err error) error {
			j.say("failed %s", msg.UUID)
			return j.failed(msg, err)
		},
	}
	return j
}

func (j *joins) say(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.said = append(j.said, fmt.Sprintf(format, args...))
}

// expect compares what became of all messages so far, in any order.
func (j *joins) expect(want ...string) {
	j.t.Helper()
	synctest.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	got := slices.Sorted(slices.Values(j.said))
	slices.Sort(want)
	if !slices.Equal(got, want) {
		j.t.Errorf("got %q, want %q", got, want)
	}
}

// joinable is a delivery of joins.
type joinable struct {
	j               *joins
	id, key         string
	hurry, draining chan struct{}
	end             context.CancelCauseFunc
	early           bool // it ends when it has been deferred, before it can join
	behind          []*joinable
	msg             *message.Message

	mu       sync.Mutex
	listener ack.Listener
}

// join sends one message.
func (j *joins) join(id, key string) *joinable {
	j.t.Helper()
	d := &joinable{id: id, key: key}
	j.send(d)
	return d
}

func (j *joins) send(d *joinable) {
	j.t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	d.j, d.hurry, d.draining, d.end = j, j.hurry, j.draining, cancel
	msg := msgOf(d.id)
	d.msg = msg
	msg.SetContext(ack.NewContext(ctx, d))
	joined, err := j.b.Join(msg, j.deferral, nil)
	if !joined {
		j.say("%s did not join: %v", d.id, err)
	}
}

func (d *joinable) Key() string               { return d.key }
func (d *joinable) HandOff()                  {}
func (d *joinable) Begin()                    {}
func (d *joinable) Hurry() <-chan struct{}    { return d.hurry }
func (d *joinable) Draining() <-chan struct{} { return d.draining }
func (d *joinable) BeginAll([]ack.Deferrer)   {}

func (d *joinable) CallBack(cause error) {
	for _, o := range slices.Backward(d.behind) {
		o.over(fmt.Errorf("%w: %w", ack.ErrCalledBack, cause))
	}
}

// over ends the delivery as a subscriber does.
func (d *joinable) over(cause error) {
	d.end(cause)
	d.mu.Lock()
	l := d.listener
	d.listener = nil
	d.mu.Unlock()
	if l != nil {
		l.DeliveryEnded()
	}
}

func (d *joinable) Defer(l ack.Listener) bool {
	d.mu.Lock()
	d.listener = l
	d.mu.Unlock()
	if d.early {
		d.over(errFenced)
	}
	return true
}

func (d *joinable) Settle(err error) {
	switch {
	case d.msg == nil: // it was not sent by send
	case err == nil:
		d.msg.Ack()
	default:
		d.msg.Nack()
	}
	switch {
	case err == nil:
		d.j.say("ack %s", d.id)
	case errors.Is(err, errFenced):
		d.j.say("nack %s: fenced", d.id)
	default:
		d.j.say("nack %s", d.id)
	}
}

func (d *joinable) AckAll(all []ack.Deferrer) {
	var ids []string
	for _, o := range all {
		ids = append(ids, o.(*joinable).id)
		if msg := o.(*joinable).msg; msg != nil {
			msg.Ack()
		}
	}
	d.j.say("ack all: %s", strings.Join(ids, " "))
}

func succeeds(context.Context, *Batch) error { return nil }

func TestJoin_a_batch_settles_its_messages_together_in_their_order(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoins(t, Batcher{Size: 3, Handler: succeeds})
		j.join("a", "k")
		j.join("b", "k")
		j.expect()
		j.join("c", "")
		j.expect("succeeded a b c", "ack all: a b c")
		equal(t, "turns", len(j.b.latest), 0)
		equal(t, "close", j.b.Close(), nil)
	})
}

func TestJoin_a_message_that_was_called_back_while_its_batch_ran_did_not_succeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoins(t, Batcher{Size: 2, Handler: func(context.Context, *Batch) error { time.Sleep(time.Second); return nil }})
		j.join("a", "k")
		b := j.join("b", "l")
		synctest.Wait()
		b.over(ack.ErrCalledBack)
		j.expect()
		time.Sleep(time.Second)
		j.expect("succeeded a", "ack all: a", "ack b")
		equal(t, "turns", len(j.b.latest), 0)
		equal(t, "close", j.b.Close(), nil)
	})
}

func TestJoin_a_message_that_failed_takes_those_behind_it_out_of_the_batch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoins(t, Batcher{Size: 4, Handler: func(_ context.Context, b *Batch) error { b.Fail(b.Messages[1], errBoom); return nil }})
		j.join("a", "k")
		b := &joinable{id: "b", key: "k"}
		c := &joinable{id: "c", key: "k"}
		b.behind = []*joinable{c}
		j.send(b)
		j.send(c)
		j.join("d", "l")
		j.expect("succeeded a d", "ack all: a d", "failed b", "nack b", "ack c")
		equal(t, "turns", len(j.b.latest), 0)
		equal(t, "close", j.b.Close(), nil)
	})
}

func TestJoin_a_message_whose_context_ends_leaves_its_batch_and_is_settled_before_Close_returns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoins(t, Batcher{Size: 3, Handler: succeeds})
		j.failed = func(_ *message.Message, err error) error { time.Sleep(5 * time.Second); j.say("waited"); return err }
		a := j.join("a", "k")
		b := j.join("b", "k")
		b.over(errFenced)
		a.over(errFenced)
		equal(t, "close", j.b.Close(), nil)
		j.expect("failed a", "failed b", "waited", "waited", "nack a: fenced", "nack b: fenced")
	})
}

func TestJoin_a_message_that_ends_before_it_has_its_place_is_settled_once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoins(t, Batcher{Size: 1, Handler: succeeds})
		j.send(&joinable{id: "a", key: "k", early: true})
		j.expect("failed a", "nack a: fenced")
		equal(t, "unfinished", j.b.unfinishedBatches(), 0)
		equal(t, "close", j.b.Close(), nil)
	})
}

func TestJoin_after_Close_settles_the_message_with_ErrClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoins(t, Batcher{Size: 1, Handler: succeeds})
		equal(t, "close", j.b.Close(), nil)
		var got error
		j.failed = func(_ *message.Message, err error) error { got = err; return err }
		j.join("a", "k")
		j.expect("failed a", "nack a")
		if !errors.Is(got, ErrClosed) {
			t.Errorf("the message failed with %v", got)
		}
	})
}

func TestJoin_a_batch_is_due_when_its_subscriber_hurries(t *testing.T) {
	for name, hurry := range map[string]func(j *joins){
		"before the message joins": func(j *joins) { close(j.hurry); j.join("a", "k") },
		"while it waits":           func(j *joins) { j.join("a", "k"); synctest.Wait(); close(j.hurry) },
		"by another channel": func(j *joins) {
			j.join("a", "k")
			synctest.Wait()
			close(j.hurry)
			j.expect("succeeded a", "ack all: a")
			j.said = nil
			j.hurry = make(chan struct{})
			j.join("a", "k")
			synctest.Wait()
			close(j.hurry)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				j := newJoins(t, Batcher{Size: 100, Timeout: time.Hour, Handler: succeeds})
				hurry(j)
				j.expect("succeeded a", "ack all: a")
				equal(t, "waited", time.Since(began), 0)
				equal(t, "close", j.b.Close(), nil)
			})
		})
	}
}

func TestJoin_a_parked_message_hurries_with_its_subscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mustNew(t, Config{Batchers: map[string]Batcher{
			"default": {Size: 100, Timeout: time.Hour, Handler: succeeds},
			"other":   {Size: 100, Timeout: 2 * time.Hour, Handler: succeeds},
		}}, nil)
		j := joinsTo(t, b)
		j.join("a", "k")
		j.hurry = make(chan struct{}) // of another channel of the subscriber
		d := &joinable{id: "b", key: "k"}
		ctx, cancel := context.WithCancelCause(context.Background())
		d.j, d.hurry, d.end = j, j.hurry, cancel
		msg := msgOf("b")
		msg.SetContext(ack.NewContext(ctx, d))
		SetBatcher(msg, "other")
		if joined, err := b.Join(msg, j.deferral, nil); !joined {
			t.Fatal(err)
		}
		equal(t, "parked", len(b.parked), 1)
		close(j.hurry)
		j.expect("succeeded a", "ack all: a", "succeeded b", "ack all: b")
		equal(t, "close", b.Close(), nil)
	})
}

func TestJoin_messages_that_wait_in_an_outage_are_given_back_when_their_subscriber_drains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoins(t, Batcher{Size: 2, Timeout: time.Second, Isolate: true, Probe: true, Handler: func(context.Context, *Batch) error { return ack.Transient(errBoom) }})
		j.join("a", "k")
		j.join("b", "l")
		synctest.Wait() // the batcher is down
		j.said = nil
		close(j.hurry) // for another reason than the drain, and before there is anything to hurry
		j.hurry = make(chan struct{})
		j.join("c", "m")
		j.join("d", "n")
		j.expect()
		close(j.draining)
		j.expect("failed c", "nack c", "failed d", "nack d")
		equal(t, "close", j.b.Close(), nil)
	})
}

func TestJoin_waits_like_Middleware_if_the_delivery_cannot_be_deferred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoins(t, Batcher{Size: 100, Timeout: time.Second, Handler: func(context.Context, *Batch) error { return errBoom }})
		began := time.Now()
		joined, err := j.b.Join(msgOf("a"), j.deferral, nil)
		if joined || !errors.Is(err, errBoom) || time.Since(began) != time.Second {
			t.Errorf("joined: %v, %v after %v", joined, err, time.Since(began))
		}
		j.expect()
		equal(t, "close", j.b.Close(), nil)
	})
}

func TestJoin_a_key_that_always_has_messages_keeps_none_that_are_settled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoins(t, Batcher{Size: 2, Timeout: time.Hour, Handler: func(context.Context, *Batch) error { time.Sleep(time.Second); return nil }})
		latest := func() (at *turn, links turn) { // a copy of its links, since batches change them
			synctest.Wait()
			j.b.mu.Lock()
			defer j.b.mu.Unlock()
			at = j.b.latest[j.b.hash("k")]
			return at, turn{prev: at.prev, next: at.next, row: at.row}
		}
		head := func(r *row) *turn {
			j.b.mu.Lock()
			defer j.b.mu.Unlock()
			return r.head
		}
		j.join("a", "k")
		for range 10 {
			j.join("b", "k")
			before, _ := latest()
			j.join("c", "k") // while the batch of the two before runs
			if _, links := latest(); links.prev != before {
				t.Fatal("the key has no messages before the last one")
			}
			time.Sleep(time.Second)
			last, links := latest()
			if links.prev != nil || links.next != nil || head(links.row) != last {
				t.Fatalf("the turn of the only message is linked to others: %+v", links)
			}
			j.b.mu.Lock()
			if before.prev != nil || before.next != nil {
				t.Error("a settled turn is linked to others")
			}
			j.b.mu.Unlock()
		}
		j.join("d", "k")
		equal(t, "close", j.b.Close(), nil)
	})
}
