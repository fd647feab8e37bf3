package tunnels

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

var errFull = errors.New("disk full")

// everything returns all that clients can see of the service.
func (b *bench) everything() string {
	b.Helper()
	var list protocol.ListTunnelResponse
	b.must(b.call("list", &protocol.ListTunnelRequest{}, &list))
	var states []TunnelState
	for _, st := range b.s.Snapshot() {
		for i := range st.Clients {
			st.Clients[i].LastHeartbeat = time.Time{} // a fresh deadline
		}
		for i := range st.Channels {
			st.Channels[i].Served = 0 // counts refused calls too
		}
		states = append(states, st)
	}
	return fmt.Sprintf("%v %+v", list.String(), states)
}

func TestUnsavedChanges(t *testing.T) {
	// Each changes something in the tunnel id. Its client c holds shard-0 and
	// shard-1 and has read a record without committing it.
	changes := map[string]func(b *bench, id string, c *apiClient) error{
		"a checkpoint": func(_ *bench, _ string, c *apiClient) error {
			_, next, _, err := c.read("shard-0", tokenString(position{shard: "shard-0"}))
			if err != nil {
				return err
			}
			return c.checkpoint("shard-0", next, 1)
		},
		"a client": func(b *bench, id string, _ *apiClient) error {
			return b.call("connect", &protocol.ConnectRequest{TunnelId: &id}, &protocol.ConnectResponse{})
		},
		"a shutdown": func(b *bench, id string, c *apiClient) error {
			return b.call("shutdown", &protocol.ShutdownRequest{TunnelId: &id, ClientId: &c.id}, nil)
		},
		"a channel given back": func(b *bench, id string, c *apiClient) error {
			return b.call("heartbeat", &protocol.HeartbeatRequest{TunnelId: &id, ClientId: &c.id, Channels: []*protocol.Channel{
				{ChannelId: proto.String("shard-0"), Version: proto.Int64(9), Status: protocol.ChannelStatus_CLOSING.Enum()},
			}}, &protocol.HeartbeatResponse{})
		},
		"a tunnel": func(b *bench, _ string, _ *apiClient) error {
			return b.call("create", &protocol.CreateTunnelRequest{Tunnel: &protocol.Tunnel{
				TableName: proto.String("tbl"), TunnelName: proto.String("other"), TunnelType: protocol.TunnelType_Stream.Enum(),
			}}, &protocol.CreateTunnelResponse{})
		},
		"a tunnel deleted": func(b *bench, _ string, _ *apiClient) error {
			return b.call("delete", &protocol.DeleteTunnelRequest{TableName: proto.String("tbl"), TunnelName: proto.String("tun")}, nil)
		},
		"a schedule": func(b *bench, id string, _ *apiClient) error {
			return b.call("schedule", &protocol.ScheduleRequest{TunnelId: &id, Channels: []*protocol.Channel{
				{ChannelId: proto.String("shard-1"), Version: proto.Int64(0), Status: protocol.ChannelStatus_TERMINATED.Enum()},
			}}, nil)
		},
		"a rebalance":       func(b *bench, id string, _ *apiClient) error { return unwrap(b.s.Rebalance(id)) },
		"an expired tunnel": func(b *bench, id string, _ *apiClient) error { return unwrap(b.s.ExpireTunnel(id)) },
		"an expired client": func(b *bench, id string, c *apiClient) error { return unwrap(b.s.ExpireClient(id, c.id)) },
	}
	begin := func(t *testing.T) (*bench, string, *apiClient) {
		b, id := streamBench(t, 2)
		b.src.put("tbl", "a", "1")
		c := b.connect(id)
		c.heartbeat()
		return b, id, c
	}
	for name, change := range changes {
		t.Run(name+" is taken back if it cannot be saved", func(t *testing.T) {
			b, id, c := begin(t)
			before := b.everything()
			b.src.setSaveErr(errFull)
			for range 2 {
				b.wantCode(change(b, id, c), wire.CodeTunnelServerUnavailable)
				if after := b.everything(); after != before {
					t.Fatalf("before: %s\nafter: %s", before, after)
				}
			}
			if _, _, err := c.getCheckpoint("shard-0"); err != nil {
				t.Errorf("the checkpoint that is stored is not served: %v", err)
			}
			if _, _, _, err := c.read("shard-1", tokenString(position{shard: "shard-1"})); err != nil {
				t.Errorf("records are not served: %v", err)
			}
			b.src.setSaveErr(nil)
			b.must(change(b, id, c))
			changed := b.everything()
			if changed == before {
				t.Error("with space the change still fails")
			}
			b.restart()
			if after := b.everything(); name != "a checkpoint" && after != changed { // reads are not saved
				t.Errorf("before the restart: %s\nafter: %s", changed, after)
			}
		})
		t.Run(name+" is not visible while it is being saved", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, id, c := begin(t)
				before := b.everything()
				held, release := make(chan struct{}), make(chan struct{})
				b.src.setOnSave(func() { held <- struct{}{}; <-release })
				changed, looked := make(chan error, 1), make(chan error, 1)
				go func() { changed <- change(b, id, c) }()
				<-held
				b.src.setOnSave(nil)
				go func() {
					var resp protocol.DescribeTunnelResponse
					looked <- b.call("describe", &protocol.DescribeTunnelRequest{TableName: proto.String("tbl"), TunnelName: proto.String("tun")}, &resp)
				}()
				synctest.Wait()
				select {
				case err := <-looked:
					if name != "a tunnel" { // which describe does not show
						t.Errorf("describe was answered (%v) while the change was being saved", err)
					}
					looked <- err
				default:
				}
				b.src.setSaveErr(errFull)
				close(release)
				b.wantCode(<-changed, wire.CodeTunnelServerUnavailable)
				if err := <-looked; err != nil {
					b.wantCode(err, wire.CodeTunnelServerUnavailable)
				}
				if after := b.everything(); after != before {
					t.Errorf("before: %s\nafter: %s", before, after)
				}
			})
		})
	}
	t.Run("that wait for a lost save are lost with it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b, id, c := begin(t)
			held, release := make(chan struct{}), make(chan struct{})
			b.src.setOnSave(func() { held <- struct{}{}; <-release })
			errs := make(chan error, 2)
			go func() { errs <- c.checkpoint("shard-0", tokenString(position{shard: "shard-0", offset: 1}), 1) }()
			<-held
			b.src.setOnSave(nil)
			go func() { errs <- c.checkpoint("shard-1", tokenString(position{shard: "shard-1"}), 1) }()
			synctest.Wait()
			b.src.setSaveErr(errFull)
			close(release)
			for range 2 {
				b.wantCode(<-errs, wire.CodeTunnelServerUnavailable)
			}
			b.src.setSaveErr(nil)
			for _, ch := range []string{"shard-0", "shard-1"} {
				if _, sequence, err := c.getCheckpoint(ch); err != nil || sequence != 0 {
					t.Errorf("%s: sequence %d, %v", ch, sequence, err)
				}
			}
			_ = id
		})
	})
	t.Run("fail a request that began before", func(t *testing.T) {
		b, _, c := begin(t)
		b.src.split("tbl", "shard-0", "0")
		b.src.onRead = func() { // during the read that reaches the end
			b.src.setSaveErr(errFull)
			b.wantCode(c.checkpoint("shard-1", tokenString(position{shard: "shard-1"}), 1), wire.CodeTunnelServerUnavailable)
			b.src.setSaveErr(nil)
		}
		_, _, _, err := c.read("shard-0", tokenString(position{shard: "shard-0"}))
		b.wantCode(err, wire.CodeTunnelServerUnavailable)
		b.src.onRead = nil
		c.heartbeat() // saves what there is
		b.restart()
		if b.s.Snapshot()[0].Channels[0].FinishServed {
			t.Error("what the call did was saved")
		}
	})
	for name, change := range map[string]func(b *bench, id string, c *apiClient) error{
		"a heartbeat": changes["a channel given back"], "a control call": changes["a rebalance"],
	} {
		t.Run("fail "+name+" also if another request has noticed first", func(t *testing.T) {
			b, id, c := begin(t)
			once := true
			b.cfg.Logger = slog.New(hook{func(message string) { // between the change and its save
				if message != "channel moved" || !once {
					return
				}
				once = false
				b.src.setSaveErr(errFull)
				b.wantCode(c.checkpoint("shard-1", tokenString(position{shard: "shard-1"}), 1), wire.CodeTunnelServerUnavailable)
				b.src.setSaveErr(nil)
			}})
			b.restart()
			before := b.everything()
			b.wantCode(change(b, id, c), wire.CodeTunnelServerUnavailable)
			if after := b.everything(); after != before || once {
				t.Errorf("before: %s\nafter: %s", before, after)
			}
		})
	}
	t.Run("fail every flush that waits for them", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			src := newFakeSource(time.Now)
			held, release := make(chan struct{}), make(chan struct{})
			src.onSave = func() { held <- struct{}{}; <-release }
			src.saveErr = errFull
			j := journal{src: src}
			j.restore = func(cause error) error { j.discard(cause); return nil }
			j.add(map[string][]byte{"a": {}})
			errs := make(chan error, 2)
			go func() { errs <- j.flush() }()
			<-held
			j.add(map[string][]byte{"b": {}})
			go func() { errs <- j.flush() }()
			synctest.Wait()
			close(release)
			for range 2 {
				if err := <-errs; !errors.Is(err, errFull) {
					t.Errorf("got %v", err)
				}
			}
			src.setSaveErr(nil)
			src.setOnSave(nil)
			if err := j.flush(); err != nil || len(src.state) > 0 {
				t.Errorf("then %v, saved %v", err, src.state)
			}
		})
	})
	t.Run("keep what was read so far in the statistics", func(t *testing.T) {
		b, _, c := begin(t)
		if _, _, _, err := c.read("shard-0", tokenString(position{shard: "shard-0"})); err != nil {
			t.Fatal(err)
		}
		served := b.s.Snapshot()[0].Channels[0].Served
		b.src.setSaveErr(errFull)
		b.wantCode(c.checkpoint("shard-0", tokenString(position{shard: "shard-0", offset: 1}), 1), wire.CodeTunnelServerUnavailable)
		if got := b.s.Snapshot()[0].Channels[0].Served; served == 0 || got != served {
			t.Errorf("served %d before, %d after", served, got)
		}
	})
	t.Run("of a silent client prevent no other client from reading", func(t *testing.T) {
		b, id, c := begin(t)
		b.connect(id)
		b.clock.advance(2 * defaultTimeout / 3)
		c.heartbeat()
		b.src.setSaveErr(errFull)
		b.clock.advance(2 * defaultTimeout / 3) // the other client is silent for too long
		b.wantCode(c.tryHeartbeat(), wire.CodeTunnelServerUnavailable)
		b.must(c.tryHeartbeat())
	})
}

func unwrap(err error) error {
	var e *wire.Error
	if errors.As(err, &e) {
		return e
	}
	return err
}

// hook is a log handler that calls a function with each message.
type hook struct{ f func(message string) }

func (hook) Enabled(context.Context, slog.Level) bool { return true }
func (h hook) Handle(_ context.Context, r slog.Record) error {
	h.f(r.Message)
	return nil
}
func (h hook) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h hook) WithGroup(string) slog.Handler      { return h }
