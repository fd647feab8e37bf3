package tunnels

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// streamBench has a Stream tunnel on a table with n partitions.
func streamBench(t *testing.T, n int) (*bench, string) {
	t.Helper()
	b := newBench(t)
	b.src.createTable("tbl", strings.Split("bcdefghijkl", "")[:n-1]...)
	return b, b.create(stream)
}

func TestHeartbeat(t *testing.T) {
	t.Run("a reported CLOSE is answered with OPEN at a higher version in the same response", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.wantHeartbeat("shard-0:OPEN:1")
		c.set("shard-0", statusClose)
		c.wantHeartbeat("shard-0:OPEN:3")
	})
	t.Run("a reported CLOSE is left out when the channel goes to another client", func(t *testing.T) {
		b, id := streamBench(t, 2)
		c1 := b.connect(id)
		c1.wantHeartbeat("shard-0:OPEN:1 shard-1:OPEN:1")
		c2 := b.connect(id)
		c2.wantHeartbeat("")
		c1.wantHeartbeat("shard-0:OPEN:1 shard-1:CLOSING:2")
		c2.wantHeartbeat("") // not before it was closed
		c1.set("shard-1", statusClose)
		c1.wantHeartbeat("shard-0:OPEN:1")
		c2.wantHeartbeat("shard-1:OPEN:4")
	})
	t.Run("a reported TERMINATED is left out", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.heartbeat()
		b.src.split("tbl", "shard-0", "m")
		c.finish("shard-0")
		c.wantHeartbeat("shard-1:OPEN:1 shard-2:OPEN:1")
	})
	t.Run("a lost response is made up for by the next", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.heartbeat()
		c.set("shard-0", statusClose)
		report := c.channels["shard-0"]
		c.wantHeartbeat("shard-0:OPEN:3")
		c.channels["shard-0"] = report // as if the response had not arrived
		c.wantHeartbeat("shard-0:OPEN:3")
	})
	t.Run("an entry below the stored version changes nothing", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.heartbeat()
		c.channels["shard-0"] = &protocol.Channel{ChannelId: proto.String("shard-0"), Version: proto.Int64(0), Status: statusClose.Enum()}
		c.wantHeartbeat("shard-0:OPEN:1")
	})
	t.Run("a CLOSE that crosses the service's CLOSING at the same version counts", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.wantHeartbeat("shard-0:OPEN:1")
		c.set("shard-0", statusClose)
		b.must(b.s.Rebalance(id)) // to CLOSING, version 2 as well
		c.wantHeartbeat("shard-0:OPEN:4")
	})
	t.Run("a TERMINATED that crosses the service's CLOSING at the same version counts", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.heartbeat()
		b.src.split("tbl", "shard-0", "m")
		c.finish("shard-0")
		b.must(b.s.Rebalance(id))
		c.wantHeartbeat("shard-1:OPEN:1 shard-2:OPEN:1")
	})
	t.Run("an entry of a channel that belongs to another client changes nothing", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c1, c2 := b.connect(id), b.connect(id)
		c1.wantHeartbeat("shard-0:OPEN:1")
		c2.channels["shard-0"] = &protocol.Channel{ChannelId: proto.String("shard-0"), Version: proto.Int64(9), Status: statusClose.Enum()}
		c2.wantHeartbeat("")
		c1.wantHeartbeat("shard-0:OPEN:1")
	})
	t.Run("a channel is assigned with a version above any that the client has invented", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c1, c2 := b.connect(id), b.connect(id)
		c1.wantHeartbeat("shard-0:OPEN:1")
		b.must(c1.shutdown())
		c2.channels["shard-0"] = &protocol.Channel{ChannelId: proto.String("shard-0"), Version: proto.Int64(9), Status: statusOpen.Enum()}
		c2.wantHeartbeat("shard-0:OPEN:10")
	})
	t.Run("TERMINATED is accepted once the client was given the finish token, whatever the checkpoint", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.heartbeat()
		b.src.split("tbl", "shard-0", "m")
		token, _, err := c.getCheckpoint("shard-0")
		b.must(err)
		_, next, more, err := c.read("shard-0", token)
		b.must(err)
		if next != finishToken || more {
			t.Fatalf("next = %q, more = %v", next, more)
		}
		b.restart() // the service remembers that it has given the token
		c.set("shard-0", statusTerminated)
		c.wantHeartbeat("shard-1:OPEN:1 shard-2:OPEN:1")
	})
	t.Run("TERMINATED is not accepted because another owner was given the finish token", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c1, c2 := b.connect(id), b.connect(id)
		c1.heartbeat()
		b.src.split("tbl", "shard-0", "m")
		token, _, err := c1.getCheckpoint("shard-0")
		b.must(err)
		_, _, _, err = c1.read("shard-0", token)
		b.must(err)
		b.must(c1.shutdown())
		c2.wantHeartbeat("shard-0:OPEN:3")
		c2.set("shard-0", statusTerminated)
		c2.wantHeartbeat("shard-0:OPEN:5")
	})
	t.Run("TERMINATED of a channel that has not ended counts as CLOSE", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.heartbeat()
		c.set("shard-0", statusTerminated)
		c.wantHeartbeat("shard-0:OPEN:3")
	})
	t.Run("a stored finish token ends the channel without a report", func(t *testing.T) {
		// ex_aliyun_ots (Elixir) reports OPEN only, and test/tunnel/client_test.exs asks for the
		// checkpoint once more after it has stored the token.
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.heartbeat()
		b.src.split("tbl", "shard-0", "m")
		c.drain("shard-0")
		b.wantStatuses("shard-0:OPEN shard-1:WAIT shard-2:WAIT")
		if token, sequence, err := c.getCheckpoint("shard-0"); err != nil || token != finishToken || sequence != 1 {
			t.Errorf("the checkpoint is %q, %d, %v", token, sequence, err)
		}
		c.wantHeartbeat("shard-1:OPEN:1 shard-2:OPEN:1")
		b.wantStatuses("shard-0:TERMINATED shard-1:OPEN shard-2:OPEN")
		_, _, err := c.getCheckpoint("shard-0")
		b.wantCode(err, wire.CodeResourceGone)
	})
	t.Run("a stored finish token ends the channel with another client's heartbeat, shutdown or timeout", func(t *testing.T) {
		for name, end := range map[string]func(b *bench, owner *apiClient){
			"heartbeat": func(*bench, *apiClient) {},
			"shutdown":  func(b *bench, owner *apiClient) { b.must(owner.shutdown()) },
			"timeout":   func(b *bench, _ *apiClient) { b.clock.advance(301 * time.Second) },
		} {
			b, id := streamBench(t, 1)
			c1 := b.connect(id)
			c1.heartbeat()
			b.src.split("tbl", "shard-0", "m")
			c1.drain("shard-0")
			end(b, c1)
			if name != "heartbeat" {
				b.wantStatuses("shard-0:TERMINATED shard-1:WAIT shard-2:WAIT")
			}
			c2 := b.connect(id)
			c2.heartbeat()
			if got := b.describe().Channels[0].GetChannelStatus(); got != "TERMINATED" {
				t.Errorf("%s: %s", name, got)
			}
		}
	})
	t.Run("a finish token that only a client without the channel sends ends nothing", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c1, c2 := b.connect(id), b.connect(id)
		c1.wantHeartbeat("shard-0:OPEN:1")
		b.wantCode(c2.checkpoint("shard-0", finishToken, 1), wire.CodeResourceGone)
		c2.wantHeartbeat("")
		c1.wantHeartbeat("shard-0:OPEN:1")
	})
	t.Run("versions out of range are refused", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.heartbeat()
		for _, version := range []int64{-1, maxVersion + 1} {
			c.channels["shard-0"] = &protocol.Channel{ChannelId: proto.String("shard-0"), Version: &version, Status: statusClose.Enum()}
			b.wantCode(c.tryHeartbeat(), wire.CodeParameterInvalid)
		}
	})
}

func TestClients(t *testing.T) {
	t.Run("a silent client loses its channels after its own timeout", func(t *testing.T) {
		b, id := streamBench(t, 2)
		c1, err := b.tryConnect(id, 10*time.Second)
		b.must(err)
		c2, err := b.tryConnect(id, 60*time.Second)
		b.must(err)
		c1.wantHeartbeat("shard-0:OPEN:1 shard-1:OPEN:1")
		b.clock.advance(10 * time.Second)
		c2.wantHeartbeat("") // not yet: the timeout has to be exceeded
		c1.wantHeartbeat("shard-0:OPEN:1 shard-1:CLOSING:2")
		b.clock.advance(10*time.Second + 1)
		c2.wantHeartbeat("shard-0:OPEN:3 shard-1:OPEN:4")
		b.wantCode(c1.tryHeartbeat(), wire.CodeResourceGone)
		_, _, err = c1.getCheckpoint("shard-0")
		b.wantCode(err, wire.CodeResourceGone)
		b.wantCode(c1.checkpoint("shard-0", "x", 1), wire.CodeResourceGone)
		_, _, _, err = c1.read("shard-0", "x")
		b.wantCode(err, wire.CodeResourceGone)
	})
	t.Run("one that is not connected is told so in the service's words", func(t *testing.T) {
		// broadway_ots compares the whole text.
		b, id := streamBench(t, 1)
		c := b.connect(id)
		b.must(c.shutdown())
		calls := everyClientCall(c)
		calls["shutdown"] = c.shutdown()
		for op, err := range calls {
			if op == "connect" {
				continue
			}
			b.wantCode(err, wire.CodeResourceGone)
			var e *wire.Error
			if !errors.As(err, &e) || e.Message != "[tunnelservice] client not exist" {
				t.Errorf("%s: %v", op, err)
			}
		}
	})
	t.Run("shutdown frees the channels at once", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c1, c2 := b.connect(id), b.connect(id)
		c1.wantHeartbeat("shard-0:OPEN:1")
		b.must(c1.shutdown())
		b.wantStatuses("shard-0:WAIT")
		c2.wantHeartbeat("shard-0:OPEN:3")
		b.wantCode(c1.shutdown(), wire.CodeResourceGone)
		b.wantCode(c1.tryHeartbeat(), wire.CodeResourceGone)
	})
	t.Run("a client that does not own a channel can neither read nor commit it", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c1, c2 := b.connect(id), b.connect(id)
		c1.heartbeat()
		c2.heartbeat()
		token, _, err := c1.getCheckpoint("shard-0")
		b.must(err)
		_, _, err = c2.getCheckpoint("shard-0")
		b.wantCode(err, wire.CodeResourceGone)
		_, _, _, err = c2.read("shard-0", token)
		b.wantCode(err, wire.CodeResourceGone)
		b.wantCode(c2.checkpoint("shard-0", token, 1), wire.CodeResourceGone)
		_, _, err = c1.getCheckpoint("nonsense")
		b.wantCode(err, wire.CodeParameterInvalid)
	})
	t.Run("a CLOSING channel may still be read and committed by its owner", func(t *testing.T) {
		b, id := streamBench(t, 1)
		b.src.put("tbl", "a", "1")
		c := b.connect(id)
		c.heartbeat()
		b.must(b.s.Rebalance(id))
		c.wantHeartbeat("shard-0:CLOSING:2")
		rows, _ := c.drain("shard-0")
		wantRows(t, rows, "a=1")
		c.set("shard-0", statusClose)
		c.wantHeartbeat("shard-0:OPEN:4")
		c.set("shard-0", statusClose)
		b.must(c.schedule("shard-0", statusClosing))
		c.wantHeartbeat("")
		_, _, _, err := c.read("shard-0", "x")
		b.wantCode(err, wire.CodeResourceGone)
	})
	t.Run("are bounded in number", func(t *testing.T) {
		b, id := streamBench(t, 1)
		for range maxClients {
			b.connect(id)
		}
		_, err := b.tryConnect(id, time.Minute)
		b.wantCode(err, wire.CodeQuotaExhausted)
		b.clock.advance(301 * time.Second)
		b.connect(id) // the other clients were silent
	})
	t.Run("the id consists of the tag and random text, and timeouts are bounded", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		if !strings.HasPrefix(c.id, "tag_") || len(c.id) < 12 {
			t.Errorf("client id = %q", c.id)
		}
		for seconds, want := range map[int64]time.Duration{0: defaultTimeout, 7: 7 * time.Second, 1 << 62: maxTimeout} {
			resp := &protocol.ConnectResponse{}
			b.must(b.call("connect", &protocol.ConnectRequest{TunnelId: &id, ClientConfig: &protocol.ClientConfig{Timeout: &seconds, ClientTag: proto.String("\xff" + strings.Repeat("x", 300))}}, resp))
			for _, c := range b.s.Snapshot()[0].Clients {
				if c.ClientID == resp.GetClientId() && (c.Timeout != want || len(c.Tag) >= maxTagBytes) {
					t.Errorf("timeout of %d s = %v, want %v; tag of %d bytes", seconds, c.Timeout, want, len(c.Tag))
				}
			}
		}
		err := b.call("connect", &protocol.ConnectRequest{TunnelId: &id, ClientConfig: &protocol.ClientConfig{Timeout: proto.Int64(-1)}}, &protocol.ConnectResponse{})
		b.wantCode(err, wire.CodeParameterInvalid)
	})
}

func TestLogger(t *testing.T) {
	t.Run("logs clients that time out and channels that change owners", func(t *testing.T) {
		var out strings.Builder
		b := newBench(t)
		b.cfg.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		b.restart()
		id := b.create(stream)
		c := b.connect(id)
		c.heartbeat()
		b.clock.advance(301 * time.Second)
		b.describe()
		for _, want := range []string{
			`msg="tunnel created" tunnel_id=` + id,
			`msg="client connected" tunnel_id=` + id + ` client_id=` + c.id,
			`msg="channel moved" channel_id=shard-0 from=WAIT to=OPEN client_id=` + c.id + ` version=1`,
			`msg="client timed out" client_id=` + c.id,
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %s in\n%s", want, out.String())
			}
		}
	})
}

func TestBalance(t *testing.T) {
	// settle makes all clients answer CLOSING with CLOSE until nothing changes
	// for a round.
	settle := func(t *testing.T, clients ...*apiClient) {
		t.Helper()
		for range 20 {
			before := ""
			after := ""
			for _, c := range clients {
				before += c.held() + "|"
				for id, ch := range c.channels {
					if ch.GetStatus() == statusClosing {
						c.set(id, statusClose)
					}
				}
				after += c.heartbeat() + "|"
			}
			if before == after {
				return
			}
		}
		t.Fatal("the balance does not settle")
	}
	t.Run("channels are spread evenly, and then stay where they are", func(t *testing.T) {
		for n := 1; n <= 7; n++ {
			for clients := 1; clients <= 4; clients++ {
				b, id := streamBench(t, n)
				var all []*apiClient
				for range clients {
					c := b.connect(id)
					all = append(all, c)
					c.heartbeat()
					settle(t, all...)
				}
				least, most := n, 0
				for _, c := range all {
					least, most = min(least, len(c.channels)), max(most, len(c.channels))
				}
				if most-least > 1 {
					t.Errorf("%d channels, %d clients: between %d and %d each", n, clients, least, most)
				}
				for _, c := range all {
					if before, after := c.held(), c.heartbeat(); before != after {
						t.Errorf("%d channels, %d clients: %s became %s", n, clients, before, after)
					}
				}
			}
		}
	})
	t.Run("a client that only connected takes no share", func(t *testing.T) {
		b, id := streamBench(t, 2)
		c1 := b.connect(id)
		b.connect(id)
		c1.wantHeartbeat("shard-0:OPEN:1 shard-1:OPEN:1")
		c1.wantHeartbeat("shard-0:OPEN:1 shard-1:OPEN:1")
	})
	t.Run("more clients than channels leave the rest idle", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c1, c2 := b.connect(id), b.connect(id)
		c1.wantHeartbeat("shard-0:OPEN:1")
		for range 3 {
			c2.wantHeartbeat("")
			c1.wantHeartbeat("shard-0:OPEN:1")
		}
	})
	t.Run("a client that gave up an additional channel does not get it back, however many heartbeats it sends", func(t *testing.T) {
		b, id := streamBench(t, 2)
		c1 := b.connect(id)
		c1.wantHeartbeat("shard-0:OPEN:1 shard-1:OPEN:1")
		c2, c3 := b.connect(id), b.connect(id)
		c2.heartbeat()
		c3.heartbeat()
		c1.wantHeartbeat("shard-0:OPEN:1 shard-1:CLOSING:2")
		c1.set("shard-1", statusClose)
		for range 3 {
			c1.wantHeartbeat("shard-0:OPEN:1")
		}
		c3.wantHeartbeat("shard-1:OPEN:4")
		c2.wantHeartbeat("")
	})
	t.Run("a client that leaves has its channels shared among the others", func(t *testing.T) {
		b, id := streamBench(t, 6)
		var all []*apiClient
		for range 3 {
			all = append(all, b.connect(id))
			all[len(all)-1].heartbeat()
			settle(t, all...)
		}
		b.must(all[0].shutdown())
		settle(t, all[1:]...)
		if len(all[1].channels) != 3 || len(all[2].channels) != 3 {
			t.Errorf("channels = %q, %q", all[1].held(), all[2].held())
		}
	})
	t.Run("a forced rebalance moves every channel that can move", func(t *testing.T) {
		for clients := 1; clients <= 3; clients++ {
			b, id := streamBench(t, 3)
			var all []*apiClient
			for range clients {
				all = append(all, b.connect(id))
				all[len(all)-1].heartbeat()
				settle(t, all...)
			}
			owners := make(map[string]string)
			for _, ch := range b.s.Snapshot()[0].Channels {
				owners[ch.ChannelID] = ch.ClientID
			}
			b.must(b.s.Rebalance(id))
			settle(t, all...)
			moved := 0
			for _, ch := range b.s.Snapshot()[0].Channels {
				if ch.Status != StatusOpen {
					t.Errorf("%d clients: %s is %s", clients, ch.ChannelID, ch.Status)
				}
				if owners[ch.ChannelID] != ch.ClientID {
					moved++
				}
			}
			if want := map[int]int{1: 0, 2: 3, 3: 2}[clients]; moved < want {
				t.Errorf("%d clients: %d channels moved, want at least %d", clients, moved, want)
			}
		}
	})
}

func TestCheckpoint(t *testing.T) {
	t.Run("a fresh channel has its start token and number 0", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.heartbeat()
		token, sequence, err := c.getCheckpoint("shard-0")
		b.must(err)
		p, err := parseToken([]byte(token))
		if err != nil || p.shard != "shard-0" || sequence != 0 {
			t.Fatalf("token %q = %+v (%v), sequence %d", token, p, err, sequence)
		}
	})
	t.Run("the number must follow the stored one directly", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.heartbeat()
		token, _, err := c.getCheckpoint("shard-0")
		b.must(err)
		for _, sequence := range []int64{0, 2, -1} {
			b.wantCode(c.checkpoint("shard-0", token, sequence), wire.CodeSequenceNumberNotMatch)
		}
		b.must(c.checkpoint("shard-0", token, 1))
		b.wantCode(c.checkpoint("shard-0", token, 1), wire.CodeSequenceNumberNotMatch) // a repeated request
		b.must(c.checkpoint("shard-0", token, 2))
	})
	t.Run("the next owner continues from it", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c1, c2 := b.connect(id), b.connect(id)
		c1.heartbeat()
		b.src.put("tbl", "a", "1")
		c1.drain("shard-0")
		b.src.put("tbl", "a", "2")
		b.must(c1.shutdown())
		c2.heartbeat()
		_, sequence, err := c2.getCheckpoint("shard-0")
		b.must(err)
		if sequence != 1 {
			t.Errorf("sequence = %d", sequence)
		}
		rows, _ := c2.drain("shard-0")
		wantRows(t, rows, "a=2")
	})
	t.Run("an undecodable or foreign token is refused, as it would hang the SDK", func(t *testing.T) {
		b, id := streamBench(t, 2)
		c := b.connect(id)
		c.heartbeat()
		foreign, _, err := c.getCheckpoint("shard-1")
		b.must(err)
		for _, token := range []string{"", "nonsense", "AAAA", foreign, tokenString(position{}), tokenString(position{shard: "shard-0", offset: -1})} {
			b.wantCode(c.checkpoint("shard-0", token, 1), wire.CodeParameterInvalid)
			_, _, _, err := c.read("shard-0", token)
			b.wantCode(err, wire.CodeParameterInvalid)
		}
	})
}

func TestRestart(t *testing.T) {
	t.Run("looks like a pause: clients, channels, checkpoints and versions stay", func(t *testing.T) {
		b, id := streamBench(t, 2)
		c1, c2 := b.connect(id), b.connect(id)
		c1.heartbeat()
		c2.heartbeat()
		b.src.put("tbl", "a", "1")
		b.src.split("tbl", "shard-1", "m")
		c1.drain("shard-0")
		c1.heartbeat()
		before := fmt.Sprint(b.statuses(), c1.held())
		b.clock.advance(time.Hour) // the process was down for longer than the timeouts
		b.restart()
		c1.heartbeat()
		if after := fmt.Sprint(b.statuses(), c1.held()); before != after {
			t.Fatalf("before: %s\nafter: %s", before, after)
		}
		c2.heartbeat()
		_, sequence, err := c1.getCheckpoint("shard-0")
		if err != nil || sequence != 1 {
			t.Fatalf("sequence = %d, %v", sequence, err)
		}
		c1.finish("shard-1")
		c1.heartbeat()
		b.restart()
		b.wantStatuses("shard-0:OPEN shard-1:TERMINATED shard-2:OPEN shard-3:WAIT")
		c2.heartbeat()
		c2.heartbeat()
		b.wantStatuses("shard-0:OPEN shard-1:TERMINATED shard-2:OPEN shard-3:OPEN")
	})
	t.Run("a client that has not reconnected yet keeps its share", func(t *testing.T) {
		b, id := streamBench(t, 2)
		c1, c2 := b.connect(id), b.connect(id)
		for range 3 {
			for _, c := range []*apiClient{c1, c2} {
				for id, ch := range c.channels {
					if ch.GetStatus() == statusClosing {
						c.set(id, statusClose)
					}
				}
				c.heartbeat()
			}
		}
		b.wantStatuses("shard-0:OPEN shard-1:OPEN")
		b.restart()
		c1.wantHeartbeat("shard-0:OPEN:1")
		b.wantStatuses("shard-0:OPEN shard-1:OPEN")
	})
	t.Run("a damaged state is an error that names the entry", func(t *testing.T) {
		for name, value := range map[string]string{
			"no JSON": "{", "other version": `{"Unheard":1}`, "no tunnel": `{"TunnelID":"x","ID":"y"}`,
		} {
			for _, prefix := range []string{tunnelPrefix, channelPrefix, clientPrefix} {
				if name == "no tunnel" && prefix == tunnelPrefix {
					continue
				}
				src := newFakeSource(time.Now)
				src.state[prefix+"k"] = []byte(value)
				_, err := New(src, Config{})
				if err == nil || !strings.Contains(err.Error(), prefix+"k") {
					t.Errorf("%s in %sk: %v", name, prefix, err)
				}
			}
		}
	})
	t.Run("a deleted tunnel leaves nothing behind", func(t *testing.T) {
		b, id := streamBench(t, 2)
		b.connect(id).heartbeat()
		b.must(b.call("delete", &protocol.DeleteTunnelRequest{TableName: proto.String("tbl"), TunnelName: proto.String("tun")}, nil))
		if len(b.src.state) != 0 {
			t.Errorf("left: %v", sortedKeys(b.src.state))
		}
		b.restart()
		if got := b.s.Snapshot(); len(got) != 0 {
			t.Errorf("tunnels = %v", got)
		}
	})
}
