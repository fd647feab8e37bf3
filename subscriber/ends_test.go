package subscriber

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
)

// TestL3_later_records_of_a_key_end_first: records of one key wait in batches, one
// behind the other. When all of them are taken away, the first must not be the
// first to hear of it: its batch would be done, and the next one would be handled
// before it had heard, too.
func TestL3_later_records_of_a_key_end_first(t *testing.T) {
	for name, take := range map[string]func(r *channelRun, first *delivery){
		"the channel is lost":  func(r *channelRun, _ *delivery) { r.fence(ErrChannelLost) },
		"one before is nacked": func(r *channelRun, first *delivery) { r.taker.nack(first.attempt, errNacked) },
		"one before failed":    func(_ *channelRun, first *delivery) { first.CallBack(errors.New("failed")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := sessionOf(subscriptionOf(new(fakeService), Config{}, nil))
				r := openRun(s)
				defer r.cancel(errSessionOver)
				var wire []*protocol.Record
				for range 4 {
					wire = append(wire, someRecord(1))
				}
				p := mustDecode(t, wirePage("t", nil, wire...))
				r.tracker.Add(ledger.Page{Token: "t", Keys: p.keys, Bytes: 1, Value: p})
				var first *delivery
				var ended []int
				for i := range 4 {
					a, _, _ := r.tracker.Next(time.Now())
					d := &delivery{scope: r.taker.scope, attempt: a}
					d.inner, d.end = context.Background(), func(error) { ended = append(ended, i) }
					if !r.taker.bind(d) {
						t.Fatal("not bound")
					}
					r.tracker.HandOff(a)
					if i == 0 {
						first = d
					}
				}
				take(r, first)
				if len(ended) < 3 || !slices.IsSortedFunc(ended, func(a, b int) int { return b - a }) {
					t.Errorf("contexts ended in the order %v, want the last record's first", ended)
				}
			})
		})
	}
}

// TestL3_call_back_waits_for_what_is_being_taken_back: two goroutines may take back the messages of
// a key at the same time: a batch with a failed message, and the nack of an earlier message or the loss
// of the channel. The batch must not continue with a message whose context is about to end.
func TestL3_call_back_waits_for_what_is_being_taken_back(t *testing.T) {
	for name, take := range map[string]func(r *channelRun, first *delivery){
		"the channel is lost":  func(r *channelRun, _ *delivery) { r.fence(ErrChannelLost) },
		"one before is nacked": func(r *channelRun, first *delivery) { r.taker.nack(first.attempt, errNacked) },
		"one before failed":    func(_ *channelRun, first *delivery) { first.CallBack(errors.New("failed")) },
	} {
		t.Run(name, func(t *testing.T) {
			// No bubble: its clock stands still while a goroutine waits for a lock.
			s := sessionOf(subscriptionOf(new(fakeService), Config{}, nil))
			r := openRun(s)
			defer r.cancel(errSessionOver)
			var wire []*protocol.Record
			for range 4 {
				wire = append(wire, someRecord(1))
			}
			p := mustDecode(t, wirePage("t", nil, wire...))
			r.tracker.Add(ledger.Page{Token: "t", Keys: p.keys, Bytes: 1, Value: p})
			var all [4]*delivery
			ending, goOn := make(chan struct{}), make(chan struct{})
			for i := range all {
				a, _, _ := r.tracker.Next(time.Now())
				d := &delivery{scope: r.taker.scope, attempt: a}
				d.inner, d.end = context.Background(), func(error) {}
				if i == 3 { // ends first
					d.end = func(error) { close(ending); <-goOn }
				}
				if !r.taker.bind(d) {
					t.Fatal("not bound")
				}
				r.tracker.HandOff(a)
				all[i] = d
			}
			go take(r, all[0])
			<-ending
			calledBack := make(chan bool, 1) // whether the third message has ended by then
			go func() {
				all[1].CallBack(errors.New("failed as well"))
				calledBack <- all[2].over()
			}()
			select {
			case <-calledBack:
				t.Error("it did not wait")
				calledBack <- true
			case <-time.After(50 * time.Millisecond): // a fault is found sooner
			}
			close(goOn)
			if !<-calledBack {
				t.Error("the third message has not ended when the second one's failure has called it back")
			}
		})
	}
}
