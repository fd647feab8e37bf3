package subscriber

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
)

// sweptRun is a channel with so many records, one for each key, and a sweeper. Nothing
// delivers them.
func sweptRun(t *testing.T, records int) *channelRun {
	s := idleSession()
	s.sub.output = make(chan *message.Message)
	s.sub.sweeper.wake = make(chan struct{}, 1)
	sweeping, end := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); s.sub.sweep(sweeping) }()
	r := newChannelRun(s, &conn{session: s, id: "c1"})
	var body []byte
	for i := range records {
		body = append(body, wirePage("", nil, someRecord(int64(i)))...)
	}
	body = append(body, wirePage("t", nil)...)
	p := mustDecode(t, body)
	r.tracker.Add(ledger.Page{Token: "t", Keys: p.keys, Bytes: 1, Value: p})
	t.Cleanup(func() {
		r.cancel(errSessionOver)
		r.outcomes.close()
		r.outcomes.watchers.Wait()
		end()
		<-ended
	})
	return r
}

// delivering starts the deliverer, and returns what waits for its end.
func (r *channelRun) delivering() (await func()) {
	ended := make(chan struct{})
	go r.deliver(func() { close(ended) })
	return func() { <-ended }
}

func (r *channelRun) inFlight() int { return r.tracker.Stats().InFlight }

func TestOutcome_is_seen_while_nobody_takes_the_next_message(t *testing.T) {
	for name, outcome := range map[string]func(*message.Message) bool{
		"ack":  (*message.Message).Ack,
		"nack": (*message.Message).Nack,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := sweptRun(t, 2)
				await := r.delivering()
				msg := <-r.sub.output
				outcome(msg)
				time.Sleep(sweepInterval)
				synctest.Wait()
				want := ledger.Stats{InFlight: 1, Live: 1} // the other one, which is offered
				if name == "nack" {
					want = ledger.Stats{InFlight: 2, Live: 1, Retrying: 1}
				}
				got := r.tracker.Stats()
				if got.InFlight != want.InFlight || got.Live != want.Live || got.Retrying != want.Retrying {
					t.Errorf("after one look: %d in flight, %d live, %d retrying; want %d, %d, %d", got.InFlight, got.Live, got.Retrying, want.InFlight, want.Live, want.Retrying)
				}
				r.drain()
				await()
			})
		})
	}
}

func TestOutcome_is_seen_at_once_when_nothing_else_can_be_delivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := sweptRun(t, 2)
		await := r.delivering()
		first, second := <-r.sub.output, <-r.sub.output
		synctest.Wait()
		second.Ack()
		synctest.Wait()
		if n := r.inFlight(); n != 1 {
			t.Errorf("%d messages are in flight after the ack of the second of two", n)
		}
		first.Ack()
		synctest.Wait()
		if n := r.inFlight(); n != 0 {
			t.Errorf("%d messages are in flight after both acks", n)
		}
		r.drain()
		await()
	})
}

func TestOutcome_of_a_quick_handler_is_seen_while_the_leader_is_in_a_slow_one(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := sweptRun(t, 2)
		release := make(chan struct{})
		calls := 0
		r.sub.handler = func(*message.Message) error {
			if calls++; calls == 2 {
				<-release
			}
			return nil
		}
		r.leader.quick.Store(quickInARow)
		ended := make(chan struct{})
		r.startLeader(func() { close(ended) })
		time.Sleep(2 * sweepInterval)
		synctest.Wait()
		if n := r.inFlight(); n != 1 {
			t.Errorf("%d messages are in flight while one handler runs", n)
		}
		close(release)
		synctest.Wait()
		if n := r.inFlight(); n != 0 {
			t.Errorf("%d messages are in flight after both acks", n)
		}
		r.drain()
		<-ended
	})
}

// sentMessages makes messages as if they had been taken from the output.
func sentMessages(t *testing.T, r *channelRun, n int) []*message.Message {
	var list []*message.Message
	for range n {
		a, _, ok := r.tracker.Next(time.Now())
		if !ok {
			t.Fatal("nothing to deliver")
		}
		d, msg := r.messageOf(a, time.Now())
		if !r.bind(d) {
			t.Fatal("the delivery is not bound")
		}
		r.outcomes.note(d, msg)
		list = append(list, msg)
	}
	return list
}

func TestLook_settles_acks_and_leaves_the_others_for_the_next(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := sweptRun(t, 3)
		messages := sentMessages(t, r, 3)
		messages[0].Ack()
		messages[2].Ack()
		s := &settler{run: r}
		if !s.look(passing) || s.look(passing) {
			t.Error("a look does not tell whether there was an ack")
		}
		if n := r.inFlight(); n != 1 || len(r.outcomes.sent) != 1 || r.outcomes.sent[0].msg != messages[1] {
			t.Errorf("%d in flight, %d to look at; want the second message alone", n, len(r.outcomes.sent))
		}
		if err := messages[0].Context().Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("the context of an acked message is not over: %v", err)
		}
		if err := messages[1].Context().Err(); err != nil {
			t.Errorf("the context of a message that is not acked: %v", err)
		}
		if n := r.counts[countAcked].Load(); n != 2 {
			t.Errorf("%d acks were counted", n)
		}
	})
}

func TestLook_gives_a_watcher_to_messages_that_take_long(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := sweptRun(t, lookAtMost+5)
		s := &settler{run: r}
		messages := sentMessages(t, r, 2)
		s.look(sweep)
		messages = append(messages, sentMessages(t, r, 1)...)
		s.look(passing) // is no look by time
		if n := len(r.outcomes.sent); n != 3 {
			t.Errorf("%d messages are looked at after their first sweep, want 3", n)
		}
		s.look(sweep)
		if n := len(r.outcomes.sent); n != 1 {
			t.Errorf("%d messages are looked at, want the one that has seen a single sweep", n)
		}
		messages = append(messages, sentMessages(t, r, lookAtMost+1)...)
		s.look(passing)
		if n := len(r.outcomes.sent); n != lookAtMost {
			t.Errorf("%d messages are looked at, want no more than %d", n, lookAtMost)
		}
		s.look(last)
		if n := len(r.outcomes.sent); n != 0 {
			t.Errorf("%d messages are looked at after the last look", n)
		}
		for _, msg := range messages {
			msg.Ack()
		}
		synctest.Wait()
		if n := r.inFlight(); n != 1 { // the record that was not delivered
			t.Errorf("%d messages are in flight after all acks", n-1)
		}
	})
}

func TestLook_begins_no_watcher_once_the_channel_is_over(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := sweptRun(t, 2)
		sentMessages(t, r, 1)
		r.outcomes.close()
		r.outcomes.watchers.Wait() // an Add after this is a race
		sentMessages(t, r, 1)
		(&settler{run: r}).look(last)
		if n := len(r.outcomes.sent); n != 0 {
			t.Errorf("%d messages are kept", n)
		}
	})
}

// TestOutcomes_of_a_channel_that_is_over_are_forgotten: a handler that returns after
// that changes nothing, and keeps nothing in memory.
func TestOutcomes_of_a_channel_that_is_over_are_forgotten(t *testing.T) {
	var o outcomes
	d, msg := new(delivery), message.NewMessage("", nil)
	o.note(d, msg)
	o.noteAcked(d)
	if o.empty() {
		t.Fatal("nothing was noted")
	}
	o.close()
	for range lookEvery {
		if o.note(d, msg) || o.noteAcked(d) {
			t.Error("it is time to look")
		}
	}
	if !o.empty() {
		t.Error("something is kept")
	}
}
