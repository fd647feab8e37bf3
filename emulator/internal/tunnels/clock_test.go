package tunnels

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

func TestClockSetForwardAndBack(t *testing.T) {
	for _, back := range []time.Duration{time.Minute, time.Hour, 1000 * time.Hour} {
		t.Run(fmt.Sprintf("a silent client expires on time though the clock was set back by %v", back), func(t *testing.T) {
			b, id := streamBench(t, 1)
			b.clock.advance(back)
			silent, other := b.connect(id), b.connect(id)
			silent.heartbeat()
			b.clock.advance(-back)
			b.must(other.tryHeartbeat()) // makes the service read its clock
			b.clock.advance(defaultTimeout - time.Second)
			b.must(other.tryHeartbeat())
			b.wantStatuses("shard-0:OPEN")
			b.clock.advance(2 * time.Second)
			other.wantHeartbeat("shard-0:OPEN:3")
			b.wantCode(silent.tryHeartbeat(), wire.CodeResourceGone)
		})
	}
	t.Run("a step forward expires a client that it makes silent", func(t *testing.T) {
		b, id := streamBench(t, 1)
		b.clock.advance(time.Hour)
		b.connect(id)
		b.clock.advance(-time.Hour)
		c := b.connect(id)
		c.heartbeat()
		b.clock.advance(defaultTimeout + time.Second)
		b.wantCode(c.tryHeartbeat(), wire.CodeResourceGone)
	})
}

func TestCheckpointAheadOfTheLog(t *testing.T) {
	b, id := streamBench(t, 1)
	c := b.connect(id)
	c.heartbeat()
	b.src.put("tbl", "a", "1")
	ahead := tokenString(position{shard: "shard-0", offset: 2})
	err := c.checkpoint("shard-0", ahead, 1)
	b.wantCode(err, wire.CodeParameterInvalid)
	if !strings.Contains(err.Error(), "shard-0") || !strings.Contains(err.Error(), "at record 2, and the log ends at 1") {
		t.Errorf("got %v", err)
	}
	other := b.connect(id)
	b.wantCode(other.checkpoint("shard-0", ahead, 1), wire.CodeResourceGone) // a client without ownership learns nothing more
	b.wantCode(c.checkpoint("shard-0", ahead, 7), wire.CodeSequenceNumberNotMatch)
	b.must(c.checkpoint("shard-0", tokenString(position{shard: "shard-0", offset: 1}), 1))
	b.must(c.checkpoint("shard-0", tokenString(position{shard: "shard-0"}), 2))
}

func TestEndedChannels(t *testing.T) {
	t.Run("are listed until the log of their shard expires, and then pruned", func(t *testing.T) {
		b, id := streamBench(t, 1)
		b.src.split("tbl", "shard-0", "m")
		c := b.connect(id)
		c.heartbeat()
		c.finish("shard-0")
		c.heartbeat()
		b.wantStatuses("shard-0:TERMINATED shard-1:OPEN shard-2:OPEN")
		b.src.forget("tbl", "shard-0")
		b.clock.advance(2 * logCheckInterval)
		c.heartbeat()
		b.wantStatuses("shard-1:OPEN shard-2:OPEN")
		for key := range b.src.state {
			if strings.HasSuffix(key, "shard-0") {
				t.Errorf("%s is still saved", key)
			}
		}
		if b.s.Snapshot()[0].Expired {
			t.Error("the tunnel has expired")
		}
	})
	t.Run("leave the others in their order", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		for n, at := range []string{"m", "c"} {
			shard := fmt.Sprintf("shard-%d", n)
			b.src.split("tbl", shard, at)
			c.heartbeat()
			c.finish(shard)
			c.heartbeat()
		}
		b.src.forget("tbl", "shard-0")
		b.src.forget("tbl", "shard-1")
		b.clock.advance(2 * logCheckInterval)
		c.heartbeat()
		b.src.split("tbl", "shard-2", "s")
		c.heartbeat()
		want := "shard-2:OPEN shard-3:OPEN shard-4:OPEN shard-5:WAIT shard-6:WAIT"
		b.wantStatuses(want)
		b.restart()
		b.wantStatuses(want)
	})
	t.Run("that are not TERMINATED are not pruned", func(t *testing.T) {
		b, id := streamBench(t, 1)
		b.src.split("tbl", "shard-0", "m")
		c := b.connect(id)
		c.heartbeat()
		c.finish("shard-0") // its end is stored, and not reported yet
		b.src.forget("tbl", "shard-0")
		b.s.changes.Add(1)
		b.wantStatuses("shard-0:OPEN shard-1:WAIT shard-2:WAIT")
		c.wantHeartbeat("shard-1:OPEN:1 shard-2:OPEN:1")
	})
	t.Run("do not keep shards that the tunnel never read", func(t *testing.T) {
		b := newBench(t)
		b.src.createTable("tbl")
		if _, err := b.src.Stream("tbl#2", true); err != nil {
			t.Fatal(err)
		}
		first := b.src.open("tbl")[0].ID
		b.src.split("tbl", first, "m")
		b.create(stream)
		tun := b.s.sorted()[0]
		if len(tun.Ignored) != 1 {
			t.Fatalf("ignored are %v", tun.Ignored)
		}
		b.src.forget("tbl", first)
		b.describe()
		if len(tun.Ignored) != 0 {
			t.Errorf("ignored are still %v", tun.Ignored)
		}
	})
}

// TestReportsThatCross reports versions equal to that of the service's own
// change: then only the end of a channel counts.
func TestReportsThatCross(t *testing.T) {
	report := func(b *bench, c *apiClient, version int64, status protocol.ChannelStatus) string {
		b.Helper()
		var resp protocol.HeartbeatResponse
		b.must(b.call("heartbeat", &protocol.HeartbeatRequest{TunnelId: &c.tunnelID, ClientId: &c.id, Channels: []*protocol.Channel{
			{ChannelId: proto.String("shard-0"), Version: &version, Status: status.Enum()},
		}}, &resp))
		if len(resp.Channels) == 0 {
			return "-"
		}
		return fmt.Sprint(resp.Channels[0].GetStatus(), ":", resp.Channels[0].GetVersion())
	}
	for _, v := range []struct {
		name    string
		version int64
		status  protocol.ChannelStatus
		want    string // of the answer
	}{
		{"CLOSE with the version of CLOSING counts", 2, protocol.ChannelStatus_CLOSE, "OPEN:4"},
		{"TERMINATED with the version of CLOSING counts as CLOSE, as nothing was read", 2, protocol.ChannelStatus_TERMINATED, "OPEN:4"},
		{"CLOSE with a higher version counts", 3, protocol.ChannelStatus_CLOSE, "OPEN:4"},
		{"CLOSE with a lower version does not", 1, protocol.ChannelStatus_CLOSE, "CLOSING:2"},
		{"OPEN with the version of CLOSING does not", 2, protocol.ChannelStatus_OPEN, "CLOSING:2"},
		{"OPEN with a lower version does not", 1, protocol.ChannelStatus_OPEN, "CLOSING:2"},
	} {
		t.Run(v.name, func(t *testing.T) {
			b, id := streamBench(t, 1)
			c := b.connect(id)
			c.wantHeartbeat("shard-0:OPEN:1")
			b.must(b.s.Rebalance(id))
			if got := report(b, c, v.version, v.status); got != v.want {
				t.Errorf("the answer is %s, want %s", got, v.want)
			}
		})
	}
}
