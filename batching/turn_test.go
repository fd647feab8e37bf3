package batching

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/internal/testsize"
)

// slowly is a middleware outside of the batches: it takes a while, and fails the
// messages that fails names.
func slowly(out *[]string, fails func(uuid string) bool) message.HandlerMiddleware {
	var mu sync.Mutex
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(msg *message.Message) ([]*message.Message, error) {
			produced, err := h(msg)
			if err != nil || len(produced) == 0 {
				return produced, err
			}
			time.Sleep(time.Second)
			if fails != nil && fails(msg.UUID) {
				return nil, errBoom
			}
			mu.Lock()
			defer mu.Unlock()
			*out = append(*out, msg.UUID)
			return produced, nil
		}
	}
}

func TestTurn(t *testing.T) {
	t.Run("handlers_of_a_key_return_in_order_each_when_the_previous_one_is_settled", func(t *testing.T) {
		for _, delivered := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				var out []string
				cfg := one(Batcher{Size: 10, Timeout: time.Minute, Handler: succeed})
				if !delivered {
					cfg.OrderingKey = firstLetter
				}
				b := mustNew(t, cfg, nil)
				h := slowly(&out, nil)(b.Middleware(produce))
				var msgs []*message.Message
				for i := range 10 {
					msgs = append(msgs, keyed(delivered, fmt.Sprint("k", i)).msg)
				}
				p := sendAllMsgs(h, msgs...)
				for i := range p {
					<-p[i].done
					equal(t, "took", p[i].took, time.Duration(i+1)*time.Second)
				}
				equal(t, "order", strings.Join(out, " "), "k0 k1 k2 k3 k4 k5 k6 k7 k8 k9")
				equal(t, "turns", forgotten(b), 0)
			})
		}
	})

	t.Run("also_across_batches", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var out []string
			b := mustNew(t, Config{
				Defaults: Batcher{Size: 1, Timeout: time.Minute, Handler: succeed},
				Batchers: map[string]Batcher{"a": {}, "b": {}},
			}, nil)
			h := slowly(&out, nil)(b.Middleware(func(msg *message.Message) ([]*message.Message, error) {
				_, _ = byName(msg)
				return produce(msg)
			}))
			k0, k1, k2 := newDelivered("k0>a", "k"), newDelivered("k1>b", "k"), newDelivered("k2>a", "k")
			sendAllMsgs(h, k0.msg, k1.msg, k2.msg)
			time.Sleep(time.Minute)
			synctest.Wait()
			equal(t, "order", strings.Join(out, " "), "k0>a k1>b k2>a")
		})
	})

	t.Run("keys_do_not_wait_for_each_other", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var out []string
			b := mustNew(t, one(Batcher{Size: 4, Timeout: time.Minute, Handler: succeed}), nil)
			p := sendAllMsgs(slowly(&out, nil)(b.Middleware(produce)),
				newDelivered("k0", "k").msg, newDelivered("j0", "j").msg, newDelivered("k1", "k").msg, newDelivered("-0", "").msg)
			for i, want := range []time.Duration{1, 1, 2, 1} {
				<-p[i].done
				equal(t, p[i].msg.UUID, p[i].took, want*time.Second)
			}
		})
	})

	t.Run("after_a_failure_outside_the_waiting_messages_of_its_key_are_redelivered_behind_it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var out []string
			failures := 2
			s := newSource(100, time.Second)
			b := mustNew(t, one(Batcher{Size: 4, Timeout: 100 * time.Millisecond, Handler: succeed}), nil)
			stopped := s.route(slowly(&out, func(uuid string) bool {
				if uuid == "k1" && failures > 0 {
					failures--
					return true
				}
				return false
			})(b.Middleware(produce)))
			for _, id := range []string{"k0", "k1", "k2", "k3", "j0"} {
				s.add(id, id[:1])
				synctest.Wait()
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			equal(t, "of k", strings.ReplaceAll(strings.Join(out, " "), " j0", ""), "k0 k1 k2 k3")
			equal(t, "failures of k1", s.find("k1").failures, 2)
			equal(t, "failures of k2", s.find("k2").failures, 0)
			equal(t, "source", s.faultsFound(), nil)
			equal(t, "turns", forgotten(b), 0)
			s.Close()
			<-stopped
		})
	})

	t.Run("without_a_Delivery_the_waiting_messages_are_nacked", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var out []string
			cfg := one(Batcher{Size: 3, Timeout: time.Minute, Handler: succeed})
			cfg.OrderingKey = firstLetter
			b := mustNew(t, cfg, nil)
			h := slowly(&out, func(uuid string) bool { return uuid == "k0" })(b.Middleware(produce))
			p := sendAll(h, "k0", "k1", "k2")
			equal(t, "k0", errors.Is(p[0].result(), errBoom), true)
			for _, p := range p[1:] {
				equal(t, "revoked", errors.Is(p.result(), ack.ErrCalledBack), true)
				equal(t, "is a failure", IsFailure(p.err), false)
			}
			equal(t, "out", len(out), 0)
		})
	})

	t.Run("without_a_Delivery_the_messages_behind_a_failed_batch_are_nacked_unhandled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(context.Context, *Batch) error { time.Sleep(time.Second); return errBoom }
			cfg := one(Batcher{Size: 2, Timeout: time.Minute, Handler: r.handle})
			cfg.OrderingKey = firstLetter
			b := mustNew(t, cfg, nil)
			p := sendAll(b.Middleware(produce), "k0", "k1", "k2", "k3", "k4")
			equal(t, "k0", errors.Is(p[0].result(), errBoom), true)
			for _, p := range p[1:] {
				equal(t, "revoked", errors.Is(p.result(), ack.ErrCalledBack), true)
			}
			equal(t, "batches", r.batches(), "k0 k1")
			equal(t, "turns", forgotten(b), 0)
			equal(t, "Close", b.Close(), nil)
		})
	})

	t.Run("a_message_that_Retry_handles_again_does_not_wait_for_messages_behind_it", func(t *testing.T) {
		for _, delivered := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				r := newRecorder()
				var out []string
				failed := false
				cfg := one(Batcher{Size: 3, Timeout: time.Second, Handler: r.handle})
				if !delivered {
					cfg.OrderingKey = firstLetter
				}
				b := mustNew(t, cfg, nil)
				retry := middleware.Retry{MaxRetries: 3, InitialInterval: time.Second, Multiplier: 1}
				h := retry.Middleware(slowly(&out, func(uuid string) bool {
					if uuid == "k0" && !failed {
						failed = true
						return true
					}
					return false
				})(b.Middleware(produce)))
				k := []*deliveredMsg{keyed(delivered, "k0"), keyed(delivered, "k1"), keyed(delivered, "k2")}
				p := sendAllMsgs(h, k[0].msg, k[1].msg, k[2].msg)
				if delivered { // the subscriber calls them back when CallBack is called
					time.Sleep(2500 * time.Millisecond) // Retry handles k0 again after two seconds
					equal(t, "calls", k[0].events(), "HandOff,Begin,CallBack,HandOff")
					k[2].cancel(errTakenBack)
					k[1].cancel(errTakenBack)
				}
				equal(t, "k0", p[0].result(), nil)
				<-p[1].done
				<-p[2].done
				equal(t, "out", out[0], "k0")
				time.Sleep(time.Minute)
				equal(t, "first and again", strings.HasPrefix(r.batches(), "k0 k1 k2|k0"), true)
			})
		}
	})

	t.Run("a_message_that_joins_after_the_nack_of_the_previous_one_waits_until_the_subscriber_has_seen_it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := mustNew(t, one(Batcher{Size: 1, Timeout: time.Minute, Handler: succeed}), nil)
			h := b.Middleware(produce)
			k0, k1 := newDelivered("k0", "k"), newDelivered("k1", "k")
			first := send(func(msg *message.Message) ([]*message.Message, error) {
				_, err := h(msg)
				return nil, errors.Join(err, errBoom) // not published
			}, k0.msg)
			equal(t, "k0", errors.Is(first.result(), errBoom), true)
			synctest.Wait()
			second := send(h, k1.msg)
			synctest.Wait()
			equal(t, "k1 waits", second.ended(), false)
			k1.cancel(fmt.Errorf("%w: %w", ack.ErrCalledBack, errBoom))
			k0.cancel(nil)
			equal(t, "k1", second.result(), nil)
			equal(t, "k1 publishes", len(second.produced), 0)
			equal(t, "k0 again", send(h, newDelivered("k0", "k").msg).result(), nil)
		})
	})

	t.Run("a_record_that_is_redelivered_after_its_channel_was_lost_is_not_affected_by_the_end_of_the_first_attempt", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			calls := 0
			b := mustNew(t, one(Batcher{Size: 1, Timeout: time.Minute, Handler: func(context.Context, *Batch) error {
				if calls++; calls == 1 {
					time.Sleep(time.Second)
					return errBoom
				}
				return nil
			}}), nil)
			ender := func() *deliveredMsg {
				d := newDelivered("k0", "k")
				d.msg.SetContext(ack.NewContext(d.msg.Context(), endedDelivery{d, d.msg.Context()}))
				return d
			}
			lost, again := ender(), ender()
			h := b.Middleware(produce)
			first := send(h, lost.msg)
			synctest.Wait()
			lost.cancel(errFenced)
			second := send(h, again.msg) // waits for the handler
			equal(t, "the lost one", errors.Is(first.result(), errBoom), true)
			equal(t, "the redelivered message", second.result(), nil)
			equal(t, "took", second.took, time.Second)
		})
	})

	t.Run("a_message_whose_delivery_has_ended_is_not_waited_for", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := mustNew(t, one(Batcher{Size: 2, Timeout: time.Minute, Handler: succeed}), nil)
			h := b.Middleware(produce)
			k0, k1 := newDelivered("k0", "k"), newDelivered("k1", "k")
			stuck := make(chan struct{})
			go func() { // its Publish never returns
				_, _ = h(k0.msg)
				<-stuck
			}()
			synctest.Wait()
			p := send(h, k1.msg)
			time.Sleep(time.Hour)
			synctest.Wait()
			equal(t, "k1 waits", p.ended(), false)
			k0.cancel(errFenced)
			equal(t, "k1", p.result(), nil)
			close(stuck)
		})
	})

	t.Run("a_context_that_ends_before_the_settlement_is_followed_by_a_grace_period", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var out []string
			cfg := one(Batcher{Size: 3, Timeout: time.Minute, Handler: succeed})
			cfg.OrderingKey = firstLetter
			b := mustNew(t, cfg, nil)
			// Timeout cancels the contexts when it returns, before the middlewares outside are done.
			h := middleware.Timeout(time.Hour)(b.Middleware(produce))
			p := sendAllMsgs(func(msg *message.Message) ([]*message.Message, error) {
				produced, err := h(msg)
				time.Sleep(500 * time.Millisecond)
				out = append(out, msg.UUID)
				return produced, err
			}, msgOf("k0"), msgOf("k1"), msgOf("k2"))
			for _, p := range p {
				equal(t, "error", p.result(), nil)
			}
			equal(t, "order", strings.Join(out, " "), "k0 k1 k2")
		})
	})
}

// keyed returns a message whose ordering key is its first letter.
func keyed(delivered bool, uuid string) *deliveredMsg {
	d := newDelivered(uuid, uuid[:1])
	if !delivered {
		d.msg = msgOf(uuid)
	}
	return d
}

// TestOrderBehindTheRouter runs Watermill's Router, which publishes the results of
// batches with a publisher that fails at random. The messages published for a key
// must be in order, without gaps and repeats: a message is acked only when it was
// published.
func TestOrderBehindTheRouter(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	runs := 1000
	switch {
	case testing.Short():
		runs = 100
	case !testsize.Full():
		runs = 250
	}
	for run := range runs {
		synctest.Test(t, func(t *testing.T) { orderBehindTheRouter(t, rand.New(rand.NewPCG(rng.Uint64(), uint64(run)))) })
		if t.Failed() {
			t.Fatalf("in run %d", run)
		}
	}
}

func orderBehindTheRouter(t *testing.T, rng *rand.Rand) {
	const keys, records = 3, 40
	var mu sync.Mutex
	random := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n)
	}
	next := map[string]int{} // by key: the message to be published next
	pub := publisherFunc(func(_ string, msgs ...*message.Message) error {
		time.Sleep(time.Duration(random(20)) * time.Millisecond)
		if random(4) == 0 {
			return errBoom
		}
		mu.Lock()
		defer mu.Unlock()
		for _, m := range msgs {
			key, n, _ := strings.Cut(m.UUID, "-")
			if i, _ := strconv.Atoi(n); i != next[key] {
				t.Errorf("key %s: %d was published, expected %d", key, i, next[key])
			}
			next[key]++
		}
		return nil
	})
	batcher := Batcher{Size: 1 + random(8), Timeout: time.Duration(1+random(30)) * time.Millisecond, Concurrency: 1 + random(3), Isolate: random(2) == 0}
	batcher.Handler = func(_ context.Context, b *Batch) error {
		time.Sleep(time.Duration(random(10)) * time.Millisecond)
		switch random(6) {
		case 0:
			return errBoom
		case 1:
			b.Fail(b.Messages[random(len(b.Messages))], errBoom)
		}
		return nil
	}
	b := mustNew(t, Config{Defaults: batcher, Batchers: map[string]Batcher{"even": {}, "odd": {}}}, nil)
	s := newSource(1+random(40), time.Duration(1+random(20))*time.Millisecond)
	s.tells = random(2) == 0
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	equal(t, "error", err, nil)
	router.AddHandler("h", "in", s, "out", pub, func(msg *message.Message) ([]*message.Message, error) {
		SetBatcher(msg, []string{"even", "odd"}[random(2)])
		return []*message.Message{message.NewMessage(msg.UUID, nil)}, nil
	})
	router.AddMiddleware(b.Middleware)
	stopped := make(chan error, 1)
	go func() { stopped <- router.Run(t.Context()) }()
	<-router.Running()
	count := map[string]int{}
	for range records {
		key := string(rune('a' + random(keys)))
		s.add(fmt.Sprintf("%s-%d", key, count[key]), key)
		count[key]++
		time.Sleep(time.Duration(random(5)) * time.Millisecond)
	}
	for deadline := 0; s.count(acked) < records && deadline < 10_000; deadline++ {
		time.Sleep(10 * time.Millisecond)
	}
	equal(t, "acked", s.count(acked), records)
	equal(t, "source", s.faultsFound(), nil)
	equal(t, "turns", forgotten(b), 0)
	equal(t, "Router.Close", router.Close(), nil)
	equal(t, "Run", <-stopped, nil)
	equal(t, "Close", b.Close(), nil)
}
