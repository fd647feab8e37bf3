package emulator_test

import (
	"strings"
	"testing"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// TestTableMadeAgain deletes a table, as tests do between their cases, and
// creates another one with the same name. internal/tunnels tests the rules for
// each operation; this test uses the real store.
func TestTableMadeAgain(t *testing.T) {
	for _, kind := range []protocol.TunnelType{protocol.TunnelType_Stream, protocol.TunnelType_BaseData, protocol.TunnelType_BaseAndStream} {
		for name, opts := range map[string]emulator.Options{"in memory": {}, "on disk": {DataDir: t.TempDir()}} {
			t.Run("leaves nothing to a "+kind.String()+" tunnel of the old one, "+name, func(t *testing.T) {
				e := start(t, opts)
				r := newRaw(t, e)
				r.createIntTable("t", 0, 1, true)
				oldTunnel, oldClient, channels := r.openTunnel("t", kind)
				var cp protocol.GetCheckpointResponse
				r.must("/tunnel/getcheckpoint", &protocol.GetCheckpointRequest{TunnelId: &oldTunnel, ClientId: &oldClient, ChannelId: &channels[0]}, &cp)
				r.must("/DeleteTable", &pb.DeleteTableRequest{TableName: ptr("t")}, &pb.DeleteTableResponse{})
				var all protocol.ListTunnelResponse
				r.must("/tunnel/list", &protocol.ListTunnelRequest{}, &all)
				if len(all.Tunnels) != 0 {
					t.Errorf("left after the deletion of the table: %v", all.Tunnels)
				}
				r.createIntTable("t", 0, 1, true)
				if err := r.putInt("t", 7); err != nil {
					t.Fatal(err)
				}
				_, err := r.post("/tunnel/readrecords", &protocol.ReadRecordsRequest{TunnelId: &oldTunnel, ClientId: &oldClient, ChannelId: &channels[0], Token: cp.Checkpoint})
				if err == nil || !strings.Contains(err.Error(), "OTSParameterInvalid") {
					t.Errorf("a read of the old tunnel: %v", err)
				}
				r.openTunnel("t", kind) // fails if the name is taken
				if opts.DataDir != "" {
					if err := e.Close(); err != nil {
						t.Fatal(err)
					}
					e = start(t, opts)
					r = newRaw(t, e)
				}
				var list protocol.ListTunnelResponse
				r.must("/tunnel/list", &protocol.ListTunnelRequest{TableName: ptr("t")}, &list)
				if len(list.Tunnels) != 1 || list.Tunnels[0].GetTunnelId() == oldTunnel {
					t.Errorf("the new table has the tunnels %v", list.Tunnels)
				}
				r.must("/DeleteTable", &pb.DeleteTableRequest{TableName: ptr("t")}, &pb.DeleteTableResponse{})
			})
		}
	}
}
