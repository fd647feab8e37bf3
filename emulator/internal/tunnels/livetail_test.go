package tunnels

import (
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// TestLiveTail is about a reader that does not connect, as in the Java SDK's
// TestTunnelLiveTail: it describes the tunnel and then reads its channels with
// the client id that it finds there, which is empty.
func TestLiveTail(t *testing.T) {
	b := newBench(t)
	id := b.create(stream)
	b.src.put("tbl", "a", "1")
	tail := &apiClient{bench: b, tunnelID: id}
	t.Run("reads a channel without an owner", func(t *testing.T) {
		token, _, err := tail.getCheckpoint("shard-0")
		b.must(err)
		rows, _, _, err := tail.read("shard-0", token)
		b.must(err)
		wantRows(t, rows, "a=1")
	})
	t.Run("stores nothing", func(t *testing.T) {
		token, sequence, err := tail.getCheckpoint("shard-0")
		b.must(err)
		b.wantCode(tail.checkpoint("shard-0", token, sequence+1), wire.CodeResourceGone)
	})
	t.Run("leaves no trace in the channel", func(t *testing.T) {
		for _, st := range b.s.Snapshot()[0].Channels {
			if st.Served != 0 || st.FinishServed || st.ClientID != "" {
				t.Errorf("the channel is %+v", st)
			}
		}
	})
	t.Run("reads no channel that a client owns", func(t *testing.T) {
		token, _, err := tail.getCheckpoint("shard-0")
		b.must(err)
		b.connect(id).wantHeartbeat("shard-0:OPEN:1")
		_, _, err = tail.getCheckpoint("shard-0")
		b.wantCode(err, wire.CodeResourceGone)
		_, _, _, err = tail.read("shard-0", token)
		b.wantCode(err, wire.CodeResourceGone)
	})
	t.Run("gets the same errors as a client", func(t *testing.T) {
		_, _, err := tail.getCheckpoint("shard-9")
		b.wantCode(err, wire.CodeResourceGone)
		b.must(b.s.ExpireTunnel(id))
		_, _, err = tail.getCheckpoint("shard-0")
		b.wantCode(err, wire.CodeTunnelExpired)
	})
	t.Run("reads no channel of an expired tunnel, even without an owner", func(t *testing.T) {
		b := newBench(t)
		id := b.create(stream)
		b.must(b.s.ExpireTunnel(id))
		_, _, err := (&apiClient{bench: b, tunnelID: id}).getCheckpoint("shard-0")
		b.wantCode(err, wire.CodeTunnelExpired)
	})
}

// TestBaseTunnelWithAStreamConfiguration is what Java's TestTunnel creates.
func TestBaseTunnelWithAStreamConfiguration(t *testing.T) {
	b := newBench(t)
	b.src.put("tbl", "a", "1")
	id, err := b.tryCreate("tun", base, &protocol.StreamTunnelConfig{Flag: protocol.StartOffsetFlag_EARLIEST.Enum(), EndOffset: proto.Uint64(1)})
	b.must(err)
	c := b.connect(id)
	c.heartbeat()
	wantRows(t, c.finish(baseChannelPrefix+id+"_0"), "a=1")
}
