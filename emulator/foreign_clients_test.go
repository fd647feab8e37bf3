package emulator_test

import (
	"strings"
	"testing"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// What clients in other languages need of the service. Their own suites were run against
// this emulator once, where they could be had; the tests here are ours, written from what
// those suites assert, and each is named after the client. TestNodeSDK runs the Node.js
// SDK itself, and the strict tests name the Java and Python tests of each limit.

// foreign is a client without an SDK, on a table "t" with rows.
type foreign struct{ *raw }

func newForeign(t *testing.T, rows int64) foreign {
	t.Helper()
	f := foreign{newRaw(t, start(t, emulator.Options{}))}
	f.createIntTable("t", rows, 1, true)
	for id := range rows {
		if err := f.putInt("t", id); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// consume reads a base channel to its end and stores the finish token.
func (f foreign) consume(tunnel, client, channel string) {
	f.t.Helper()
	var cp protocol.GetCheckpointResponse
	f.must("/tunnel/getcheckpoint", &protocol.GetCheckpointRequest{TunnelId: &tunnel, ClientId: &client, ChannelId: &channel}, &cp)
	token := cp.GetCheckpoint()
	for token != "finished" {
		var page protocol.ReadRecordsResponse
		f.must("/tunnel/readrecords", &protocol.ReadRecordsRequest{TunnelId: &tunnel, ClientId: &client, ChannelId: &channel, Token: &token}, &page)
		token = page.GetNextToken()
	}
	if _, err := f.post("/tunnel/checkpoint", &protocol.CheckpointRequest{
		TunnelId: &tunnel, ClientId: &client, ChannelId: &channel, Checkpoint: &token, SequenceNumber: ptr(cp.GetSequenceNumber() + 1),
	}); err != nil {
		f.t.Fatal(err)
	}
}

// describe describes the tunnel that openTunnel has created.
func (f foreign) describe(kind protocol.TunnelType) *protocol.DescribeTunnelResponse {
	f.t.Helper()
	var d protocol.DescribeTunnelResponse
	f.must("/tunnel/describe", &protocol.DescribeTunnelRequest{TableName: ptr("t"), TunnelName: ptr("t" + kind.String())}, &d)
	return &d
}

// ex_aliyun_ots (Elixir) never reports TERMINATED: its heartbeats repeat OPEN. It stops
// what is missing from an answer, and starts what is new.
func TestElixir_ex_aliyun_ots_reports_OPEN_only_and_reaches_the_stream(t *testing.T) {
	f := newForeign(t, 3)
	tunnel, client, channels := f.openTunnel("t", protocol.TunnelType_BaseAndStream)
	f.consume(tunnel, client, channels[0])
	var beat protocol.HeartbeatResponse
	f.must("/tunnel/heartbeat", &protocol.HeartbeatRequest{TunnelId: &tunnel, ClientId: &client, Channels: []*protocol.Channel{
		{ChannelId: &channels[0], Version: ptr(int64(1)), Status: protocol.ChannelStatus_OPEN.Enum()},
	}}, &beat)
	var open []string
	for _, ch := range beat.Channels {
		open = append(open, ch.GetChannelId()+" "+ch.GetStatus().String())
	}
	if len(open) != 1 || strings.HasPrefix(open[0], "BaseData_") || !strings.HasSuffix(open[0], " OPEN") {
		t.Errorf("after the base channel %s the client holds %v, want the stream's channel", channels[0], open)
	}
}

// broadway_ots (Elixir) compares the whole text, and connects again only then.
func TestElixir_broadway_ots_connects_again_when_its_client_does_not_exist(t *testing.T) {
	f := newForeign(t, 0)
	tunnel, client, _ := f.openTunnel("t", protocol.TunnelType_Stream)
	if _, err := f.post("/tunnel/shutdown", &protocol.ShutdownRequest{TunnelId: &tunnel, ClientId: &client}); err != nil {
		t.Fatal(err)
	}
	_, err := f.post("/tunnel/heartbeat", &protocol.HeartbeatRequest{TunnelId: &tunnel, ClientId: &client})
	if err == nil || err.Error() != "status 410: OTSResourceGone: [tunnelservice] client not exist" {
		t.Errorf("heartbeat: %v", err)
	}
}

// The Java SDK's TestTunnelConsumer and TestTunnelWorker: "enters the incremental state".
func TestJava_TunnelConsumer_sees_ProcessStream_when_base_data_is_consumed(t *testing.T) {
	f := newForeign(t, 3)
	tunnel, client, channels := f.openTunnel("t", protocol.TunnelType_BaseData)
	expect(t, "stage", f.describe(protocol.TunnelType_BaseData).Tunnel.GetStage(), "ProcessBaseData")
	f.consume(tunnel, client, channels[0])
	f.must("/tunnel/heartbeat", &protocol.HeartbeatRequest{TunnelId: &tunnel, ClientId: &client}, &protocol.HeartbeatResponse{})
	d := f.describe(protocol.TunnelType_BaseData)
	expect(t, "stage", d.Tunnel.GetStage(), "ProcessStream")
	expect(t, "the channel's status", d.Channels[0].GetChannelStatus(), "TERMINATED")
}

// The Java SDK's TestTunnelLiveTail describes a tunnel and reads its channels with the
// client id that is there, which is empty. It never connects.
func TestJava_TunnelLiveTail_reads_without_Connect(t *testing.T) {
	f := newForeign(t, 0)
	if _, err := f.post("/tunnel/create", &protocol.CreateTunnelRequest{Tunnel: &protocol.Tunnel{
		TableName: ptr("t"), TunnelName: ptr("tStream"), TunnelType: protocol.TunnelType_Stream.Enum(),
	}}); err != nil {
		t.Fatal(err)
	}
	d := f.describe(protocol.TunnelType_Stream)
	ch := d.Channels[0]
	expect(t, "the client's id", ch.GetClientId(), "")
	var cp protocol.GetCheckpointResponse
	f.must("/tunnel/getcheckpoint", &protocol.GetCheckpointRequest{TunnelId: d.Tunnel.TunnelId, ClientId: ch.ClientId, ChannelId: ch.ChannelId}, &cp)
	if err := f.putInt("t", 7); err != nil {
		t.Fatal(err)
	}
	var page protocol.ReadRecordsResponse
	f.must("/tunnel/readrecords", &protocol.ReadRecordsRequest{TunnelId: d.Tunnel.TunnelId, ClientId: ch.ClientId, ChannelId: ch.ChannelId, Token: cp.Checkpoint}, &page)
	expect(t, "records", len(page.Records), 1)
}

// The Java SDK's TestTunnel.
func TestJava_Tunnel_gives_a_BaseData_tunnel_a_StreamTunnelConfig(t *testing.T) {
	f := newForeign(t, 1)
	_, err := f.post("/tunnel/create", &protocol.CreateTunnelRequest{Tunnel: &protocol.Tunnel{
		TableName: ptr("t"), TunnelName: ptr("tBaseData"), TunnelType: protocol.TunnelType_BaseData.Enum(),
		StreamTunnelConfig: &protocol.StreamTunnelConfig{Flag: protocol.StartOffsetFlag_EARLIEST.Enum(), EndOffset: ptr(uint64(1))},
	}})
	if err != nil {
		t.Error(err)
	}
}

// The suites of the Java and the Python SDK assert this text.
func TestJava_and_Python_are_told_of_a_range_that_ends_where_it_begins(t *testing.T) {
	b := newStrictBed(t, emulator.Options{})
	const want = "OTSParameterInvalid: Begin key must less than end key in FORWARD"
	_, err := b.post("/GetRange", &pb.GetRangeRequest{
		TableName: ptr("t"), Direction: ptr(pb.Direction_FORWARD), MaxVersions: ptr(int32(1)),
		InclusiveStartPrimaryKey: row("a"), ExclusiveEndPrimaryKey: row("a"),
	})
	if err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("GetRange: %v, want %s", err, want)
	}
}
