package subscriber

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/service/servicetest"
	"github.com/watermill-ots/watermill-ots/ots"
)

// endless makes f's channel one page after the other, of one record each, five a second.
func endless(f *fakeService) *fakeService {
	return f.on("readrecords", func(body []byte) reply {
		var req protocol.ReadRecordsRequest
		if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&req)); err != nil {
			panic(err)
		}
		n := 0
		if _, err := fmt.Sscanf(req.GetToken(), "t%d", &n); err != nil {
			panic(err)
		}
		r := pageReply(fmt.Sprintf("t%d", n+1), []*protocol.Record{someRecord(int64(n))})
		r.after = 200 * ms
		return r
	})
}

func TestLease_ends_by_the_clock_that_is_farther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLease()
		if time.Sleep(time.Hour); l.over(time.Now()) {
			t.Error("over before there was one")
		}
		began := time.Now()
		l.renew(began, time.Minute)
		for after, over := range map[time.Duration]bool{time.Minute - 1: false, time.Minute: true, time.Hour: true} {
			if l.over(began.Add(after)) != over {
				t.Errorf("over after %v: %v", after, !over)
			}
		}
		l.wall.Store(began.UnixNano()) // as if the wall clock had gone on alone: the machine slept
		if !l.over(began) {
			t.Error("not over although the wall clock says so")
		}
		l.renew(began, time.Minute)
		l.mono.Store(1) // as if the wall clock had been set back
		if !l.over(began) {
			t.Error("not over although the monotonic clock says so")
		}
	})
}

func TestLease_wait_ends_at_the_end_of_the_last_renewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLease()
		start := time.Now()
		time.AfterFunc(time.Second, func() { l.renew(time.Now(), time.Minute) })
		time.AfterFunc(50*time.Second, func() { l.renew(time.Now(), time.Minute) })
		if over := l.wait(context.Background()); !over || time.Since(start) != 110*time.Second {
			t.Errorf("over %v after %v, want 110s", over, time.Since(start))
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if l = newLease(); l.wait(ctx) {
			t.Error("a lease that never began is over")
		}
		if l.renew(time.Now(), time.Minute); l.wait(ctx) {
			t.Error("over although only the context is")
		}
	})
}

// deaf is a transport whose calls of one operation neither answer nor heed their
// context once it is cut off, until release is closed.
type deaf struct {
	*fakeService
	op      string
	cut     atomic.Bool
	release chan struct{}
}

func (d *deaf) RoundTrip(req *http.Request) (*http.Response, error) {
	if d.cut.Load() && path.Base(req.URL.Path) == d.op {
		<-d.release
		return nil, errNetwork
	}
	return d.fakeService.RoundTrip(req)
}

func TestL4_contexts_end_with_the_lease_whatever_hangs(t *testing.T) {
	t.Parallel()
	const interval, timeout = 30 * time.Second, 300 * time.Second
	for name, hangs := range map[string]func(f *fakeService, d *deaf, c *Config) (cut func(), restore func()){
		"heartbeats": func(f *fakeService, _ *deaf, _ *Config) (func(), func()) {
			return func() { f.always("heartbeat", reply{hang: true}) }, func() { f.always("heartbeat", gone) }
		},
		"heartbeats that do not heed their context": func(f *fakeService, d *deaf, _ *Config) (func(), func()) {
			return func() { d.cut.Store(true) }, func() { d.cut.Store(false); f.always("heartbeat", gone); close(d.release) }
		},
		"heartbeats and the provider": func(f *fakeService, _ *deaf, c *Config) (func(), func()) {
			var cut atomic.Bool
			c.Credentials = ots.CredentialsProviderFunc(func(ctx context.Context) (ots.Credentials, error) {
				if cut.Load() {
					return servicetest.Hanging(ctx)
				}
				return servicetest.Gives("a", 65*time.Second)(ctx)
			})
			return func() { cut.Store(true); f.always("heartbeat", reply{hang: true}) }, func() { cut.Store(false); f.always("heartbeat", gone) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := endless(fakeTunnel(0))
				d := &deaf{fakeService: f, op: "heartbeat", release: make(chan struct{})}
				var cut, restore func()
				s := fakeSubscriber(t, f, func(c *Config) {
					c.HeartbeatInterval, c.HeartbeatTimeout, c.Transport = interval, timeout, d
					cut, restore = hangs(f, d, c)
				})
				start := time.Now()
				messages := subscribeTo(t, s)
				for range 3 {
					(<-messages).Ack()
				}
				time.Sleep(47 * time.Second)
				msg := <-messages
				beats := f.times("heartbeat", start)
				cut()
				<-msg.Context().Done()
				want := beats[len(beats)-1] + timeout - lossMargin(interval, timeout)
				if ended := time.Since(start); ended != want {
					t.Errorf("the context ended at %v, want %v: the last answered heartbeat + timeout - margin", ended, want)
				}
				if cause := context.Cause(msg.Context()); !errors.Is(cause, ErrChannelLost) {
					t.Errorf("its cause is %v", cause)
				}
				restore()
				if err := s.Close(); err != nil && !errors.Is(err, ErrDrainTimeout) {
					t.Error(err)
				}
			})
		})
	}
}

// suspend makes a session's lease end as if the process had been stopped for long: no
// timer of ours has noticed yet.
func suspend(r *ownership) { r.lease.wall.Store(1) }

func runOf(msg *message.Message) *ownership { return msg.Context().(*delivery).scope.ownership }

func TestL4_no_handler_is_called_after_a_suspension(t *testing.T) {
	for name, at := range map[string]int{"handlers in goroutines": 10, "handlers called by the leader": 500} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeTunnel(1000) // in one page: the next record is there when the process continues
				s := fakeSubscriber(t, f, func(c *Config) { c.Ordering = OrderByChannel })
				calls := 0
				var stopped *ownership
				again := make(chan struct{})
				_, err := s.Handle(context.Background(), "table/tunnel", func(m *message.Message) error {
					calls++
					switch r := runOf(m); {
					case calls == at:
						stopped = r
						suspend(r)
					case stopped != nil && r == stopped:
						t.Errorf("call %d is for the channel whose lease was over since call %d", calls, at)
					case stopped != nil && !closed(again):
						close(again)
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				<-again // another session continues
				if !errors.Is(context.Cause(stopped.ctx), ErrChannelLost) {
					t.Errorf("the channel ended with %v", context.Cause(stopped.ctx))
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// suspends is an Unmarshaler during whose n-th call the process is suspended.
type suspends struct {
	run func() *ownership
	n   int
}

func (u *suspends) Unmarshal(r *ots.Record) (*message.Message, error) {
	if u.n--; u.n == 0 {
		suspend(u.run())
	}
	return JSON{}.Unmarshal(r)
}

func TestL4_what_becomes_a_message_after_a_suspension_reaches_nobody(t *testing.T) {
	for _, way := range []string{"Subscribe", "Handle"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeTunnel(1000)
				var stopped *ownership
				var s *Subscriber
				u := &suspends{n: 500, run: func() *ownership {
					for _, r := range s.subscriptions[0].channels.all() {
						stopped = r.ownership
					}
					return stopped
				}}
				s = fakeSubscriber(t, f, func(c *Config) { c.Unmarshaler, c.Ordering = u, OrderByChannel })
				again := make(chan struct{})
				calls := 0
				h := func(m *message.Message) error {
					if calls++; calls >= 500 && runOf(m) == stopped {
						t.Errorf("call %d is for the channel whose lease was over", calls)
					} else if calls == 500 {
						close(again)
					}
					return nil
				}
				if way == "Handle" {
					if _, err := s.Handle(context.Background(), "table/tunnel", h); err != nil {
						t.Fatal(err)
					}
				} else {
					messages := subscribeTo(t, s)
					go func() {
						for m := range messages {
							if h(m) == nil {
								m.Ack()
							}
						}
					}()
				}
				<-again // another session continues
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestL4_handler_whose_goroutine_begins_after_a_suspension_is_not_called(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idleSession()
		s.channels.dest.handler = func(*message.Message) error { t.Error("the handler is called"); return nil }
		r := openRun(s)
		p := mustDecode(t, wirePage("t", nil, someRecord(1)))
		r.tracker.Add(ledger.Page{Token: "t", Keys: p.keys, Bytes: 1, Value: p})
		a, now, _ := r.taker.next(new(ackBatch), time.Now())
		d, msg := r.taker.messageOf(a, now)
		if !r.taker.bind(d) {
			t.Fatal("the delivery is not bound")
		}
		s.transport.lease.renew(time.Now(), time.Minute)
		suspend(r.ownership)
		r.deliverer.(*toHandler).handleAside(d, msg)
		if r.ctx.Err() == nil && s.ctx.Err() == nil {
			t.Error("the session has not ended")
		}
	})
}

func TestL4_message_context_is_over_as_soon_as_somebody_asks_after_a_suspension(t *testing.T) {
	for name, ask := range map[string]func(ctx context.Context) bool{
		"Err":  func(ctx context.Context) bool { return ctx.Err() != nil },
		"Done": func(ctx context.Context) bool { return closed(ctx.Done()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := endless(fakeTunnel(0))
				s := fakeSubscriber(t, f, nil)
				messages := subscribeTo(t, s)
				first, second := <-messages, <-messages
				if ask(first.Context()) {
					t.Fatal("the context is over while all is well")
				}
				suspend(runOf(first))
				if !ask(first.Context()) || !errors.Is(context.Cause(second.Context()), ErrChannelLost) {
					t.Errorf("over %v, the other message's context ended with %v", ask(first.Context()), context.Cause(second.Context()))
				}
				s.Close()
			})
		})
	}
}

func TestL4_nothing_is_committed_after_a_suspension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idleSession()
		r := openRun(s)
		p := mustDecode(t, wirePage("t", nil, someRecord(1)))
		r.tracker.Add(ledger.Page{Token: "t", Keys: p.keys, Bytes: 1, Value: p})
		a, _, _ := r.taker.next(new(ackBatch), time.Now())
		r.tracker.Ack(a)
		s.transport.lease.renew(time.Now(), time.Minute)
		suspend(r.ownership)
		if err := r.committer.commit(); err == nil {
			t.Error("the commit succeeds")
		}
		if n := len(s.endpoint.Base.(*fakeService).bodies("checkpoint")); n != 0 {
			t.Errorf("%d checkpoint calls", n)
		}
	})
}

func TestHeartbeat_one_that_gets_no_answer_does_not_cost_the_session(t *testing.T) {
	for _, c := range []struct{ interval, timeout time.Duration }{
		{30 * time.Second, 300 * time.Second}, {5 * time.Second, 15 * time.Second}, {10 * time.Second, 20 * time.Second},
		{30 * time.Second, 40 * time.Second}, {250 * ms, time.Second}, {2 * time.Second, 5 * time.Second},
	} {
		t.Run(fmt.Sprintf("%v of %v", c.interval, c.timeout), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if least := service.MinHeartbeatTimeout(c.interval); c.timeout < least {
					t.Fatalf("the ratio is not valid: at least %v", least)
				}
				n := 0
				w := newWorker(t, new(fakeService).on("heartbeat", func([]byte) reply {
					if n++; n%3 == 0 {
						return reply{hang: true}
					}
					return heartbeatReply("c1:1:OPEN")
				}), c.interval, c.timeout)
				w.report = []string{"c1:1:OPEN"}
				ticks := time.NewTicker(tick) // as the SDK's worker has, late ticks included
				defer ticks.Stop()
				for end := time.Now().Add(20 * c.timeout); time.Now().Before(end); <-ticks.C {
					if _, status, err := w.beat(); err == nil && status != http.StatusOK {
						t.Fatalf("%v after the start the client is lost, after %d heartbeats", time.Since(w.start), n)
					}
				}
			})
		})
	}
}
