package tunnels

import (
	"errors"
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// Fixed ids, so that an input means the same in every process.
const (
	fuzzTunnelID = "11111111-2222-4333-8444-555555555555"
	fuzzClientID = "tag_0000000000000000"
)

// fuzzBench has a BaseAndStream tunnel in its stream stage with a client that
// owns one of two channels, and a second tunnel on the table.
func fuzzBench(t tester) *bench {
	b := newBench(t)
	b.src.put("tbl", "a", "1")
	id := b.create(both)
	c := b.connect(id)
	c.heartbeat()
	c.finish(baseChannelPrefix + id + "_0")
	c.heartbeat()
	b.src.put("tbl", "a", "2")
	b.src.split("tbl", "shard-0", "m")
	c.heartbeat()
	fix := strings.NewReplacer(id, fuzzTunnelID, c.id, fuzzClientID).Replace
	fixed := make(map[string][]byte)
	for key, value := range b.src.state {
		fixed[fix(key)] = []byte(fix(string(value)))
	}
	b.src.state = fixed
	b.restart()
	return b
}

func FuzzHandle(f *testing.F) {
	ops := Operations()
	seeds := map[string]protoadapt.MessageV1{
		"create":         &protocol.CreateTunnelRequest{Tunnel: &protocol.Tunnel{TableName: proto.String("tbl"), TunnelName: proto.String("x"), TunnelType: both.Enum(), StreamTunnelConfig: &protocol.StreamTunnelConfig{EndOffset: proto.Uint64(1 << 62)}}},
		"delete":         &protocol.DeleteTunnelRequest{TableName: proto.String("tbl"), TunnelName: proto.String("tun")},
		"list":           &protocol.ListTunnelRequest{TableName: proto.String("tbl")},
		"describe":       &protocol.DescribeTunnelRequest{TableName: proto.String("tbl"), TunnelName: proto.String("tun")},
		"connect":        &protocol.ConnectRequest{TunnelId: proto.String(fuzzTunnelID), ClientConfig: &protocol.ClientConfig{Timeout: proto.Int64(5), ClientTag: proto.String("t")}},
		"heartbeat":      &protocol.HeartbeatRequest{TunnelId: proto.String(fuzzTunnelID), ClientId: proto.String(fuzzClientID), Channels: []*protocol.Channel{{ChannelId: proto.String("shard-0"), Version: proto.Int64(2), Status: statusClose.Enum()}}},
		"shutdown":       &protocol.ShutdownRequest{TunnelId: proto.String(fuzzTunnelID), ClientId: proto.String(fuzzClientID)},
		"getcheckpoint":  &protocol.GetCheckpointRequest{TunnelId: proto.String(fuzzTunnelID), ClientId: proto.String(fuzzClientID), ChannelId: proto.String("shard-0")},
		"checkpoint":     &protocol.CheckpointRequest{TunnelId: proto.String(fuzzTunnelID), ClientId: proto.String(fuzzClientID), ChannelId: proto.String("shard-0"), Checkpoint: proto.String(finishToken), SequenceNumber: proto.Int64(1)},
		"readrecords":    &protocol.ReadRecordsRequest{TunnelId: proto.String(fuzzTunnelID), ClientId: proto.String(fuzzClientID), ChannelId: proto.String("shard-0"), Token: proto.String(tokenString(position{shard: "shard-0"}))},
		"getrpo":         &protocol.GetRpoRequest{TunnelId: proto.String(fuzzTunnelID), Limit: proto.Int32(1)},
		"getrpobyoffset": &protocol.GetRpoRequest{TunnelId: proto.String(fuzzTunnelID)},
		"schedule":       &protocol.ScheduleRequest{TunnelId: proto.String(fuzzTunnelID), Channels: []*protocol.Channel{{ChannelId: proto.String("shard-0"), Version: proto.Int64(0), Status: statusTerminated.Enum()}}},
	}
	for i, op := range ops {
		body, err := proto.Marshal(protoadapt.MessageV2Of(seeds[op]))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), body)
	}
	f.Fuzz(func(t *testing.T, op uint8, body []byte) {
		b := fuzzBench(t)
		out, err := b.s.Handle(ops[int(op)%len(ops)], body, []byte("head"))
		var e *wire.Error
		switch {
		case err == nil && !strings.HasPrefix(string(out), "head"):
			t.Errorf("the answer %q is not appended to dst", out)
		case err != nil && !errors.As(err, &e):
			t.Errorf("error = %v, want one in the service's form", err)
		case err != nil && (e.Code == "" || e.Status < 400 || e.Message == ""):
			t.Errorf("error = %+v is incomplete", e)
		}
		// Whatever the request was, it must leave a state that a restart can
		// read.
		b.restart()
	})
}

func FuzzToken(f *testing.F) {
	f.Add([]byte(tokenString(position{shard: "shard-0", offset: 7, time: 1, count: 2})))
	f.Add([]byte(tokenString(position{key: []byte("k"), count: 2})))
	f.Add([]byte("CAISBhICaXQgAA=="))
	f.Fuzz(func(t *testing.T, token []byte) {
		p, err := parseToken(token)
		if err != nil {
			return
		}
		again, err := parseToken([]byte(tokenString(p)))
		if err != nil || again.shard != p.shard || again.offset != p.offset || string(again.key) != string(p.key) || again.time != p.time || again.count != p.count {
			t.Errorf("%+v became %+v (%v)", p, again, err)
		}
	})
}
