package subscriber_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// fleet is an emulator in a bubble, with a table of that many partitions.
type fleet struct {
	*testing.T
	em *emulator.Emulator
}

func newFleet(t *testing.T, partitions int) *fleet {
	t.Helper()
	em, err := emulator.Start(emulator.Options{Instance: testbed.Instance, AccessKeyID: testbed.KeyID, AccessKeySecret: testbed.KeySecret, InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := em.Close(); err != nil {
			t.Error(err)
		}
	})
	transport := em.Transport()
	defer transport.CloseIdleConnections()
	cfg := tablestore.NewDefaultTableStoreConfig()
	cfg.Transport = transport
	if err := testbed.CreateTable(tablestore.NewClientWithConfig(em.Endpoint(), testbed.Instance, testbed.KeyID, testbed.KeySecret, "", cfg)); err != nil {
		t.Fatal(err)
	}
	var at []any
	for i := 1; i < partitions; i++ {
		at = append(at, fmt.Sprintf("key-%04d", i))
	}
	if err := em.SplitAt(testbed.Table, at...); err != nil {
		t.Fatal(err)
	}
	return &fleet{t, em}
}

// process is one consumer of the fleet. kill ends it without a call to the service.
type process struct {
	sub    *subscriber.Subscriber
	logger *watermill.CaptureLoggerAdapter
	kill   func()
}

func (f *fleet) process(change func(*subscriber.Config)) *process {
	f.Helper()
	transport := f.em.Transport()
	cut := &cutTransport{transport: transport}
	logger := watermill.NewCaptureLogger()
	cfg := subscriber.Config{
		Endpoint: f.em.Endpoint(), Instance: testbed.Instance, AccessKeyID: testbed.KeyID, AccessKeySecret: testbed.KeySecret,
		Transport: cut, AllowInsecure: true, Tunnel: subscriber.TunnelSpec{Type: subscriber.Stream},
		MaxPollInterval: 4 * time.Second, // minutes pass in these tests, and each read costs real time
	}
	if change != nil {
		change(&cfg)
	}
	sub, err := subscriber.New(cfg, logger)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		_ = sub.Close() // of a killed one, whose calls all fail
		transport.CloseIdleConnections()
	})
	if err := sub.SubscribeInitialize(testbed.Topic); err != nil {
		f.Fatal(err)
	}
	if _, err := sub.Handle(context.WithoutCancel(f.Context()), testbed.Topic, func(*message.Message) error { return nil }); err != nil {
		f.Fatal(err)
	}
	return &process{sub: sub, logger: logger, kill: func() { cut.dead.Store(true) }}
}

func (p *process) status() subscriber.SubscriptionStatus { return p.sub.Status().Subscriptions[0] }

// lines returns what was logged at a level with a message that begins so.
func (p *process) lines(level watermill.LogLevel, begins string) (lines []watermill.CapturedMessage) {
	synctest.Wait()                        // nothing is logged any more at this moment
	defer func() { p.logger.Captured() }() // takes its lock: what is read here is read before it changes
	for _, line := range p.logger.Captured()[level] {
		if strings.HasPrefix(line.Msg, begins) {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestView_has_every_channel_of_every_process(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 4)
		a := f.process(func(c *subscriber.Config) { c.ClientTag = "pod-a" })
		b := f.process(func(c *subscriber.Config) { c.ClientTag = "pod-b" })
		time.Sleep(3 * time.Minute) // one of two clients hears of the other with a heartbeat
		for tag, p := range map[string]*process{"pod-a": a, "pod-b": b} {
			st := p.status()
			v := st.View
			if v == nil || v.Error != "" || len(v.Channels) != 4 || len(v.Clients) != 2 || v.Orphans != 0 || v.Stage != "ProcessStream" || time.Since(v.Time) > 45*time.Second || v.Lag > 10*time.Second {
				t.Fatalf("%s sees %+v", tag, v)
			}
			own := 0
			for _, c := range v.Channels {
				if c.State != subscriber.ViewHeld || c.Position.IsZero() || c.LastRead.IsZero() || c.Base {
					t.Errorf("%s: channel %+v", tag, c)
				}
				if c.Own != (c.ClientID == st.Clients[0].ClientID) || c.Own != strings.HasPrefix(c.ClientID, tag) {
					t.Errorf("%s: owner of %+v", tag, c)
				}
				if c.Own {
					own++
				}
			}
			if own != 2 {
				t.Errorf("%s has %d channels", tag, own)
			}
			if !slices.ContainsFunc(v.Clients, func(c subscriber.ViewClient) bool {
				return strings.HasPrefix(c.ID, tag) && c.Own && c.Channels == 2 && !c.Silent
			}) {
				t.Errorf("%s: clients %+v", tag, v.Clients)
			}
			if n := len(p.lines(watermill.ErrorLogLevel, "")); n != 0 {
				t.Errorf("%s logs errors: %+v", tag, p.lines(watermill.ErrorLogLevel, ""))
			}
		}
	})
}

func TestView_names_the_channels_of_a_killed_process_until_they_are_read_again(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 6)
		a, b := f.process(nil), f.process(func(c *subscriber.Config) { c.ClientTag = "victim" })
		time.Sleep(3 * time.Minute)
		if st := b.status(); len(st.Channels) != 3 {
			t.Fatalf("the second has %d channels", len(st.Channels))
		}
		b.kill()
		killed := time.Now()
		time.Sleep(80 * time.Second) // orphanAfter, and an interval for two, confirmed
		v := a.status().View
		if v.Orphans != 3 || !v.Clients[0].Silent || !strings.HasPrefix(v.Clients[0].ID, "victim") || v.Clients[1].Silent {
			t.Fatalf("80 s after the kill: %+v", v)
		}
		for i, c := range v.Channels {
			if orphan := c.State == subscriber.ViewOrphan; orphan != (i < 3) || orphan != strings.HasPrefix(c.ClientID, "victim") || orphan && c.Lag < 15*time.Second {
				t.Errorf("channel %d: %+v", i, c)
			}
		}
		said := a.lines(watermill.ErrorLogLevel, "Some channels of the tunnel are not read")
		if len(said) != 1 || said[0].Fields["orphans"] != 3 || !strings.Contains(fmt.Sprint(said[0].Fields["clients"]), "victim") {
			t.Errorf("logged %+v", said)
		}
		time.Sleep(6*time.Minute - time.Since(killed)) // HeartbeatTimeout, and a heartbeat
		if v := a.status().View; v.Orphans != 0 || len(a.status().Channels) != 6 {
			t.Errorf("6 minutes after the kill: %+v", v)
		}
		if n := len(a.lines(watermill.InfoLogLevel, "Every channel of the tunnel is read again")); n != 1 {
			t.Errorf("%d lines at the end", n)
		}
	})
}

func TestView_tells_a_process_without_channels_what_it_waits_for(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 2)
		dead := f.process(func(c *subscriber.Config) { c.ClientTag = "dead" })
		time.Sleep(time.Minute)
		dead.kill()
		time.Sleep(2 * time.Second)
		next := f.process(nil)
		time.Sleep(6 * time.Second)
		first := next.lines(watermill.InfoLogLevel, "No channels yet")
		if len(first) != 1 || !strings.Contains(fmt.Sprint(first[0].Fields["held_by"]), "2 channels, read ") || len(first[0].Fields["silent"].([]string)) != 0 || first[0].Fields["heartbeat_timeout"] != "5m0s" {
			t.Fatalf("after 6 s: %+v", first)
		}
		time.Sleep(30 * time.Second)
		then := next.lines(watermill.InfoLogLevel, "No channels yet")
		if len(then) != 2 || !strings.HasPrefix(then[1].Fields["silent"].([]string)[0], "dead") {
			t.Fatalf("once the dead client is known to be silent: %+v", then)
		}
		time.Sleep(5 * time.Minute)
		if st := next.status(); len(st.Channels) != 2 {
			t.Errorf("after HeartbeatTimeout there are %d channels", len(st.Channels))
		}
		// When the channels are free, there may be a moment until one has a heartbeat.
		if n := len(next.lines(watermill.InfoLogLevel, "No channels yet: other clients hold them")); n != 2 {
			t.Errorf("%d lines", n)
		}
	})
}

func TestView_confirms_at_once_that_a_client_is_silent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 2)
		dead := f.process(nil)
		time.Sleep(time.Minute)
		dead.kill()
		time.Sleep(30 * time.Second)
		next := f.process(func(c *subscriber.Config) { c.TunnelViewInterval = time.Hour })
		time.Sleep(7 * time.Second)
		if v := next.status().View; v == nil || v.Orphans != 0 {
			t.Errorf("after one look: %+v", v)
		}
		time.Sleep(2 * time.Second)
		if v := next.status().View; v.Orphans != 2 {
			t.Errorf("after another one, 3 s later: %+v", v)
		}
	})
}

func TestView_costs_a_fleet_little_and_can_be_switched_off(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 4)
		describes := func() uint64 { return uint64(f.em.Stats().Operations["tunnel/describe"].Requests) }
		for range 4 {
			f.process(nil)
		}
		time.Sleep(3 * time.Minute) // all have channels
		before := describes()
		time.Sleep(5 * time.Minute)
		// 4 processes, each four times less often than every 15 s, a fifth more or less.
		if n := describes() - before; n < 15 || n > 27 {
			t.Errorf("4 processes asked %d times in 5 minutes", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1)
		p := f.process(func(c *subscriber.Config) { c.TunnelViewInterval = subscriber.NoTunnelView })
		before := f.em.Stats().Operations["tunnel/describe"].Requests
		time.Sleep(5 * time.Minute)
		if n := f.em.Stats().Operations["tunnel/describe"].Requests; n != before || p.status().View != nil {
			t.Errorf("it was asked %d times: %+v", n-before, p.status().View)
		}
	})
}

func TestView_that_cannot_be_had_says_so_and_changes_nothing_else(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 2)
		p := f.process(nil)
		time.Sleep(time.Minute)
		f.em.Inject(emulator.Fault{Operation: "tunnel/getrpo", Code: "OTSNoPermissionAccess", Times: -1})
		time.Sleep(30 * time.Second)
		if v := p.status().View; !strings.Contains(v.Error, "OTSNoPermissionAccess") || len(v.Channels) != 2 || v.Orphans != 0 {
			t.Errorf("without reads: %+v", v)
		}
		f.em.Inject(emulator.Fault{Operation: "tunnel/describe", Code: "OTSNoPermissionAccess", Times: -1})
		time.Sleep(time.Minute)
		st := p.status()
		if v := st.View; !strings.Contains(v.Error, "describe") || len(v.Channels) != 2 || time.Since(v.Time) < 30*time.Second {
			t.Errorf("without an answer: %+v", v)
		}
		if len(st.Errors) != 0 || len(st.Trouble) != 0 || st.LastError != nil {
			t.Errorf("%+v, %+v, %+v", st.Errors, st.Trouble, st.LastError)
		}
		f.em.ClearFaults()
		time.Sleep(30 * time.Second)
		if v := p.status().View; v.Error != "" {
			t.Errorf("once it can be had again: %+v", v)
		}
	})
}

func TestClientTag_is_what_the_service_names_the_client_by(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1)
		p := f.process(func(c *subscriber.Config) { c.ClientTag = "orders-sync-7d9f" })
		time.Sleep(time.Second)
		if id := p.status().Clients[0].ClientID; !strings.HasPrefix(id, "orders-sync-7d9f") {
			t.Errorf("the client is %s", id)
		}
		said := p.lines(watermill.InfoLogLevel, "Connected to the tunnel")
		if len(said) != 1 || said[0].Fields["client_id"] != p.status().Clients[0].ClientID {
			t.Errorf("logged %+v", said)
		}
	})
}
