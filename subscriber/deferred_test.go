package subscriber

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/ots"
)

// deferring is a channel whose handler defers all messages, and what the test knows of them.
type deferring struct {
	run   *channelRun
	ended chan struct{}

	mu    sync.Mutex
	held  map[string]*heldMessage // by primary key
	acked []string                // in the order of OnAck
}

// heldMessage is a deferred message, and listens for its end.
type heldMessage struct {
	ack.Deferrer
	msg   *message.Message
	ended chan struct{}
}

func (h *heldMessage) DeliveryEnded() { close(h.ended) }

func (h *heldMessage) hasEnded() bool { return closed(h.ended) }

// deferRecords delivers one record for each number in keys; equal numbers are records of one key.
// The handler returns result after it has deferred its message.
func deferRecords(t *testing.T, cfg Config, result error, keys ...int64) *deferring {
	t.Helper()
	d := &deferring{held: make(map[string]*heldMessage), ended: make(chan struct{})}
	cfg.Unmarshaler = None{}
	cfg.OnAck = func(a Acked) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.acked = append(d.acked, "acked")
	}
	s := sessionOf(subscriptionOf(new(fakeService), cfg, func(msg *message.Message) error {
		r, _ := ots.RecordFromMessage(msg)
		delivery, _ := ack.FromContext(msg.Context())
		h := &heldMessage{Deferrer: delivery.(ack.Deferrer), msg: msg, ended: make(chan struct{})}
		if !h.Defer(h) {
			t.Errorf("the message of %s cannot be deferred", r.KeyText())
		}
		d.mu.Lock()
		name := r.PrimaryKey[0].Value.String()
		for d.held[name] != nil {
			name += "'"
		}
		d.held[name] = h
		d.mu.Unlock()
		h.HandOff()
		return result
	}))
	d.run = openRun(s)
	wire := make([]*protocol.Record, len(keys))
	for i, key := range keys {
		wire[i] = someRecord(key)
	}
	p := mustDecode(t, wirePage("t", nil, wire...))
	d.run.tracker.Add(ledger.Page{Token: "t", Keys: p.keys, Bytes: 1, Value: p})
	leader := d.run.deliverer.(*toHandler)
	leader.start(func() { close(d.ended) })
	synctest.Wait()
	return d
}

// end ends the channel, and waits for all that belongs to it.
func (d *deferring) end() {
	d.run.fence(errSessionOver)
	<-d.ended
	d.run.deliverer.over()
	d.run.taker.dest.handlers.Wait()
}

func (d *deferring) of(t *testing.T, name string) *heldMessage {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.held[name]
	if h == nil {
		t.Fatalf("no message %q was delivered, only %d others", name, len(d.held))
	}
	return h
}

func TestDefer_a_message_has_the_outcome_of_Settle_and_not_that_of_its_handler(t *testing.T) {
	for name, result := range map[string]error{"nil": nil, "an error": errors.New("boom")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := deferRecords(t, Config{}, result, 1, 2)
				time.Sleep(time.Second)
				if st := d.run.tracker.Stats(); st.Live != 2 {
					t.Fatalf("a message was settled when its handler returned: %+v", st)
				}
				one, two := d.of(t, "1"), d.of(t, "2")
				one.Settle(nil)
				two.Settle(errors.New("failed later"))
				if !closed(one.msg.Acked()) || !closed(two.msg.Nacked()) {
					t.Error("the messages do not show their outcomes")
				}
				time.Sleep(time.Minute)
				if len(d.acked) != 1 || d.of(t, "2'").msg == two.msg {
					t.Errorf("%d messages were acked", len(d.acked))
				}
				if one.hasEnded() || two.hasEnded() {
					t.Error("a settlement counts as an end")
				}
				d.end()
			})
		})
	}
}

func TestDefer_after_the_leader_was_replaced_does_not_make_it_the_leader_again(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen atomic.Int64 // handlers get goroutines when the leader is replaced
		s := sessionOf(subscriptionOf(new(fakeService), Config{Unmarshaler: None{}}, func(msg *message.Message) error {
			delivery, _ := ack.FromContext(msg.Context())
			if r, _ := ots.RecordFromMessage(msg); r.PrimaryKey[0].Value.String() == "7" {
				time.Sleep(10 * monitorInterval)
			} else {
				seen.Add(1)
			}
			d := delivery.(ack.Deferrer)
			if !d.Defer(&heldMessage{ended: make(chan struct{})}) {
				t.Error("cannot be deferred")
			}
			d.Settle(nil)
			return nil
		}))
		r := openRun(s)
		wire := make([]*protocol.Record, 100)
		for i := range wire {
			wire[i] = someRecord(int64(i))
		}
		p := mustDecode(t, wirePage("t", nil, wire...))
		r.tracker.Add(ledger.Page{Token: "t", Keys: p.keys, Bytes: 1, Value: p})
		leader := r.deliverer.(*toHandler)
		leader.pace.aside = 0
		ended := make(chan struct{})
		leader.start(func() { close(ended) })
		time.Sleep(time.Second)
		r.fence(errSessionOver)
		<-ended // a second leader would end it a second time
		r.taker.dest.handlers.Wait()
		if seen.Load() != 99 {
			t.Errorf("%d messages were handled beside the slow one", seen.Load())
		}
	})
}

func TestDefer_refuses_messages_that_nothing_can_settle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deferRecords(t, Config{}, nil, 1)
		one := d.of(t, "1")
		if one.Defer(one) {
			t.Error("a message can be deferred twice")
		}
		d.end()
		if fresh := (&delivery{scope: d.run.taker.scope}); !fresh.Defer(one) {
			t.Error("a message that is alive cannot be deferred")
		}
		over := &delivery{scope: d.run.taker.scope}
		over.cancel(ErrChannelLost)
		if over.Defer(one) {
			t.Error("a message that has ended can be deferred")
		}
		if output := (&delivery{scope: &scope{}}); output.Defer(one) {
			t.Error("a message of the output can be deferred: its ack would not be seen")
		}
	})
}

func TestDefer_listeners_hear_that_a_message_was_called_back_before_CallBack_returns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deferRecords(t, Config{}, nil, 1, 1, 1, 2)
		one, second, third, other := d.of(t, "1"), d.of(t, "1'"), d.of(t, "1''"), d.of(t, "2")
		one.CallBack(errors.New("boom"))
		if !second.hasEnded() || !third.hasEnded() {
			t.Error("CallBack returned before the listeners of later messages were called")
		}
		if one.hasEnded() || other.hasEnded() {
			t.Error("a message has ended that was not called back")
		}
		second.Settle(nil)
		third.Settle(nil)
		other.Settle(nil)
		one.Settle(errors.New("boom"))
		time.Sleep(time.Minute)
		if len(d.acked) != 1 {
			t.Errorf("%d messages were acked, want the one that was not called back", len(d.acked))
		}
		d.of(t, "1'''").Settle(nil)
		d.end()
	})
}

func TestDefer_listeners_hear_that_the_channel_is_lost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deferRecords(t, Config{}, nil, 1, 2)
		one, two := d.of(t, "1"), d.of(t, "2")
		d.run.fence(ErrChannelLost)
		if !one.hasEnded() || !two.hasEnded() {
			t.Error("fence returned before the listeners were called")
		}
		one.Settle(nil)
		if len(d.acked) != 0 {
			t.Error("an ack counts although the channel is lost")
		}
		d.end()
		if n := d.run.taker.dest.strays.Load(); n != 1 {
			t.Errorf("%d strays are counted, want the message that is not settled", n)
		}
		two.Settle(nil)
		if n := d.run.taker.dest.strays.Load(); n != 0 {
			t.Errorf("%d strays are counted when all are settled", n)
		}
	})
}

func TestDefer_a_drain_waits_until_deferred_messages_are_settled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deferRecords(t, Config{}, nil, 1, 2)
		d.run.drain()
		d.run.tracker.Drain()
		d.of(t, "1").Settle(nil)
		if closed(d.run.tracker.Drained()) {
			t.Error("the channel is drained although a message is not settled")
		}
		d.of(t, "2").Settle(nil)
		if !closed(d.run.tracker.Drained()) {
			t.Error("the channel is not drained although all messages are settled")
		}
		d.end()
	})
}

func TestAckAll_acks_in_order_and_fails_those_that_their_handler_has_nacked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deferRecords(t, Config{}, nil, 1, 2, 2, 3)
		one, two, second, three := d.of(t, "1"), d.of(t, "2"), d.of(t, "2'"), d.of(t, "3")
		two.msg.Nack()
		one.AckAll([]ack.Deferrer{one.Deferrer, two.Deferrer, second.Deferrer, three.Deferrer})
		if !second.hasEnded() {
			t.Error("the message behind one that failed was not called back")
		}
		if len(d.acked) != 2 {
			t.Errorf("%d messages were acked, want those of 1 and 3", len(d.acked))
		}
		time.Sleep(time.Minute)
		d.of(t, "2''").Settle(nil)
		d.of(t, "2'''").Settle(nil)
		if _, _, ok := d.run.tracker.Committable(); !ok {
			t.Error("the page cannot be committed although all is acked")
		}
		d.end()
	})
}

func TestAckAll_takes_deliveries_of_several_channels_and_of_others(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := deferRecords(t, Config{}, nil, 1, 2), deferRecords(t, Config{}, nil, 1, 2)
		foreign := &foreignDelivery{}
		var all []ack.Deferrer
		for _, name := range []string{"1", "2"} {
			all = append(all, a.of(t, name).Deferrer, foreign, b.of(t, name).Deferrer)
		}
		all[0].BeginAll(all)
		all[0].AckAll(all)
		if len(a.acked) != 2 || len(b.acked) != 2 || !slices.Equal(foreign.calls, []string{"Begin", "Begin", "Settle <nil>", "Settle <nil>"}) {
			t.Errorf("%d and %d messages were acked, and the other deliveries were told %v", len(a.acked), len(b.acked), foreign.calls)
		}
		a.end()
		b.end()
	})
}

// foreignDelivery is an ack.Deferrer that is not this package's.
type foreignDelivery struct {
	ack.Deferrer
	calls []string
}

func (f *foreignDelivery) Begin()           { f.calls = append(f.calls, "Begin") }
func (f *foreignDelivery) Settle(err error) { f.calls = append(f.calls, fmt.Sprint("Settle ", err)) }

// expiring is the client of one channel. As a session it ends once.
type expiring struct {
	run  *channelRun
	once *sync.Once
}

func (e expiring) expire()    { e.once.Do(func() { e.run.fence(ErrChannelLost) }) }
func (e expiring) heartbeat() {}

func TestL4_batches_of_deferred_messages_do_not_begin_after_the_lease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{"default": {
			Timeout: time.Second,
			Handler: func(_ context.Context, b *batching.Batch) error {
				t.Errorf("a batch of %d began", len(b.Messages))
				return nil
			},
		}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		d := &batching.Deferral{
			Process:   func(*message.Message) ([]*message.Message, error) { return nil, nil },
			Succeeded: func(messages []*message.Message) { t.Errorf("%d messages succeeded", len(messages)) },
			Failed:    func(_ *message.Message, _ any, err error) error { return err },
		}
		s := sessionOf(subscriptionOf(new(fakeService), Config{Unmarshaler: None{}}, func(msg *message.Message) error {
			if joined, err := b.Join(msg, d, nil); !joined || err != nil {
				t.Errorf("did not join: %v", err)
			}
			return nil
		}))
		r := openRun(s)
		p := mustDecode(t, wirePage("t", nil, someRecord(1), someRecord(2), someRecord(2)))
		r.tracker.Add(ledger.Page{Token: "t", Keys: p.keys, Bytes: 1, Value: p})
		ended := make(chan struct{})
		r.deliverer.start(func() { close(ended) })
		synctest.Wait()
		// As after a suspension of the process: the clock is beyond the lease, and no timer has fired.
		r.client = expiring{r, new(sync.Once)}
		r.lease.renew(time.Now().Add(-time.Minute), time.Second)
		time.Sleep(2 * time.Second)
		<-ended
		r.deliverer.over()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if n := r.taker.dest.strays.Load(); n != 0 {
			t.Errorf("%d messages are not settled", n)
		}
	})
}

func TestL4_no_batch_of_deferred_messages_begins_after_the_lease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deferRecords(t, Config{}, nil, 1, 2)
		one, two := d.of(t, "1"), d.of(t, "2")
		d.run.client = expiring{d.run, new(sync.Once)}
		// As after a suspension of the process: the clock is beyond the lease, and no timer has fired.
		d.run.lease.renew(time.Now().Add(-time.Minute), time.Second)
		one.BeginAll([]ack.Deferrer{one.Deferrer, two.Deferrer})
		if !one.hasEnded() || !two.hasEnded() {
			t.Error("BeginAll returned and the messages are alive, although another client may own the channel")
		}
		d.end()
	})
}
