package batching

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/internal/probe"
)

// logLines records the lines at Error and Info.
type logLines struct {
	watermill.NopLogger
	mu    sync.Mutex
	lines []string
}

func (l *logLines) With(watermill.LogFields) watermill.LoggerAdapter { return l }

func (l *logLines) Error(msg string, _ error, _ watermill.LogFields) { l.Info(msg, nil) }

func (l *logLines) Info(msg string, _ watermill.LogFields) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, msg)
}

func (l *logLines) count(part string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// switched is a batch handler that fails while it is down.
type switched struct {
	*recorder
	down bool
	bad  map[string]bool // UUIDs
}

func newSwitched() *switched {
	s := &switched{recorder: newRecorder(), bad: map[string]bool{}}
	s.after = func(_ context.Context, b *Batch) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.down {
			return errBoom
		}
		for _, m := range b.Messages {
			if s.bad[m.UUID] {
				return errBoom
			}
		}
		return nil
	}
	return s
}

func (s *switched) set(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func TestProbe(t *testing.T) {
	t.Run("in_an_outage_few_single_messages_are_tried_until_one_succeeds", func(t *testing.T) {
		for _, isolate := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				const records = 1000
				h, log := newSwitched(), new(logLines)
				h.down = true
				s := newSource(4096, time.Second)
				b := mustNew(t, one(Batcher{Size: 100, Timeout: 50 * time.Millisecond, Concurrency: 2, Isolate: isolate, Probe: true, Handler: h.handle}), log)
				stopped := s.route(b.Middleware(nop))
				for i := range records {
					s.add(fmt.Sprint("m", i), fmt.Sprint("key ", i%300))
				}
				time.Sleep(10 * time.Minute)
				calls := len(h.seen())
				if calls > 650 { // 10 minutes with a probe each second are 600
					t.Errorf("%d calls in the outage", calls)
				}
				for _, c := range h.seen()[20:] {
					if c.trigger != TriggerProbe || strings.Contains(c.uuids, " ") {
						t.Errorf("a call with %q, trigger %s", c.uuids, c.trigger)
					}
				}
				st := b.Stats()[0]
				if st.DownSince.IsZero() || !strings.Contains(st.DownError, "boom") || st.Probes < 100 {
					t.Errorf("stats %+v", st)
				}
				equal(t, "lines as it begins", log.count("handler is down"), 1)
				if n := log.count("handler is still down"); n < 8 || n > 10 {
					t.Errorf("%d lines in ten minutes", n)
				}
				h.set(false)
				time.Sleep(time.Minute)
				synctest.Wait()
				equal(t, "acked", s.count(acked), records)
				synctest.Wait()
				equal(t, "lines at the end", log.count("works again"), 1)
				if after := len(h.seen()) - calls; after > 40 {
					t.Errorf("%d calls after it", after)
				}
				equal(t, "down", b.Stats()[0].DownSince.IsZero(), true)
				equal(t, "source", s.faultsFound(), nil)
				s.Close()
				<-stopped
				equal(t, "Close", b.Close(), nil)
			})
		}
	})

	t.Run("a_bad_message_does_not_keep_a_batcher_down", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newSwitched()
			for i := range 30 { // a batch of bad messages looks like an outage
				h.bad[fmt.Sprint("m", i)] = true
			}
			s := newSource(4096, time.Second)
			b := mustNew(t, one(Batcher{Size: 30, Timeout: 50 * time.Millisecond, Isolate: true, Probe: true, Handler: h.handle}), nil)
			stopped := s.route(b.Middleware(nop))
			for i := range 300 {
				s.add(fmt.Sprint("m", i), "")
			}
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			equal(t, "acked", s.count(acked), 270)
			h.mu.Lock()
			clear(h.bad)
			h.mu.Unlock()
			time.Sleep(5 * time.Minute)
			s.Close()
			<-stopped
			equal(t, "acked in the end", s.count(acked), 300)
		})
	})

	t.Run("probes_keep_the_order_of_keys", func(t *testing.T) {
		for range 20 { // the probe is picked at random
			synctest.Test(t, func(t *testing.T) {
				l, down := newLedger(), true
				var mu sync.Mutex
				s := newSource(4096, 50*time.Millisecond)
				b := mustNew(t, one(Batcher{Size: 20, Timeout: 50 * time.Millisecond, Concurrency: 2, Isolate: true, Probe: true, Handler: func(_ context.Context, b *Batch) error {
					l.begin(b.Messages)
					time.Sleep(5 * time.Millisecond)
					mu.Lock()
					fails := down
					mu.Unlock()
					l.end(b.Messages, func(*message.Message) bool { return !fails })
					if fails {
						return errBoom
					}
					return nil
				}}), nil)
				stopped := s.route(b.Middleware(nop))
				for i := range 100 {
					key := string(rune('a' + i%4))
					id := fmt.Sprint(key, i)
					l.expect(id, key)
					s.add(id, key)
				}
				time.Sleep(20 * time.Second)
				mu.Lock()
				down = false
				mu.Unlock()
				time.Sleep(time.Minute)
				synctest.Wait()
				equal(t, "acked", s.count(acked), 100)
				equal(t, "order", l.err(), nil)
				s.Close()
				<-stopped
			})
		}
	})

	t.Run("an_outage_is_dropped_when_there_is_no_message_to_probe_with", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h, log := newSwitched(), new(logLines)
			h.down = true
			b := mustNew(t, one(Batcher{Size: 1, Timeout: time.Second, Isolate: true, Probe: true, Handler: h.handle}), log)
			m := b.Middleware(nop)
			for i := range 6 { // the caller gives them up: they are not redelivered
				_ = send(m, msgOf(fmt.Sprint(i))).result()
				time.Sleep(time.Second)
			}
			equal(t, "down", b.Stats()[0].DownSince.IsZero(), false)
			time.Sleep(2 * probe.IdleAfter)
			equal(t, "still down", b.Stats()[0].DownSince.IsZero(), true)
			equal(t, "lines", log.count("outage is dropped"), 1)
			h.set(false)
			equal(t, "the next one", send(m, msgOf("next")).result(), nil)
			equal(t, "trigger", h.seen()[len(h.seen())-1].trigger, TriggerSize)
		})
	})

	t.Run("a_success_elsewhere_ends_the_outage_after_the_probe_that_runs", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRecorder()
			r.after = func(_ context.Context, b *Batch) error {
				switch b.Messages[0].UUID {
				case "a1":
					time.Sleep(10 * time.Second)
				case "b1":
					return ack.Transient(errBoom)
				case "k1":
					time.Sleep(20 * time.Second)
				}
				return nil
			}
			cfg := one(Batcher{Size: 2, Timeout: time.Minute, Concurrency: 2, Isolate: true, Probe: true, Handler: r.handle})
			cfg.OrderingKey = firstLetter
			b := mustNew(t, cfg, nil)
			sendAll(b.Middleware(nop), "a1", "a2", "b1", "b2", "k1", "k2")
			time.Sleep(time.Minute)
			synctest.Wait()
			equal(t, "batches", r.batches(), "a1 a2|b1 b2|k1|k2") // k2 not before k1 is done
			equal(t, "k1", r.seen()[2].trigger, TriggerProbe)
			equal(t, "k2", r.seen()[3].at, 20*time.Second+probe.FirstPause)
		})
	})

	t.Run("a_drain_in_an_outage_gives_waiting_messages_back_at_once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newSwitched()
			h.down = true
			b := mustNew(t, one(Batcher{Size: 5, Timeout: time.Second, Isolate: true, Probe: true, Handler: h.handle}), nil)
			middleware := b.Middleware(nop)
			var msgs []*drainedMsg
			var passes []*pass
			for i := range 50 {
				d := newDrained(fmt.Sprint("m", i))
				msgs = append(msgs, d)
				passes = append(passes, send(middleware, d.msg))
				synctest.Wait()
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
			before := len(h.seen())
			for _, d := range msgs {
				close(d.hurry)
				close(d.draining)
			}
			synctest.Wait()
			for i, p := range passes {
				if !p.ended() {
					t.Fatalf("message %d still waits", i)
				}
			}
			given := 0
			for _, p := range passes {
				if errors.Is(p.err, ErrOutage) {
					equal(t, "is a failure", IsFailure(p.err), false)
					given++
				}
			}
			if given < 20 {
				t.Errorf("%d were given back", given)
			}
			equal(t, "calls in the drain", len(h.seen())-before, 0)
			equal(t, "Close", b.Close(), nil)
		})
	})

	t.Run("Close_in_an_outage_does_not_wait_for_its_end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newSwitched()
			h.down = true
			b := mustNew(t, one(Batcher{Size: 5, Timeout: time.Second, Isolate: true, Probe: true, Handler: h.handle}), nil)
			var passes []*pass
			for i := range 50 {
				passes = append(passes, send(b.Middleware(nop), msgOf(fmt.Sprint(i))))
				synctest.Wait()
			}
			time.Sleep(time.Minute)
			start := time.Now()
			equal(t, "Close", b.Close(), nil)
			equal(t, "took", time.Since(start), 0)
			for _, p := range passes {
				if p.result() == nil {
					t.Error("one succeeded")
				}
			}
		})
	})

	t.Run("panics_in_OnBatch_are_contained", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log := new(logLines)
			cfg := one(Batcher{Size: 1, Handler: succeed})
			cfg.OnBatch = func(Handled) { panic("no") }
			b := mustNew(t, cfg, log)
			equal(t, "a", send(b.Middleware(nop), msgOf("a")).result(), nil)
			synctest.Wait()
			equal(t, "lines", log.count("OnBatch panicked"), 1)
		})
	})
}

// drainedMsg is a deliveredMsg whose Delivery is an ack.Drainer.
type drainedMsg struct {
	*deliveredMsg
	draining chan struct{}
}

func (d *drainedMsg) Draining() <-chan struct{} { return d.draining }

func newDrained(uuid string) *drainedMsg {
	d := &drainedMsg{newDelivered(uuid, ""), make(chan struct{})}
	ctx, cancel := context.WithCancelCause(context.Background())
	d.cancel = cancel
	d.msg.SetContext(ack.NewContext(ctx, d))
	return d
}

func TestFailure_log(t *testing.T) {
	t.Run("a_failed_batch_is_one_line", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			log := new(logLines)
			b := mustNew(t, one(Batcher{Size: 100, Handler: func(context.Context, *Batch) error { return errBoom }}), log)
			var passes []*pass
			for i := range 100 {
				passes = append(passes, send(b.Middleware(nop), msgOf(fmt.Sprint(i))))
			}
			for _, p := range passes {
				var f *Failure
				if !errors.As(p.result(), &f) || !f.Logged() || f.Alone || f.Messages != 100 {
					t.Errorf("got %+v", f)
				}
			}
			synctest.Wait() // the line comes after the messages
			equal(t, "lines", log.count(""), 1)
		})
	})

	t.Run("one_message_at_a_time_is_logged_once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			for _, at := range []struct {
				pause time.Duration // between an ack and the next message
				two   bool          // the first two come together
				want  int
			}{{0, false, 1}, {time.Minute, false, 0}, {0, true, 0}} {
				log := new(logLines)
				b := mustNew(t, one(Batcher{Size: 100, Timeout: time.Second, Handler: succeed}), log)
				h := b.Middleware(func(*message.Message) ([]*message.Message, error) { return nil, nil })
				if at.two {
					first := send(h, msgOf("a"))
					synctest.Wait()
					equal(t, "b", send(h, msgOf("b")).result(), nil)
					equal(t, "a", first.result(), nil)
				}
				for i := range 50 {
					equal(t, "error", send(h, msgOf(fmt.Sprint(i))).result(), nil)
					time.Sleep(at.pause)
				}
				synctest.Wait()
				equal(t, "lines", log.count("one message each"), at.want)
			}
		})
	})
}
