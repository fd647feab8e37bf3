package emulator_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// raw is a client without an SDK: it posts messages to an emulator that accepts
// any credentials.
type raw struct {
	t      testing.TB
	base   string
	client *http.Client
	agent  string // User-Agent of readrecords: the Go SDK's gets no digests
}

func newRaw(t testing.TB, e *emulator.Emulator) *raw {
	transport := e.Transport()
	t.Cleanup(transport.CloseIdleConnections)
	return &raw{t: t, base: e.Endpoint(), client: &http.Client{Transport: transport}}
}

func (r *raw) post(path string, req protoadapt.MessageV1) ([]byte, error) {
	body, err := proto.Marshal(protoadapt.MessageV2Of(req))
	if err != nil {
		return nil, err
	}
	return r.postBytes(path, body)
}

func (r *raw) postBytes(path string, body []byte) ([]byte, error) {
	resp, err := r.client.Post(r.base+path, "", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		var e pb.Error
		if err := proto.Unmarshal(b, protoadapt.MessageV2Of(&e)); err != nil {
			return nil, fmt.Errorf("status %d with a body that is not an error: %x", resp.StatusCode, b)
		}
		return nil, fmt.Errorf("status %d: %s: %s", resp.StatusCode, e.GetCode(), e.GetMessage())
	}
	return b, nil
}

// must posts req and decodes the response into resp.
func (r *raw) must(path string, req, resp protoadapt.MessageV1) {
	r.t.Helper()
	b, err := r.post(path, req)
	if err == nil {
		err = proto.Unmarshal(b, protoadapt.MessageV2Of(resp))
	}
	if err != nil {
		r.t.Fatalf("%s: %v", path, err)
	}
}

// ptr returns a pointer to v, as optional fields need.
func ptr[T any](v T) *T { return &v }

// variant encodes an integer in the form of partition ranges.
func variant(n int64) []byte { return plainbuffer.AppendVariant(nil, plainbuffer.IntegerValue(n)) }

// createIntTable creates a table with one integer key and a partition for each
// of the parts equal ranges of [0, rows).
func (r *raw) createIntTable(name string, rows int64, parts int64, stream bool) {
	req := &pb.CreateTableRequest{
		TableMeta: &pb.TableMeta{TableName: &name, PrimaryKey: []*pb.PrimaryKeySchema{
			{Name: ptr("id"), Type: ptr(pb.PrimaryKeyType_INTEGER)},
		}},
		ReservedThroughput: &pb.ReservedThroughput{CapacityUnit: &pb.CapacityUnit{Read: ptr(int32(0)), Write: ptr(int32(0))}},
		StreamSpec:         &pb.StreamSpecification{EnableStream: &stream},
	}
	for i := int64(1); i < parts; i++ {
		req.Partitions = append(req.Partitions, &pb.PartitionRange{Begin: variant(i * rows / parts), End: variant((i + 1) * rows / parts)})
	}
	if n := len(req.Partitions); n > 0 {
		req.Partitions[n-1].End = plainbuffer.AppendVariant(nil, plainbuffer.Special(plainbuffer.InfMax))
	}
	r.must("/CreateTable", req, &pb.CreateTableResponse{})
}

// load puts rows 0 to n-1 with five columns of 20 bytes, 200 at a time.
func (r *raw) load(table string, n int64, writers int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			var row plainbuffer.Row
			for i := range 5 {
				row.Cells = append(row.Cells, plainbuffer.Cell{Name: fmt.Sprintf("c%d", i), HasValue: true, Value: plainbuffer.StringValue(strings.Repeat("x", 20))})
			}
			row.PrimaryKey = []plainbuffer.Cell{{Name: "id", HasValue: true}}
			for {
				first := next.Add(200) - 200
				if first >= n {
					return
				}
				t := &pb.TableInBatchWriteRowRequest{TableName: &table}
				for id := first; id < min(first+200, n); id++ {
					row.PrimaryKey[0].Value = plainbuffer.IntegerValue(id)
					t.Rows = append(t.Rows, &pb.RowInBatchWriteRowRequest{
						Type: ptr(pb.OperationType_PUT), RowChange: plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), &row),
						Condition: &pb.Condition{RowExistence: ptr(pb.RowExistenceExpectation_IGNORE)},
					})
				}
				if _, err := r.post("/BatchWriteRow", &pb.BatchWriteRowRequest{Tables: []*pb.TableInBatchWriteRowRequest{t}}); err != nil {
					r.t.Errorf("loading: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// openTunnel creates a tunnel, connects one client and gets all channels.
func (r *raw) openTunnel(table string, kind protocol.TunnelType) (tunnelID, clientID string, channels []string) {
	r.t.Helper()
	var created protocol.CreateTunnelResponse
	r.must("/tunnel/create", &protocol.CreateTunnelRequest{Tunnel: &protocol.Tunnel{
		TableName: &table, TunnelName: ptr("t" + kind.String()), TunnelType: &kind,
	}}, &created)
	tunnelID = created.GetTunnelId()
	var connected protocol.ConnectResponse
	r.must("/tunnel/connect", &protocol.ConnectRequest{TunnelId: &tunnelID, ClientConfig: &protocol.ClientConfig{Timeout: ptr(int64(3600))}}, &connected)
	clientID = connected.GetClientId()
	var beat protocol.HeartbeatResponse
	r.must("/tunnel/heartbeat", &protocol.HeartbeatRequest{TunnelId: &tunnelID, ClientId: &clientID}, &beat)
	for _, c := range beat.GetChannels() {
		channels = append(channels, c.GetChannelId())
	}
	return tunnelID, clientID, channels
}

// drain reads a channel to its end, or until there is nothing more, and returns
// the size of the responses. It evaluates only the next token.
func (r *raw) drain(ctx context.Context, tunnelID, clientID, channel string) (bodyBytes int64) {
	var cp protocol.GetCheckpointResponse
	r.must("/tunnel/getcheckpoint", &protocol.GetCheckpointRequest{TunnelId: &tunnelID, ClientId: &clientID, ChannelId: &channel}, &cp)
	token := cp.GetCheckpoint()
	buf := make([]byte, 0, 4<<20)
	for ctx.Err() == nil {
		body, err := proto.Marshal(protoadapt.MessageV2Of(&protocol.ReadRecordsRequest{TunnelId: &tunnelID, ClientId: &clientID, ChannelId: &channel, Token: &token}))
		if err != nil {
			r.t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(ctx, "POST", r.base+"/tunnel/readrecords", bytes.NewReader(body))
		if err != nil {
			r.t.Fatal(err)
		}
		req.Header.Set("User-Agent", r.agent)
		resp, err := r.client.Do(req)
		if err != nil {
			r.t.Error(err)
			return bodyBytes
		}
		buf = buf[:0]
		for {
			n, err := resp.Body.Read(buf[len(buf):cap(buf)])
			if buf = buf[:len(buf)+n]; err != nil {
				break
			}
		}
		resp.Body.Close()
		bodyBytes += int64(len(buf))
		var more bool
		token, more = nextToken(buf)
		if token == "finished" || !more {
			return bodyBytes
		}
	}
	return bodyBytes
}

// nextToken finds next_token and may_more_record and skips the records.
func nextToken(b []byte) (token string, more bool) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		b = b[n:]
		switch {
		case num == 2 && typ == protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			token, b = string(v), b[n:]
		case num == 3:
			v, n := protowire.ConsumeVarint(b)
			more, b = v != 0, b[n:]
		default:
			b = b[protowire.ConsumeFieldValue(num, typ, b):]
		}
	}
	return token, more
}

// goAgent is the User-Agent of the Go SDK's tunnel client.
const goAgent = "tablestore-tunnel-sdk-go/1.0.0"

// BenchmarkReadRecords reads tables of 5 columns of 20 bytes over HTTP, four
// channels side by side, with a client that only counts bytes.
func BenchmarkReadRecords(b *testing.B) {
	const rows = 400_000
	for _, v := range []struct {
		kind  protocol.TunnelType
		agent string
	}{
		{protocol.TunnelType_BaseData, goAgent}, {protocol.TunnelType_Stream, goAgent},
		{protocol.TunnelType_BaseData, "with-digests"}, {protocol.TunnelType_Stream, "with-digests"},
	} {
		b.Run(v.kind.String()+"/"+v.agent, func(b *testing.B) {
			r := newRaw(b, start(b, emulator.Options{}))
			r.agent = v.agent
			r.createIntTable("bench", rows, 4, v.kind == protocol.TunnelType_Stream)
			tunnelID, clientID, channels := r.openTunnel("bench", v.kind)
			r.load("bench", rows, 4)
			var bytes atomic.Int64
			for b.Loop() {
				var wg sync.WaitGroup
				for _, ch := range channels {
					wg.Go(func() { bytes.Add(r.drain(b.Context(), tunnelID, clientID, ch)) })
				}
				wg.Wait()
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(bytes.Load())/float64(rows)/float64(b.N), "B/record")
		})
	}
}

// BenchmarkBatchWriteRow writes rows of 5 columns of 20 bytes, 200 per request.
func BenchmarkBatchWriteRow(b *testing.B) {
	for _, mode := range []string{"memory", "disk", "disk with sync"} {
		for _, stream := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/stream=%v", mode, stream), func(b *testing.B) {
				opts := emulator.Options{}
				if mode != "memory" {
					opts.DataDir, opts.Sync = b.TempDir(), mode == "disk with sync"
				}
				r := newRaw(b, start(b, opts))
				r.createIntTable("bench", 1<<40, 4, stream)
				const rows = 20_000
				for b.Loop() {
					r.load("bench", rows, 4)
				}
				b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}

// BenchmarkUpdateRow changes one row per request, with eight writers.
func BenchmarkUpdateRow(b *testing.B) {
	for _, mode := range []string{"memory", "disk", "disk with sync"} {
		b.Run(mode, func(b *testing.B) {
			opts := emulator.Options{}
			if mode != "memory" {
				opts.DataDir, opts.Sync = b.TempDir(), mode == "disk with sync"
			}
			r := newRaw(b, start(b, opts))
			r.createIntTable("bench", 1<<40, 4, true)
			var next atomic.Int64
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := r.putInt("bench", next.Add(1)); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
