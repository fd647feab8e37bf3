package subscriber_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// inWorld runs a test in a bubble, with a table of two partitions.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, 2)) })
}

// change writes what a sink that missed the log cannot know: rows that are changed, deleted and created.
func (w *world) change(round int64) {
	w.Helper()
	for i := range 10 {
		switch i % 3 {
		case 0:
			w.put(i, 100*round+int64(i))
		case 1:
			w.remove(i)
		}
	}
	w.put(10+int(round), round)
}

func TestOnGapRecreate_sink_equals_the_table_after_the_log_was_trimmed_while_the_consumer_was_down(t *testing.T) {
	for _, typ := range []tunnel.TunnelType{tunnel.TunnelTypeStream, tunnel.TunnelTypeBaseStream} {
		t.Run(string(typ), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				former := w.create(typ)
				c := w.starts()
				for i := range 10 {
					w.put(i, 1)
				}
				w.settles()
				c.ends()
				w.change(2)
				time.Sleep(logKept)
				w.change(3)

				c = w.starts()
				w.settles()
				for i := range 5 { // changes follow the rows
					w.put(i, 9)
				}
				w.remove(0)
				w.settles()
				if info := w.described(); info.TunnelId == former || info.TunnelType != string(subscriber.BaseAndStream) {
					t.Errorf("the tunnel is %+v", info)
				}
				st := c.sub.Status().Subscriptions
				if len(st) != 1 || st[0].Totals.Recreations != 1 || len(st[0].Trouble) != 0 || !st[0].Connected {
					t.Errorf("the status is %+v", st)
				}
				if n := c.raised(subscriber.Recreate); n != 1 {
					t.Errorf("%d alarms, want 1", n)
				}
				c.ends()

				c = w.starts() // the tunnel of the recreation is one like any other
				w.put(1, 10)
				w.settles()
				if n := w.count("create 200"); n != 1 || c.raised(subscriber.Recreate) != 0 {
					t.Errorf("%d tunnels were created, want 1; alarms of the last start: %v", n, c.alarms)
				}
				c.ends()
			})
		})
	}
}

func TestOnGapRecreate_sink_equals_the_table_after_the_tunnel_expired_while_base_data_was_read(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for i := range 10 {
			w.put(i, 1)
		}
		held := make(chan struct{})
		c := w.consumer(nil).handle(func(msg *message.Message) error {
			if msg.Metadata.Get(subscriber.MetadataPhase) == subscriber.PhaseBase && strings.Contains(msg.Metadata.Get(subscriber.MetadataKey), "7") {
				select {
				case <-held:
				case <-msg.Context().Done():
					return msg.Context().Err()
				}
			}
			return w.sink.handle(msg)
		})
		time.Sleep(time.Minute) // all rows but one are handled
		w.change(2)             // and these changes are trimmed before the stream begins
		time.Sleep(time.Second)
		w.trim()
		w.await("the tunnel is recreated", func() bool { return c.sub.Status().Subscriptions[0].Totals.Recreations == 1 })
		close(held)
		w.settles()
		w.put(3, 9)
		w.settles()
		if n := c.raised(subscriber.Recreate); n != 1 {
			t.Errorf("%d alarms, want 1", n)
		}
		c.ends() // what was in flight when the tunnel expired is not reported as left behind
	})
}

// TestOnGapRecreate_continues_after_a_gap_that_only_a_read_has_found: the service knows nothing of it when it is asked for the
// tunnel.
func TestOnGapRecreate_continues_after_a_gap_that_only_a_read_has_found(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		former := w.create(tunnel.TunnelTypeStream)
		c := w.consumer(nil)
		messages, err := c.sub.Subscribe(context.WithoutCancel(t.Context()), testbed.Topic)
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]int) // snapshot and phase
		go func() {                  // ends with the subscription
			for msg := range messages {
				seen[msg.Metadata.Get(subscriber.MetadataSnapshot)+" "+msg.Metadata.Get(subscriber.MetadataPhase)]++
				if w.sink.handle(msg) == nil {
					msg.Ack()
				}
			}
		}()
		w.put(1, 1)
		w.settles()
		first := w.described().CreateTime.UnixNano()
		w.gap()
		began := time.Now()
		w.await("the tunnel is recreated", func() bool { return w.described() != nil && w.described().TunnelId != former })
		if took := time.Since(began); took > 10*time.Second { // the first read after the gap is within MaxPollInterval
			t.Errorf("it took %v, although no other process has channels", took)
		}
		w.put(2, 2)
		w.settles()
		second := w.described().CreateTime.UnixNano()
		if c.raised(subscriber.Gap) != 1 || c.raised(subscriber.Recreate) != 1 {
			t.Errorf("alarms: %+v", c.alarms)
		}
		for _, line := range []string{"Tunnel was deleted, to be recreated", "Tunnel was created as BaseAndStream, by this process or another",
			"Subscription continues with the recreated tunnel; all rows are delivered again"} {
			if !c.has(watermill.InfoLogLevel, line) {
				t.Errorf("the log does not say: %s", line)
			}
		}
		if c.has(watermill.ErrorLogLevel, "Subscription failed; its output is closed") {
			t.Error("the log says that the output is closed")
		}
		c.ends()
		synctest.Wait()
		want := map[string]int{snapshot(first) + " stream": 1, snapshot(second) + " base": 1, snapshot(second) + " stream": 1}
		for what, n := range want {
			if seen[what] != n {
				t.Errorf("messages by snapshot and phase: %v, want %v", seen, want)
				break
			}
		}
	})
}

// TestOnGapRecreate_does_not_delete_a_tunnel_that_is_well: heartbeats say that it is gone, and it is not.
func TestOnGapRecreate_does_not_delete_a_tunnel_that_is_well(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		former := w.create(tunnel.TunnelTypeStream)
		c := w.starts()
		w.put(1, 1)
		w.settles()
		w.inject(paramInvalid("tunnel/heartbeat"))
		w.await("the subscription begins again", func() bool { return c.raised(subscriber.Recreate) == 1 && !c.recreating() })
		w.put(2, 2)
		w.settles()
		if id := w.described().TunnelId; id != former || w.count("delete 200") != 0 {
			t.Errorf("the tunnel is %s, was %s; %v", id, former, w.steps)
		}
		c.ends()
	})
}

// TestOnGapRecreate_does_not_delete_a_tunnel_that_another_process_has_just_created: it appears after the look, and before the
// deletion arrives.
func TestOnGapRecreate_does_not_delete_a_tunnel_that_another_process_has_just_created(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.create(tunnel.TunnelTypeStream)
		var once sync.Once
		var other string
		c := w.consumer(func(cfg *subscriber.Config) {
			cfg.Transport = before{cfg.Transport, "/tunnel/delete", func() {
				once.Do(func() {
					w.delete()
					other = w.create(tunnel.TunnelTypeBaseStream)
				})
			}}
		}).handle(nil)
		w.put(1, 1)
		w.settles()
		w.gap()
		w.await("the tunnel is replaced", func() bool { return c.sub.Status().Subscriptions[0].Totals.Recreations == 1 })
		w.put(2, 2)
		w.settles()
		if id := w.described().TunnelId; id != other {
			t.Errorf("the tunnel is %s, and the other process created %s", id, other)
		}
		c.ends()
	})
}

func TestOnGapRecreate_ends_the_subscription_when_it_cannot_succeed(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(w *world)
		is      error
		says    string
		left    bool // the former tunnel stays
	}{
		"the key may not delete the tunnel": {func(w *world) { w.inject(denied("tunnel/delete")) }, ots.ErrAuth, "deleting tunnel", true},
		"the key may not create a tunnel":   {func(w *world) { w.inject(denied("tunnel/create")) }, ots.ErrAuth, "creating the tunnel", false},
		"the service refuses to delete it":  {func(w *world) { w.inject(always(paramInvalid("tunnel/delete"))) }, ots.ErrTunnelGone, "deleting tunnel", true},
		"the service refuses to create it":  {func(w *world) { w.inject(always(paramInvalid("tunnel/create"))) }, ots.ErrTunnelGone, "the table must exist", false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				former := w.create(tunnel.TunnelTypeStream)
				p := w.starts()
				w.put(1, 1)
				w.settles()
				c.prepare(w)
				w.gap()
				<-p.done
				err := p.sub.Err()
				var gap *subscriber.GapError
				if !errors.Is(err, c.is) || !errors.As(err, &gap) || !errors.Is(err, ots.ErrGap) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("the subscription ended with %v", err)
				}
				if !p.has(watermill.ErrorLogLevel, "Tunnel cannot be recreated; the subscription ends") {
					t.Error("the log does not say so")
				}
				if st := p.sub.Status().Subscriptions; len(st) != 1 || !st[0].Ended || st[0].Fatal != err.Error() {
					t.Errorf("the status is %+v", st)
				}
				if info := w.described(); (info != nil && info.TunnelId == former) != c.left {
					t.Errorf("the tunnel is %+v", info)
				}
				w.em.ClearFaults()
				w.starts() // and the next start heals what is left
				w.put(2, 2)
				if c.left {
					w.gap()
				}
				w.settles()
			})
		})
	}
}

// TestOnGapRecreate_does_not_continue_with_a_tunnel_that_does_not_deliver_all_rows: one that another program creates of another type would
// hide what was lost.
func TestOnGapRecreate_does_not_continue_with_a_tunnel_that_does_not_deliver_all_rows(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.create(tunnel.TunnelTypeStream)
		p := w.starts()
		w.put(1, 1)
		w.settles()
		w.delete()
		other := w.create(tunnel.TunnelTypeStream)
		<-p.done
		if err := p.sub.Err(); !errors.Is(err, subscriber.ErrTunnelType) || !strings.Contains(err.Error(), other) {
			t.Errorf("the subscription ended with %v", err)
		}
		if id := w.described().TunnelId; id != other {
			t.Error("the other program's tunnel was deleted")
		}
	})
}

func TestOnGapRecreate_gives_up_after_MaxRecreations_within_RecreateWindow(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.create(tunnel.TunnelTypeStream)
		p := w.starts()
		w.put(1, 1)
		w.settles()
		for n := range subscriber.MaxRecreations {
			w.gap()
			w.await("the tunnel is recreated", func() bool { return p.sub.Status().Subscriptions[0].Connected && p.raised(subscriber.Recreate) == n+1 })
			w.settles()
		}
		time.Sleep(subscriber.RecreateWindow) // they are forgotten after that
		for n := range subscriber.MaxRecreations {
			w.gap()
			w.await("the tunnel is recreated", func() bool {
				return p.sub.Status().Subscriptions[0].Connected && p.raised(subscriber.Recreate) == subscriber.MaxRecreations+n+1
			})
			w.settles()
		}
		last := w.described().TunnelId
		w.gap()
		<-p.done
		if err := p.sub.Err(); !errors.Is(err, subscriber.ErrRecreateLimit) || !errors.Is(err, ots.ErrGap) {
			t.Errorf("the subscription ended with %v", err)
		}
		if id := w.described().TunnelId; id != last {
			t.Error("the tunnel was deleted all the same")
		}
	})
}

func TestOnGapFail_leaves_the_tunnel_as_it_is(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		former := w.create(tunnel.TunnelTypeStream)
		fails := func(c *subscriber.Config) { c.OnGap = subscriber.OnGapFail }
		p := w.consumer(fails).handle(func(msg *message.Message) error {
			if s := msg.Metadata.Get(subscriber.MetadataSnapshot); s != "" {
				t.Errorf("a message has the snapshot %s", s)
			}
			return nil
		})
		w.put(1, 1)
		time.Sleep(time.Minute)
		w.gap()
		<-p.done
		if err := p.sub.Err(); !errors.Is(err, ots.ErrGap) || !strings.Contains(err.Error(), "on_gap: recreate") {
			t.Errorf("the subscription ended with %v", err)
		}
		w.put(1, 2)
		time.Sleep(logKept)
		w.put(1, 3)
		if _, err := w.consumer(fails).sub.Subscribe(t.Context(), testbed.Topic); !errors.Is(err, ots.ErrTunnelExpired) || !strings.Contains(err.Error(), "on_gap: recreate") {
			t.Errorf("Subscribe returned %v", err)
		}
		if info := w.described(); info == nil || info.TunnelId != former {
			t.Errorf("the tunnel is %+v", info)
		}
		w.delete()
		if _, err := w.consumer(fails).sub.Subscribe(t.Context(), testbed.Topic); !errors.Is(err, ots.ErrTunnelGone) {
			t.Errorf("Subscribe returned %v", err)
		}
		if info := w.described(); info != nil {
			t.Errorf("the tunnel is %+v", info)
		}
	})
}

// They are redelivered as rows, so Close has nothing to report.
func TestOnGapRecreate_does_not_report_messages_that_outlast_the_drain_of_the_former_tunnel(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.create(tunnel.TunnelTypeStream)
		c := w.consumer(func(cfg *subscriber.Config) { cfg.CloseTimeout = 2 * time.Second }).handle(func(msg *message.Message) error {
			if msg.Metadata.Get(subscriber.MetadataPhase) == subscriber.PhaseStream && msg.Metadata.Get(subscriber.MetadataKey) == keyText(7) {
				<-msg.Context().Done()
				return msg.Context().Err()
			}
			return w.sink.handle(msg)
		})
		w.put(1, 1)
		w.put(7, 1)
		time.Sleep(time.Minute)
		w.gap()
		w.settles()
		c.ends()
	})
}

func TestOnGapRecreate_status_shows_why_from_the_gap_until_the_subscription_continues(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.create(tunnel.TunnelTypeStream)
		held := make(chan struct{})
		c := w.consumer(nil).handle(func(msg *message.Message) error {
			if msg.Metadata.Get(subscriber.MetadataKey) == keyText(7) {
				<-held
			}
			return w.sink.handle(msg)
		})
		shown := func() bool {
			st := c.sub.Status().Subscriptions
			return !st[0].Ended && slices.ContainsFunc(st[0].Trouble, func(t subscriber.Trouble) bool { return t.Op == "recreate" && t.Error != "" })
		}
		w.put(7, 1)
		time.Sleep(time.Minute)
		if shown() {
			t.Error("it shows before there is a gap")
		}
		w.inject(emulator.Fault{Operation: "tunnel/create", Code: "OTSServerBusy", Times: 20})
		w.gap()
		w.await("the drain begins", func() bool { return c.sub.Status().Subscriptions[0].Draining })
		for _, when := range []string{"while it drains", "while the tunnel is recreated"} {
			if err := c.sub.Err(); err != nil || !shown() {
				t.Errorf("%s: Err %v, status %+v", when, err, c.sub.Status().Subscriptions)
			}
			if when == "while it drains" {
				close(held)
				w.await("the drain is over", c.recreating)
			}
		}
		w.await("it continues", func() bool { return c.sub.Status().Subscriptions[0].Connected })
		w.put(1, 1)
		w.settles()
		st := c.sub.Status().Subscriptions
		if shown() || len(st) != 2 || !st[1].Ended || st[0].Fatal+st[1].Fatal != "" { // and what is kept of the one before
			t.Errorf("the status is %+v", st)
		}
		c.ends()
	})
}

// The end of its clients could not be reported to the service, nor that they have closed their channels.
func TestOnGapRecreate_does_not_wait_for_its_own_clients(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		former := w.create(tunnel.TunnelTypeStream)
		c := w.starts()
		w.put(1, 1)
		w.settles()
		w.inject(always(emulator.Fault{Operation: "tunnel/shutdown", Code: "OTSServerBusy"}), always(emulator.Fault{Operation: "tunnel/heartbeat", Code: "OTSServerBusy"}))
		w.gap()
		began := time.Now()
		w.await("another tunnel is created", func() bool { info := w.described(); return info != nil && info.TunnelId != former })
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it took %v", took)
		}
		w.em.ClearFaults()
		w.settles()
		c.ends()
	})
}
