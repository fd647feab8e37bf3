package tunnels

import (
	"encoding/json"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// TestTableMadeAgain deletes a table and creates another one with the same
// name, as tests do between their cases.
func TestTableMadeAgain(t *testing.T) {
	kinds := []protocol.TunnelType{stream, protocol.TunnelType_BaseData, protocol.TunnelType_BaseAndStream}
	for _, kind := range kinds {
		t.Run(kind.String(), func(t *testing.T) {
			b := newBench(t)
			b.src.put("tbl", "old", "1")
			id := b.create(kind)
			c := b.connect(id)
			channel := b.firstChannel(c)
			b.src.dropTable("tbl")
			if left := len(b.src.state); left != 0 {
				t.Errorf("%d records of its tunnel are left after the deletion of the table: %v", left, sortedKeys(b.src.state))
			}
			b.src.createTable("tbl")
			b.src.put("tbl", "new", "1")
			t.Run("the new table has no tunnels", func(t *testing.T) {
				resp := &protocol.ListTunnelResponse{}
				b.must(b.call("list", &protocol.ListTunnelRequest{TableName: proto.String("tbl")}, resp))
				if len(resp.Tunnels) != 0 {
					t.Errorf("it has %v", resp.Tunnels)
				}
			})
			t.Run("a client of the old table reads and stores nothing", func(t *testing.T) {
				for op, err := range everyClientCall(c) {
					if err == nil {
						t.Errorf("%s succeeds", op)
					}
					b.wantCode(err, wire.CodeParameterInvalid)
				}
				_, _, _, err := c.read(channel, finishToken)
				b.wantCode(err, wire.CodeParameterInvalid)
			})
			t.Run("a tunnel with the old name can be created at once and reads the new rows only", func(t *testing.T) {
				next := b.create(kind)
				if next == id {
					t.Error("it has the old tunnel's id")
				}
				if kind == stream {
					b.src.put("tbl", "new", "1")
				}
				fresh := b.connect(next)
				channel := b.firstChannel(fresh)
				token, _, err := fresh.getCheckpoint(channel)
				b.must(err)
				rows, _, _, err := fresh.read(channel, token)
				b.must(err)
				if len(rows) != 1 || rows[0] != "new=1" {
					t.Errorf("it reads %v", rows)
				}
			})
		})
	}
	t.Run("a tunnel whose table was deleted unnoticed is dropped at the start", func(t *testing.T) {
		b := newBench(t)
		id := b.create(stream)
		b.src.watch = nil // as if the process had been killed before the notification
		b.src.dropTable("tbl")
		b.src.createTable("tbl")
		b.restart()
		if left := len(b.src.state); left != 0 {
			t.Errorf("%d records are left: %v", left, sortedKeys(b.src.state))
		}
		_, err := b.tryConnect(id, 0)
		b.wantCode(err, wire.CodeParameterInvalid)
		b.create(stream)
	})
	t.Run("the name of a deleted table's tunnel is free", func(t *testing.T) {
		b := newBench(t)
		id := b.create(stream)
		b.src.watch = nil // the deletion is in progress: the tunnel service was not notified yet
		b.src.dropTable("tbl")
		b.src.createTable("tbl")
		next := b.create(stream)
		_, err := b.tryConnect(id, 0)
		b.wantCode(err, wire.CodeParameterInvalid)
		b.connect(next)
	})
	t.Run("a table that is deleted during the creation of its tunnel leaves none", func(t *testing.T) {
		b := newBench(t)
		b.src.onSave = func() {
			b.src.onSave = nil
			b.src.watch = nil // the notification came before the tunnel was added
			b.src.dropTable("tbl")
		}
		_, err := b.tryCreate("tun", stream, nil)
		b.wantCode(err, wire.CodeParameterInvalid)
		if left := len(b.src.state); left != 0 {
			t.Errorf("%d records are left: %v", left, sortedKeys(b.src.state))
		}
	})
	t.Run("a tunnel saved without its table's id belongs to the table with that name", func(t *testing.T) {
		b := newBench(t)
		id := b.create(stream)
		key := tunnelKey(id)
		var saved map[string]any
		b.must(json.Unmarshal(b.src.state[key], &saved))
		delete(saved, "TableID")
		old, err := json.Marshal(saved)
		b.must(err)
		b.src.state[key] = old
		b.restart()
		b.connect(id)
		b.src.dropTable("tbl")
		_, err = b.tryConnect(id, 0)
		b.wantCode(err, wire.CodeParameterInvalid)
	})
}

// firstChannel returns the first channel that is assigned to a client.
func (b *bench) firstChannel(c *apiClient) string {
	b.Helper()
	channels, err := c.exchange()
	b.must(err)
	if len(channels) == 0 {
		b.Fatalf("the client got no channel")
	}
	return channels[0].GetChannelId()
}
