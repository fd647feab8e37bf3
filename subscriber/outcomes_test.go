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

// scannedRun is a channel with a number of records, one for each key, and a scanner. Nothing
// delivers the records.
func scannedRun(t *testing.T, records int) *channelRun {
	s := idleSession()
	scanning, end := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); s.channels.dest.scanner.run(scanning, s.channels.outcomes) }()
	r := openRun(s)
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
	r.deliverer.start(func() { close(ended) })
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
				r := scannedRun(t, 2)
				await := r.delivering()
				msg := <-r.taker.dest.output
				outcome(msg)
				time.Sleep(scanInterval)
				synctest.Wait()
				want := ledger.Stats{InFlight: 1, Live: 1} // the other one, which is offered
				if name == "nack" {
					want = ledger.Stats{InFlight: 2, Live: 1, Retrying: 1}
				}
				got := r.tracker.Stats()
				if got.InFlight != want.InFlight || got.Live != want.Live || got.Retrying != want.Retrying {
					t.Errorf("after one check: %d in flight, %d live, %d retrying; want %d, %d, %d", got.InFlight, got.Live, got.Retrying, want.InFlight, want.Live, want.Retrying)
				}
				r.drain()
				await()
			})
		})
	}
}

func TestOutcome_is_seen_at_once_when_nothing_else_can_be_delivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := scannedRun(t, 2)
		await := r.delivering()
		first, second := <-r.taker.dest.output, <-r.taker.dest.output
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
		r := scannedRun(t, 2)
		release := make(chan struct{})
		calls := 0
		r.taker.dest.handler = func(*message.Message) error {
			if calls++; calls == 2 {
				<-release
			}
			return nil
		}
		leader := newToHandler(r.taker)
		leader.pace.aside = 0
		ended := make(chan struct{})
		leader.start(func() { close(ended) })
		time.Sleep(2 * scanInterval)
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
		d, msg := r.taker.messageOf(a, time.Now())
		if !r.taker.bind(d) {
			t.Fatal("the delivery is not bound")
		}
		r.outcomes.note(d, msg)
		list = append(list, msg)
	}
	return list
}

func TestCheck_settles_acks_and_leaves_the_others_for_the_next(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := scannedRun(t, 3)
		messages := sentMessages(t, r, 3)
		messages[0].Ack()
		messages[2].Ack()
		b := new(ackBatch)
		if !r.outcomes.check(b, passing) || r.outcomes.check(b, passing) {
			t.Error("a check does not tell whether there was an ack")
		}
		if n := r.inFlight(); n != 1 || len(r.outcomes.sent) != 1 || r.outcomes.sent[0].msg != messages[1] {
			t.Errorf("%d in flight, %d to check; want the second message alone", n, len(r.outcomes.sent))
		}
		if err := messages[0].Context().Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("the context of an acked message is not over: %v", err)
		}
		if err := messages[1].Context().Err(); err != nil {
			t.Errorf("the context of a message that is not acked: %v", err)
		}
		if n := r.metrics.counts[countAcked].Load(); n != 2 {
			t.Errorf("%d acks were counted", n)
		}
	})
}

func TestCheck_gives_a_watcher_to_messages_that_take_long(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := scannedRun(t, checkAtMost+5)
		b := new(ackBatch)
		messages := sentMessages(t, r, 2)
		r.outcomes.check(b, scanned)
		messages = append(messages, sentMessages(t, r, 1)...)
		r.outcomes.check(b, passing) // not the scanner's
		if n := len(r.outcomes.sent); n != 3 {
			t.Errorf("%d messages are checked after the scanner's first check, want 3", n)
		}
		r.outcomes.check(b, scanned)
		if n := len(r.outcomes.sent); n != 1 {
			t.Errorf("%d messages are checked, want the one that has seen one check of the scanner", n)
		}
		messages = append(messages, sentMessages(t, r, checkAtMost+1)...)
		r.outcomes.check(b, passing)
		if n := len(r.outcomes.sent); n != checkAtMost {
			t.Errorf("%d messages are checked, want no more than %d", n, checkAtMost)
		}
		r.outcomes.check(b, last)
		if n := len(r.outcomes.sent); n != 0 {
			t.Errorf("%d messages are checked after the last check", n)
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

func TestCheck_begins_no_watcher_once_the_channel_is_over(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := scannedRun(t, 2)
		sentMessages(t, r, 1)
		r.outcomes.close()
		r.outcomes.watchers.Wait() // an Add after this is a race
		sentMessages(t, r, 1)
		r.outcomes.check(new(ackBatch), last)
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
	for range checkEvery {
		if o.note(d, msg) || o.noteAcked(d) {
			t.Error("it is time to check")
		}
	}
	if !o.empty() {
		t.Error("something is kept")
	}
}
