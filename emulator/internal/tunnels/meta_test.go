package tunnels

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

func TestCreate(t *testing.T) {
	t.Run("a second tunnel of that name is OTSTunnelExist and names the first", func(t *testing.T) {
		b := newBench(t)
		id := b.create(stream)
		_, err := b.tryCreate("tun", base, nil)
		b.wantCode(err, wire.CodeTunnelExist)
		if got := err.(*wire.Error).TunnelID; got != id {
			t.Errorf("tunnel id = %q, want %q", got, id)
		}
		_, err = b.tryCreate("tun2", base, nil)
		b.must(err)
	})
	t.Run("turns the stream on for stream tunnels only", func(t *testing.T) {
		b := newBench(t)
		b.create(base)
		if info, _ := b.src.Stream(b.tableID(), false); info.Enabled {
			t.Error("a BaseData tunnel turned the stream on")
		}
		if got := b.describe().Tunnel.GetStreamId(); got != "" {
			t.Errorf("stream id = %q", got)
		}
		_, err := b.tryCreate("other", both, nil)
		b.must(err)
		if info, _ := b.src.Stream(b.tableID(), false); !info.Enabled {
			t.Error("a BaseAndStream tunnel left the stream off")
		}
	})
	t.Run("refuses a missing table and bad names", func(t *testing.T) {
		b := newBench(t)
		for _, name := range []string{"", "a\nb", "\xff", strings.Repeat("x", maxNameBytes+1)} {
			_, err := b.tryCreate(name, stream, nil)
			b.wantCode(err, wire.CodeParameterInvalid)
		}
		b.src.dropTable("tbl")
		_, err := b.tryCreate("tun", stream, nil)
		b.wantCode(err, wire.CodeParameterInvalid)
		b.wantCode(b.call("list", &protocol.ListTunnelRequest{TableName: proto.String("tbl")}, &protocol.ListTunnelResponse{}), wire.CodeParameterInvalid)
	})
}

func TestDescribe(t *testing.T) {
	t.Run("fills every field that SDKs dereference or parse strictly", func(t *testing.T) {
		b := newBench(t)
		id := b.create(both)
		c := b.connect(id)
		c.heartbeat()
		d := b.describe()
		tun := d.Tunnel
		if tun.GetTunnelId() != id || tun.GetTunnelType() != "BaseAndStream" || tun.GetTableName() != "tbl" || tun.GetInstanceName() != "inst" ||
			tun.GetStreamId() != "stream-1" || tun.GetStage() != "ProcessBaseData" || tun.GetTunnelName() != "tun" || tun.GetExpired() ||
			tun.GetCreateTime() != b.clock.now().UnixNano() {
			t.Errorf("tunnel = %v", tun)
		}
		if len(d.Channels) != 2 {
			t.Fatalf("channels = %v", d.Channels)
		}
		first, second := d.Channels[0], d.Channels[1]
		if first.GetChannelType() != "BaseData" || first.GetChannelStatus() != "OPEN" || first.GetClientId() != c.id || first.ChannelRpo == nil || first.ChannelCount == nil {
			t.Errorf("channel = %v", first)
		}
		if second.GetChannelType() != "Stream" || second.GetChannelStatus() != "WAIT" || second.ClientId == nil || second.GetClientId() != "" {
			t.Errorf("channel = %v", second)
		}
	})
	t.Run("refuses an id that is another tunnel's", func(t *testing.T) {
		b := newBench(t)
		b.create(stream)
		b.wantCode(b.call("describe", &protocol.DescribeTunnelRequest{TableName: proto.String("tbl"), TunnelName: proto.String("tun"), TunnelId: proto.String("x")},
			&protocol.DescribeTunnelResponse{}), wire.CodeParameterInvalid)
	})
	t.Run("lists tunnels by table, or all", func(t *testing.T) {
		b := newBench(t)
		b.create(stream)
		b.src.createTable("tbl2")
		for table, want := range map[string]int{"tbl": 1, "tbl2": 0, "": 1} {
			resp := &protocol.ListTunnelResponse{}
			b.must(b.call("list", &protocol.ListTunnelRequest{TableName: &table}, resp))
			if len(resp.Tunnels) != want {
				t.Errorf("%q: %d tunnels, want %d", table, len(resp.Tunnels), want)
			}
		}
	})
}

func TestRecoveryPoint(t *testing.T) {
	t.Run("follows the checkpoint in describe and getrpobyoffset, the last read in getrpo", func(t *testing.T) {
		b := newBench(t)
		b.cfg.MaxRows = 1
		b.restart()
		id := b.create(stream)
		created := b.clock.now()
		c := b.connect(id)
		c.heartbeat()
		b.clock.advance(time.Minute)
		first := b.clock.now()
		b.src.put("tbl", "a", "1")
		b.clock.advance(time.Minute)
		b.src.put("tbl", "a", "2")
		b.clock.advance(time.Minute)
		read := b.clock.now()

		point := func(op string) (count, rpo, access int64) {
			t.Helper()
			resp := &protocol.GetRpoResponse{}
			b.must(b.call(op, &protocol.GetRpoRequest{TunnelId: &id}, resp))
			var channels map[string]map[string]struct {
				ChannelTyp, Status              string
				TotalCount, AccessTime, RpoTime int64
			}
			b.must(json.Unmarshal(resp.RpoInfos, &channels))
			var whole map[string]struct {
				Status                          string
				TotalCount, AccessTime, RpoTime int64
			}
			b.must(json.Unmarshal(resp.TunnelRpoInfos, &whole))
			ch := channels[id]["shard-0"]
			if ch.ChannelTyp != "Stream" || ch.Status != "OPEN" || resp.GetTunnelId() != id || whole[id].RpoTime != ch.RpoTime || whole[id].TotalCount != ch.TotalCount {
				t.Fatalf("%s: %s %s", op, resp.RpoInfos, resp.TunnelRpoInfos)
			}
			return ch.TotalCount, ch.RpoTime, ch.AccessTime
		}
		want := func(op string, count int64, rpo time.Time) {
			t.Helper()
			if gotCount, gotRPO, _ := point(op); gotCount != count || gotRPO != rpo.UnixNano() {
				t.Errorf("%s: %d records to %v, want %d to %v", op, gotCount, time.Unix(0, gotRPO).UTC(), count, rpo)
			}
		}
		want("getrpo", 0, created)
		token, _, err := c.getCheckpoint("shard-0")
		b.must(err)
		_, token, more, err := c.read("shard-0", token)
		b.must(err)
		if !more {
			t.Error("may_more_record is false with a record left")
		}
		want("getrpo", 1, first)
		want("getrpobyoffset", 0, created)
		if _, _, access := point("getrpo"); access != read.UnixNano() {
			t.Errorf("access time = %d", access)
		}
		b.must(c.checkpoint("shard-0", token, 1))
		want("getrpobyoffset", 1, first)
		_, token, more, err = c.read("shard-0", token)
		b.must(err)
		if more {
			t.Error("may_more_record is true at the tail")
		}
		b.must(c.checkpoint("shard-0", token, 2))
		want("getrpobyoffset", 2, read) // nothing was left: consumed up to the time of the read
		d := b.describe()
		if d.GetTunnelRpo() != read.UnixNano() || d.Channels[0].GetChannelRpo() != read.UnixNano() || d.Channels[0].GetChannelCount() != 2 {
			t.Errorf("describe: %v", d)
		}
		b.clock.advance(time.Minute)
		_, next, _, err := c.read("shard-0", token)
		b.must(err)
		if next == token {
			t.Error("an empty page does not advance the token")
		}
		want("getrpo", 2, b.clock.now())
	})
	t.Run("is 1970 while base data are read, and that of the slowest channel afterwards", func(t *testing.T) {
		b := newBench(t)
		b.src.createTable("tbl", "m")
		id := b.create(both)
		c := b.connect(id)
		c.heartbeat()
		if got := b.describe().GetTunnelRpo(); got != 0 {
			t.Errorf("rpo = %d", got)
		}
		c.finish(baseChannelPrefix + id + "_0")
		c.finish(baseChannelPrefix + id + "_1")
		c.heartbeat()
		created := b.clock.now().UnixNano()
		b.clock.advance(time.Minute)
		c.drain("shard-0")
		if got := b.describe().GetTunnelRpo(); got != created {
			t.Errorf("rpo = %d, want %d", got, created)
		}
	})
	t.Run("limit bounds the number of channels in the response", func(t *testing.T) {
		b, id := streamBench(t, 3)
		resp := &protocol.GetRpoResponse{}
		b.must(b.call("getrpo", &protocol.GetRpoRequest{TunnelId: &id, Limit: proto.Int32(2)}, resp))
		var channels map[string]map[string]any
		b.must(json.Unmarshal(resp.RpoInfos, &channels))
		if len(channels[id]) != 2 {
			t.Errorf("channels = %v", channels)
		}
		b.wantCode(b.call("getrpo", &protocol.GetRpoRequest{TunnelId: &id, Limit: proto.Int32(-1)}, resp), wire.CodeParameterInvalid)
	})
}

func TestSchedule(t *testing.T) {
	t.Run("CLOSING suspends, and shows as CLOSING until OPEN resumes", func(t *testing.T) {
		b, id := streamBench(t, 2)
		c := b.connect(id)
		c.heartbeat()
		b.must(c.schedule("shard-0", statusClosing))
		c.wantHeartbeat("shard-0:CLOSING:2 shard-1:OPEN:1")
		c.set("shard-0", statusClose)
		c.wantHeartbeat("shard-1:OPEN:1")
		b.restart()
		c.wantHeartbeat("shard-1:OPEN:1")
		b.wantStatuses("shard-0:CLOSING shard-1:OPEN")
		b.must(c.schedule("shard-0", statusOpen))
		b.wantStatuses("shard-0:WAIT shard-1:OPEN")
		c.wantHeartbeat("shard-0:OPEN:4 shard-1:OPEN:1")
	})
	t.Run("OPEN cancels a CLOSING that has started", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.heartbeat()
		b.must(c.schedule("shard-0", statusClosing))
		b.must(c.schedule("shard-0", statusOpen))
		c.wantHeartbeat("shard-0:OPEN:3")
	})
	t.Run("TERMINATED ends a channel and lets its children begin", func(t *testing.T) {
		b, id := streamBench(t, 1)
		b.src.split("tbl", "shard-0", "m")
		c := b.connect(id)
		c.wantHeartbeat("shard-0:OPEN:1")
		b.must(c.schedule("shard-0", statusTerminated))
		c.wantHeartbeat("shard-1:OPEN:1 shard-2:OPEN:1")
		b.wantCode(c.schedule("shard-0", statusOpen), wire.CodeParameterInvalid)
	})
	t.Run("changes nothing if one entry is impossible", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.heartbeat()
		for name, second := range map[string]*protocol.Channel{
			"unknown": {ChannelId: proto.String("x"), Version: proto.Int64(0), Status: statusOpen.Enum()},
			"CLOSE":   {ChannelId: proto.String("shard-0"), Version: proto.Int64(0), Status: statusClose.Enum()},
		} {
			err := b.call("schedule", &protocol.ScheduleRequest{TunnelId: &id, Channels: []*protocol.Channel{
				{ChannelId: proto.String("shard-0"), Version: proto.Int64(0), Status: statusTerminated.Enum()}, second}}, nil)
			if err == nil {
				t.Errorf("%s: accepted", name)
			}
			b.wantCode(err, wire.CodeParameterInvalid)
		}
		c.wantHeartbeat("shard-0:OPEN:1")
	})
}

// everyClientCall runs each operation of a client, and returns their errors by operation.
func everyClientCall(c *apiClient) map[string]error {
	_, connectErr := c.tryConnect(c.tunnelID, time.Minute)
	_, _, getErr := c.getCheckpoint("shard-0")
	_, _, _, readErr := c.read("shard-0", tokenString(position{shard: "shard-0"}))
	return map[string]error{
		"connect":       connectErr,
		"heartbeat":     c.tryHeartbeat(),
		"getcheckpoint": getErr,
		"readrecords":   readErr,
		"checkpoint":    c.checkpoint("shard-0", tokenString(position{shard: "shard-0"}), 1),
	}
}

// wantTrimmed fails unless err is the answer that the page "Error codes of Tunnel
// Service" has for a trimmed log; ex_aliyun_ots (Elixir) looks for its text.
func wantTrimmed(t *testing.T, err error) {
	t.Helper()
	var e *wire.Error
	if !errors.As(err, &e) || e.Status != 400 || e.Code != wire.CodeTunnelServerUnavailable ||
		e.Message != "OTSTrimmedDataAccess Requested stream data is already trimmed or does not exist" {
		t.Errorf("error = %v", err)
	}
}

func TestTunnelsThatEnd(t *testing.T) {
	setup := func(t *testing.T) (*bench, *apiClient) {
		b, id := streamBench(t, 1)
		b.src.put("tbl", "a", "1")
		b.src.put("tbl", "a", "2")
		c := b.connect(id)
		c.heartbeat()
		return b, c
	}
	wantExpired := func(t *testing.T, b *bench, c *apiClient, isTrimmed bool) {
		t.Helper()
		for op, err := range everyClientCall(c) {
			switch {
			case err == nil:
				t.Errorf("%s of an expired tunnel succeeds", op)
			case op == "readrecords" && isTrimmed:
				wantTrimmed(t, err)
			default:
				b.wantCode(err, wire.CodeTunnelExpired)
			}
		}
		if !b.describe().Tunnel.GetExpired() {
			t.Error("describe does not say that it is expired")
		}
		b.restart()
		b.wantCode(c.tryHeartbeat(), wire.CodeTunnelExpired)
	}
	t.Run("a deleted tunnel is unknown to its connected clients", func(t *testing.T) {
		b, c := setup(t)
		b.must(b.call("delete", &protocol.DeleteTunnelRequest{TableName: proto.String("tbl"), TunnelName: proto.String("tun")}, nil))
		for op, err := range everyClientCall(c) {
			if err == nil {
				t.Errorf("%s of a deleted tunnel succeeds", op)
			}
			b.wantCode(err, wire.CodeParameterInvalid)
		}
		b.wantCode(c.shutdown(), wire.CodeParameterInvalid)
		if b.create(stream) == c.tunnelID {
			t.Error("the next tunnel of that name has the same id")
		}
		b.wantCode(c.tryHeartbeat(), wire.CodeParameterInvalid)
	})
	t.Run("a deleted table deletes its tunnels", func(t *testing.T) {
		b, c := setup(t)
		b.src.dropTable("tbl")
		for op, err := range everyClientCall(c) {
			if err == nil {
				t.Errorf("%s succeeds", op)
			}
			b.wantCode(err, wire.CodeParameterInvalid)
		}
		if len(b.src.state) != 0 {
			t.Errorf("left: %v", sortedKeys(b.src.state))
		}
	})
	t.Run("a log dropped beyond the checkpoint expires the tunnel at the read", func(t *testing.T) {
		b, c := setup(t)
		token, _, err := c.getCheckpoint("shard-0")
		b.must(err)
		b.src.trim("tbl", "shard-0", 1)
		_, _, _, err = c.read("shard-0", token)
		wantTrimmed(t, err)
		wantExpired(t, b, c, true)
	})
	t.Run("a log dropped beyond the checkpoint expires the tunnel at the heartbeat", func(t *testing.T) {
		b, c := setup(t)
		b.src.trim("tbl", "shard-0", 1)
		b.clock.advance(logCheckInterval)
		b.wantCode(c.tryHeartbeat(), wire.CodeTunnelExpired)
		wantExpired(t, b, c, true)
	})
	t.Run("an expired tunnel says that the log was trimmed only to the owner, and only where it was", func(t *testing.T) {
		b, c := setup(t)
		token, _, err := c.getCheckpoint("shard-0")
		b.must(err)
		_, next, _, err := c.read("shard-0", token)
		b.must(err)
		other := b.connect(c.tunnelID)
		b.src.trim("tbl", "shard-0", 1)
		b.clock.advance(logCheckInterval)
		b.wantCode(c.tryHeartbeat(), wire.CodeTunnelExpired)
		_, _, _, err = other.read("shard-0", token)
		b.wantCode(err, wire.CodeTunnelExpired)
		_, _, _, err = c.read("shard-0", next)
		b.wantCode(err, wire.CodeTunnelExpired)
		_, _, _, err = c.read("shard-0", token)
		wantTrimmed(t, err)
	})
	t.Run("a log dropped up to the checkpoint does no harm", func(t *testing.T) {
		b, c := setup(t)
		c.drain("shard-0")
		b.src.trim("tbl", "shard-0", 2)
		b.clock.advance(logCheckInterval)
		c.wantHeartbeat("shard-0:OPEN:1")
		rows, _ := c.drain("shard-0")
		wantRows(t, rows)
	})
	t.Run("a shard that is dropped unread expires the tunnel", func(t *testing.T) {
		b, c := setup(t)
		b.src.split("tbl", "shard-0", "m")
		b.src.forget("tbl", "shard-0")
		b.clock.advance(logCheckInterval)
		b.wantCode(c.tryHeartbeat(), wire.CodeTunnelExpired)
	})
	t.Run("a generation that is dropped unseen expires the tunnel", func(t *testing.T) {
		b, c := setup(t)
		b.src.split("tbl", "shard-0", "m")
		c.finish("shard-0")
		b.src.split("tbl", "shard-1", "f")
		b.src.forget("tbl", "shard-1")
		b.clock.advance(logCheckInterval)
		b.wantCode(c.tryHeartbeat(), wire.CodeTunnelExpired)
	})
	t.Run("records of a shard that are dropped unseen expire the tunnel", func(t *testing.T) {
		b, c := setup(t)
		b.src.split("tbl", "shard-0", "m")
		b.src.put("tbl", "a", "3")
		b.src.trim("tbl", "shard-1", 1)
		b.wantCode(c.tryHeartbeat(), wire.CodeTunnelExpired)
	})
	t.Run("a shard that is dropped once it was read does no harm", func(t *testing.T) {
		b, c := setup(t)
		b.src.split("tbl", "shard-0", "m")
		c.finish("shard-0")
		b.src.forget("tbl", "shard-0")
		b.clock.advance(logCheckInterval)
		c.wantHeartbeat("shard-1:OPEN:1 shard-2:OPEN:1")
	})
	t.Run("a stream that is turned off and on again expires the tunnel", func(t *testing.T) {
		b, c := setup(t)
		b.src.disableStream("tbl")
		b.src.Stream(b.tableID(), true)
		b.clock.advance(logCheckInterval)
		b.wantCode(c.tryHeartbeat(), wire.CodeTunnelExpired)
	})
	t.Run("ExpireTunnel expires it", func(t *testing.T) {
		b, c := setup(t)
		b.must(b.s.ExpireTunnel(c.tunnelID))
		wantExpired(t, b, c, false)
	})
	t.Run("ExpireClient drops one client", func(t *testing.T) {
		b, c := setup(t)
		other := b.connect(c.tunnelID)
		b.must(b.s.ExpireClient(c.tunnelID, c.id))
		b.wantCode(c.tryHeartbeat(), wire.CodeResourceGone)
		other.wantHeartbeat("shard-0:OPEN:3")
		if err := b.s.ExpireClient(c.tunnelID, c.id); err == nil {
			t.Error("expired twice")
		}
	})
	t.Run("a closed service refuses every call", func(t *testing.T) {
		b, c := setup(t)
		b.must(b.s.Close())
		b.wantCode(c.tryHeartbeat(), wire.CodeTunnelServerUnavailable)
	})
}

func TestReadRecords(t *testing.T) {
	t.Run("appends to dst and keeps its contents", func(t *testing.T) {
		b, id := streamBench(t, 1)
		b.src.put("tbl", "a", "1")
		c := b.connect(id)
		c.heartbeat()
		out, err := b.s.Handle("readrecords", c.readBody("shard-0"), []byte("head"))
		b.must(err)
		if !strings.HasPrefix(string(out), "head") || !strings.Contains(string(out), "a=1") {
			t.Errorf("answer = %q", out)
		}
	})
	t.Run("a response is dropped if the channel was lost during the read", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.heartbeat()
		token, _, err := c.getCheckpoint("shard-0")
		b.must(err)
		b.src.onRead = func() { b.must(b.s.ExpireClient(id, c.id)) }
		_, _, _, err = c.read("shard-0", token)
		b.wantCode(err, wire.CodeResourceGone)
	})
	t.Run("the finish token has no records and is followed by itself", func(t *testing.T) {
		b, id := streamBench(t, 1)
		c := b.connect(id)
		c.heartbeat()
		rows, next, more, err := c.read("shard-0", finishToken)
		b.must(err)
		if len(rows) != 0 || next != finishToken || more {
			t.Errorf("rows %q, next %q, more %v", rows, next, more)
		}
	})
	t.Run("pages end at the row limit and may_more_record says so", func(t *testing.T) {
		b := newBench(t)
		b.cfg.MaxRows = 2
		b.restart()
		id := b.create(stream)
		for _, v := range []string{"1", "2", "3"} {
			b.src.put("tbl", "a", v)
		}
		c := b.connect(id)
		c.heartbeat()
		token, _, err := c.getCheckpoint("shard-0")
		b.must(err)
		rows, token, more, err := c.read("shard-0", token)
		b.must(err)
		if !slices.Equal(rows, []string{"a=1", "a=2"}) || !more {
			t.Errorf("rows %q, more %v", rows, more)
		}
		rows, _, more, err = c.read("shard-0", token)
		b.must(err)
		if !slices.Equal(rows, []string{"a=3"}) || more {
			t.Errorf("rows %q, more %v", rows, more)
		}
	})
	t.Run("a request without one of its fields is refused", func(t *testing.T) {
		b := newBench(t)
		_, err := b.s.Handle("readrecords", appendBytes(nil, 1, []byte("t")), nil)
		b.wantCode(err, wire.CodeParameterInvalid)
	})
	t.Run("an operation that the service does not have is a bad parameter, one that is missing here is not supported", func(t *testing.T) {
		// The page "Error codes": OTSParameterInvalid "Unsupported operation: '{Operation}'."
		b := newBench(t)
		_, err := b.s.Handle("unheard", nil, nil)
		b.wantCode(err, wire.CodeParameterInvalid)
		_, err = b.s.Handle("switch", nil, nil)
		b.wantCode(err, wire.CodeUnsupportOperation)
	})
}
