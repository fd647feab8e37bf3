package subscriber

import (
	"context"
	"runtime"
	"strings"
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

// joiner has a Batching and a handler whose messages join it.
func joiner(t *testing.T, c batching.Batcher) (*batching.Batching, *batching.Deferral) {
	t.Helper()
	b, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{batching.DefaultBatcher: c}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b, &batching.Deferral{
		Process:   func(*message.Message) ([]*message.Message, error) { return nil, nil },
		Succeeded: func([]*message.Message) {},
		Failed:    func(_ *message.Message, _ any, err error) error { return err },
	}
}

func addRecords(t *testing.T, r *channelRun, keys int) {
	t.Helper()
	wire := make([]*protocol.Record, keys)
	for i := range wire {
		wire[i] = someRecord(int64(i))
	}
	p := mustDecode(t, wirePage("t", nil, wire...))
	r.tracker.Add(ledger.Page{Token: "t", Keys: p.keys, Bytes: 1, Value: p})
}

// Each channel has its own Draining, which is closed only when the channel drains: not when
// it is fenced, nor when it has delivered its finish token.
func TestJoin_leaves_no_goroutine_behind_for_channels_that_are_over(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var handled atomic.Int64
		b, d := joiner(t, batching.Batcher{Size: 10, Timeout: time.Millisecond, Handler: func(_ context.Context, b *batching.Batch) error {
			handled.Add(int64(len(b.Messages)))
			return nil
		}})
		s := sessionOf(subscriptionOf(new(fakeService), Config{Unmarshaler: None{}}, func(msg *message.Message) error {
			_, err := b.Join(msg, d, nil)
			return err
		}))
		const channels = 30
		for range channels {
			r := openRun(s)
			addRecords(t, r, 10)
			ended := make(chan struct{})
			r.deliverer.start(func() { close(ended) })
			time.Sleep(time.Second)
			if n := r.tracker.Stats().Live; n != 0 {
				t.Fatalf("%d messages are not settled", n)
			}
			r.fence(ErrChannelLost) // what main does at the end of a finished channel, too
			<-ended
			r.deliverer.over()
			r.outcomes.close()
			r.lane.Close()
			r.taker.dest.handlers.Wait()
		}
		time.Sleep(time.Hour)
		buf := make([]byte, 16<<20)
		n := strings.Count(string(buf[:runtime.Stack(buf, true)]), "created by github.com/watermill-ots/watermill-ots/batching.")
		n += strings.Count(string(buf[:runtime.Stack(buf, true)]), "batching.(*Batching).listen")
		if n > 2 {
			t.Errorf("%d traces of batching's goroutines an hour after %d channels and all %d messages have ended", n, channels, handled.Load())
		}
		b.Close()
	})
}

// The channel is lost while a batch runs, and opened again by the same client. Its records
// are redelivered and wait for the batch of their former deliveries.
func TestJoin_records_of_a_channel_that_was_lost_and_opened_again_during_a_batch_are_handled(t *testing.T) {
	const keys = 500
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			var calls atomic.Int64
			b, d := joiner(t, batching.Batcher{Size: keys, Timeout: time.Second, Handler: func(_ context.Context, batch *batching.Batch) error {
				if calls.Add(1) == 1 {
					<-release
				}
				return nil
			}})
			s := sessionOf(subscriptionOf(new(fakeService), Config{Unmarshaler: None{}}, func(msg *message.Message) error {
				_, err := b.Join(msg, d, nil)
				return err
			}))
			first := openRun(s)
			addRecords(t, first, keys)
			firstEnded, secondEnded := make(chan struct{}), make(chan struct{})
			first.deliverer.start(func() { close(firstEnded) })
			time.Sleep(2 * time.Second) // the batch runs
			first.fence(ErrChannelLost)
			<-firstEnded
			first.deliverer.over()
			first.lane.Close()
			second := openRun(s)
			addRecords(t, second, keys)
			second.deliverer.start(func() { close(secondEnded) })
			time.Sleep(time.Second)
			close(release)
			time.Sleep(time.Hour)
			if n := second.tracker.Stats().Live; n != 0 {
				t.Errorf("%d of %d records are not handled, an hour after all batches are done", n, keys)
			}
			second.fence(errSessionOver)
			<-secondEnded
			second.deliverer.over()
			s.channels.dest.handlers.Wait()
			b.Close()
		})
		if t.Failed() {
			return
		}
	}
}

// handlesAll delivers 100 records to h, which the leader calls, and reports how many were handed to it.
func handlesAll(t *testing.T, h message.NoPublishHandlerFunc, release func()) (n int64) {
	t.Helper()
	var calls atomic.Int64
	s := sessionOf(subscriptionOf(new(fakeService), Config{Unmarshaler: None{}}, func(msg *message.Message) error {
		calls.Add(1)
		return h(msg)
	}))
	r := openRun(s)
	addRecords(t, r, 100)
	leader := r.deliverer.(*toHandler)
	leader.pace.aside = 0
	ended := make(chan struct{})
	leader.start(func() { close(ended) })
	time.Sleep(time.Minute)
	n = calls.Load()
	release()
	synctest.Wait()
	r.fence(errSessionOver)
	select {
	case <-ended:
	case <-time.After(time.Hour):
		t.Error("the deliverer has not ended an hour after its channel was lost: nothing leads")
		close(leader.ended)
		<-ended
	}
	r.taker.dest.handlers.Wait()
	return n
}

func isSeven(msg *message.Message) bool {
	r, _ := ots.RecordFromMessage(msg)
	return r.PrimaryKey[0].Value.String() == "7"
}

func TestDefer_a_handler_that_exits_after_it_has_deferred_does_not_end_the_delivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := handlesAll(t, func(msg *message.Message) error {
			delivery, _ := ack.FromContext(msg.Context())
			d := delivery.(ack.Deferrer)
			d.Defer(&heldMessage{ended: make(chan struct{})})
			d.Settle(nil)
			if isSeven(msg) {
				runtime.Goexit()
			}
			return nil
		}, func() {})
		if n != 100 {
			t.Errorf("%d of 100 messages were delivered", n)
		}
	})
}

// OnAck is the user's. It must not block, but nothing says that it may stop a batcher for good.
func TestJoin_an_OnAck_that_exits_does_not_keep_the_partition_of_its_batch(t *testing.T) {
	for name, joins := range map[string]bool{"Middleware": false, "Join": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls, acks atomic.Int64
				b, d := joiner(t, batching.Batcher{Size: 10, Timeout: time.Second, Concurrency: 1, Handler: func(context.Context, *batching.Batch) error {
					calls.Add(1)
					return nil
				}})
				cfg := Config{Unmarshaler: None{}, OnAck: func(Acked) {
					if acks.Add(1) == 5 {
						runtime.Goexit()
					}
				}}
				s := sessionOf(subscriptionOf(new(fakeService), cfg, func(msg *message.Message) error {
					if !joins {
						_, err := b.Middleware(d.Process)(msg)
						return err
					}
					_, err := b.Join(msg, d, nil)
					return err
				}))
				r := openRun(s)
				addRecords(t, r, 40)
				ended := make(chan struct{})
				r.deliverer.start(func() { close(ended) })
				time.Sleep(time.Hour)
				n := calls.Load()
				live := r.tracker.Stats().Live
				r.fence(errSessionOver)
				<-ended
				r.deliverer.over()
				s.channels.dest.handlers.Wait()
				b.Close()
				if strays := s.channels.dest.strays.Load(); n != 4 || live != 0 || strays != 0 {
					t.Errorf("%d of 4 batches were handled, %d messages are not settled, and %d strays are counted at the end", n, live, strays)
				}
			})
		})
	}
}
