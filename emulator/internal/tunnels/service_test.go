package tunnels

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

const (
	base   = protocol.TunnelType_BaseData
	stream = protocol.TunnelType_Stream
	both   = protocol.TunnelType_BaseAndStream

	statusOpen       = protocol.ChannelStatus_OPEN
	statusClosing    = protocol.ChannelStatus_CLOSING
	statusClose      = protocol.ChannelStatus_CLOSE
	statusTerminated = protocol.ChannelStatus_TERMINATED
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
func itoa(n int64) string                       { return strconv.FormatInt(n, 10) }

func wantRows(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("rows = %q, want %q", got, want)
	}
}

func TestBaseAndStream(t *testing.T) {
	t.Run("continues from base to stream without a gap", func(t *testing.T) {
		b := newBench(t)
		b.src.put("tbl", "a", "1")
		id := b.create(both)
		b.src.put("tbl", "b", "2") // after the creation: in the base scan, and in the stream as well
		baseID := baseChannelPrefix + id + "_0"
		b.wantStatuses(baseID + ":WAIT shard-0:WAIT")

		c := b.connect(id)
		c.wantHeartbeat(baseID + ":OPEN:1")
		if got := b.describe().Tunnel.GetStage(); got != "ProcessBaseData" {
			t.Fatalf("stage = %s", got)
		}
		wantRows(t, c.finish(baseID), "a=1", "b=2")
		c.wantHeartbeat("shard-0:OPEN:1")
		if got := b.describe().Tunnel.GetStage(); got != "ProcessStream" {
			t.Fatalf("stage = %s", got)
		}
		rows, _ := c.drain("shard-0")
		wantRows(t, rows, "b=2")
	})
	t.Run("opens no stream channel before every base channel is TERMINATED", func(t *testing.T) {
		b := newBench(t)
		b.src.createTable("tbl", "m")
		id := b.create(both)
		first, second := baseChannelPrefix+id+"_0", baseChannelPrefix+id+"_1"
		c := b.connect(id)
		c.wantHeartbeat(first + ":OPEN:1 " + second + ":OPEN:1")
		c.finish(first)
		c.wantHeartbeat(second + ":OPEN:1")
		c.finish(second)
		c.wantHeartbeat("shard-0:OPEN:1 shard-1:OPEN:1")
	})
	t.Run("reads each base row once over several pages and ranges", func(t *testing.T) {
		b := newBench(t)
		b.cfg.MaxRows = 2
		b.restart()
		b.src.createTable("tbl", "c", "f")
		var want []string
		for _, key := range strings.Split("abcdefgh", "") {
			b.src.put("tbl", key, "1")
			want = append(want, key+"=1")
		}
		id := b.create(base)
		c := b.connect(id)
		c.heartbeat()
		var got []string
		for i := range 3 {
			got = append(got, c.finish(baseChannelPrefix+id+"_"+itoa(int64(i)))...)
		}
		wantRows(t, got, want...)
		c.wantHeartbeat("")
		// Java's TestTunnelConsumer and TestTunnelWorker wait for it.
		if got := b.describe().Tunnel.GetStage(); got != "ProcessStream" {
			t.Fatalf("stage = %s after a BaseData tunnel is consumed", got)
		}
	})
}

func TestSplitAndMerge(t *testing.T) {
	t.Run("opens children only after all parents are TERMINATED", func(t *testing.T) {
		b := newBench(t)
		id := b.create(stream)
		b.src.put("tbl", "a", "1")
		b.src.put("tbl", "x", "1")
		c := b.connect(id)
		c.wantHeartbeat("shard-0:OPEN:1")

		b.src.split("tbl", "shard-0", "m")
		b.src.put("tbl", "a", "2")
		b.src.put("tbl", "x", "2")
		c.wantHeartbeat("shard-0:OPEN:1")
		b.wantStatuses("shard-0:OPEN shard-1:WAIT shard-2:WAIT")
		wantRows(t, c.finish("shard-0"), "a=1", "x=1")
		c.wantHeartbeat("shard-1:OPEN:1 shard-2:OPEN:1")

		b.src.merge("tbl", "shard-1", "shard-2")
		b.src.put("tbl", "a", "3")
		wantRows(t, c.finish("shard-1"), "a=2")
		c.wantHeartbeat("shard-2:OPEN:1") // one parent of the merge has not ended
		wantRows(t, c.finish("shard-2"), "x=2")
		c.wantHeartbeat("shard-3:OPEN:1")
		rows, _ := c.drain("shard-3")
		wantRows(t, rows, "a=3")
		b.wantStatuses("shard-0:TERMINATED shard-1:TERMINATED shard-2:TERMINATED shard-3:OPEN")
	})
	t.Run("finds several generations that came and went while no client was connected", func(t *testing.T) {
		b := newBench(t)
		id := b.create(stream)
		b.src.split("tbl", "shard-0", "m")
		b.src.split("tbl", "shard-1", "f")
		b.src.put("tbl", "g", "1")
		b.src.merge("tbl", "shard-4", "shard-2")
		c := b.connect(id)
		c.wantHeartbeat("shard-0:OPEN:1")
		c.finish("shard-0")
		c.wantHeartbeat("shard-1:OPEN:1 shard-2:OPEN:1")
		c.finish("shard-1")
		c.finish("shard-2")
		c.wantHeartbeat("shard-3:OPEN:1 shard-4:OPEN:1")
		wantRows(t, c.finish("shard-4"), "g=1")
		c.wantHeartbeat("shard-3:OPEN:1 shard-5:OPEN:1")
	})
	t.Run("leaves out shards that ended before the tunnel was created", func(t *testing.T) {
		b := newBench(t)
		b.src.Stream(b.tableID(), true)
		b.src.put("tbl", "a", "1")
		b.src.split("tbl", "shard-0", "m")
		id := b.create(stream)
		b.wantStatuses("shard-1:WAIT shard-2:WAIT")
		b.connect(id).wantHeartbeat("shard-1:OPEN:1 shard-2:OPEN:1")
	})
}

func TestStart(t *testing.T) {
	// three records, a minute apart; the tunnel is created two minutes later
	setup := func(t *testing.T) (*bench, []time.Time) {
		b := newBench(t)
		b.src.Stream(b.tableID(), true)
		var times []time.Time
		for _, v := range []string{"1", "2", "3"} {
			times = append(times, b.clock.now())
			b.src.put("tbl", "a", v)
			b.clock.advance(time.Minute)
		}
		b.clock.advance(time.Minute)
		return b, times
	}
	rows := func(b *bench, cfg *protocol.StreamTunnelConfig) []string {
		id, err := b.tryCreate("tun", stream, cfg)
		b.must(err)
		b.src.put("tbl", "a", "4")
		c := b.connect(id)
		c.heartbeat()
		rows, _ := c.drain("shard-0")
		return rows
	}
	ns := func(at time.Time) *uint64 { return proto.Uint64(uint64(at.UnixNano())) }

	t.Run("LATEST is the creation", func(t *testing.T) {
		b, _ := setup(t)
		wantRows(t, rows(b, nil), "a=4")
	})
	t.Run("EARLIEST is the oldest record kept", func(t *testing.T) {
		b, _ := setup(t)
		b.src.trim("tbl", "shard-0", 1)
		wantRows(t, rows(b, &protocol.StreamTunnelConfig{Flag: protocol.StartOffsetFlag_EARLIEST.Enum()}), "a=2", "a=3", "a=4")
	})
	t.Run("a start offset in nanoseconds is inclusive and wins over the flag", func(t *testing.T) {
		b, times := setup(t)
		wantRows(t, rows(b, &protocol.StreamTunnelConfig{Flag: protocol.StartOffsetFlag_EARLIEST.Enum(), StartOffset: ns(times[1])}), "a=2", "a=3", "a=4")
	})
	t.Run("an end offset is exclusive and finishes the channel", func(t *testing.T) {
		b, times := setup(t)
		id, err := b.tryCreate("tun", stream, &protocol.StreamTunnelConfig{StartOffset: ns(times[0]), EndOffset: ns(times[2])})
		b.must(err)
		c := b.connect(id)
		c.heartbeat()
		wantRows(t, c.finish("shard-0"), "a=1", "a=2")
		c.wantHeartbeat("")
	})
	t.Run("an end offset finishes a channel that gets no more records", func(t *testing.T) {
		b, times := setup(t)
		id, err := b.tryCreate("tun", stream, &protocol.StreamTunnelConfig{StartOffset: ns(times[0]), EndOffset: ns(b.clock.now().Add(time.Minute))})
		b.must(err)
		c := b.connect(id)
		c.heartbeat()
		if _, finished := c.drain("shard-0"); finished {
			t.Fatal("finished before the end offset")
		}
		b.clock.advance(time.Minute)
		c.finish("shard-0")
	})
	t.Run("shards that begin after the end do not become channels", func(t *testing.T) {
		b, _ := setup(t)
		end := b.clock.now().Add(time.Minute)
		id, err := b.tryCreate("tun", stream, &protocol.StreamTunnelConfig{EndOffset: ns(end)})
		b.must(err)
		b.clock.advance(2 * time.Minute)
		b.src.split("tbl", "shard-0", "m")
		c := b.connect(id)
		c.wantHeartbeat("shard-0:OPEN:1")
		c.finish("shard-0")
		c.wantHeartbeat("")
		b.restart()
		c.wantHeartbeat("")
		b.wantStatuses("shard-0:TERMINATED")
	})
	t.Run("offsets that the log cannot serve are refused", func(t *testing.T) {
		b, times := setup(t)
		now := b.clock.now()
		for name, cfg := range map[string]*protocol.StreamTunnelConfig{
			"start in the future":                {StartOffset: ns(now.Add(time.Nanosecond))},
			"start that is about to be dropped":  {StartOffset: ns(now.Add(-fakeExpiration + startMargin - 1))},
			"end at the start":                   {StartOffset: ns(times[1]), EndOffset: ns(times[1])},
			"end before the creation, LATEST":    {EndOffset: ns(times[1])},
			"start that does not fit into int64": {StartOffset: proto.Uint64(1 << 63)},
		} {
			if _, err := b.tryCreate("tun", stream, cfg); err == nil {
				t.Errorf("%s: accepted", name)
			} else {
				b.wantCode(err, wire.CodeParameterInvalid)
			}
		}
		b.src.trim("tbl", "shard-0", 1)
		_, err := b.tryCreate("tun", stream, &protocol.StreamTunnelConfig{StartOffset: ns(times[0])})
		b.wantCode(err, wire.CodeParameterInvalid)
		_, err = b.tryCreate("tun", stream, &protocol.StreamTunnelConfig{StartOffset: ns(now.Add(-fakeExpiration + startMargin))})
		b.wantCode(err, wire.CodeParameterInvalid) // in the window, but dropped
	})
}
