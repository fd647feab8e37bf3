package tunnels

import (
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// clock is a clock that tests set.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// bench is a service on a fake source with a clock that stands still.
type bench struct {
	tester
	clock *clock
	src   *fakeSource
	cfg   Config
	s     *Service
}

// newBench has a table "tbl" with one partition.
func newBench(t tester) *bench {
	t.Helper()
	c := newClock()
	b := &bench{tester: t, clock: c, src: newFakeSource(c.now), cfg: Config{Instance: "inst", Now: c.now}}
	b.src.createTable("tbl")
	b.restart()
	return b
}

// restart creates a new service from what the source has saved.
func (b *bench) restart() {
	b.Helper()
	s, err := New(b.src, b.cfg)
	if err != nil {
		b.Fatalf("New: %v", err)
	}
	b.s = s
}

// call runs one operation on messages.
func (b *bench) call(op string, req, resp protoadapt.MessageV1) error {
	b.Helper()
	body, err := proto.Marshal(protoadapt.MessageV2Of(req))
	if err != nil {
		b.Fatalf("%s: encode: %v", op, err)
	}
	out, err := b.s.Handle(op, body, nil)
	if err != nil {
		return err
	}
	if resp == nil {
		if len(out) != 0 {
			b.Fatalf("%s: answer of %d bytes, want none", op, len(out))
		}
		return nil
	}
	if err := proto.Unmarshal(out, protoadapt.MessageV2Of(resp)); err != nil {
		b.Fatalf("%s: decode: %v", op, err)
	}
	return nil
}

// tableID returns the id of the table "tbl".
func (b *bench) tableID() string {
	b.Helper()
	id, err := b.src.TableID("tbl")
	b.must(err)
	return id
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatalf("%v", err)
	}
}

// wantCode fails unless err is a wire error with that code.
func (b *bench) wantCode(err error, code string) {
	b.Helper()
	var e *wire.Error
	if !errors.As(err, &e) {
		b.Fatalf("error = %v, want %s", err, code)
	}
	if e.Code != code || e.Status != wire.StatusOf(code) {
		b.Fatalf("error = %v, want %s with status %d", err, code, wire.StatusOf(code))
	}
}

func (b *bench) tryCreate(tunnelName string, typ protocol.TunnelType, cfg *protocol.StreamTunnelConfig) (string, error) {
	b.Helper()
	resp := &protocol.CreateTunnelResponse{}
	err := b.call("create", &protocol.CreateTunnelRequest{Tunnel: &protocol.Tunnel{
		TableName: proto.String("tbl"), TunnelName: &tunnelName, TunnelType: typ.Enum(), StreamTunnelConfig: cfg,
	}}, resp)
	return resp.GetTunnelId(), err
}

// create creates a tunnel "tun" of table "tbl".
func (b *bench) create(typ protocol.TunnelType) string {
	b.Helper()
	id, err := b.tryCreate("tun", typ, nil)
	b.must(err)
	return id
}

func (b *bench) describe() *protocol.DescribeTunnelResponse {
	b.Helper()
	resp := &protocol.DescribeTunnelResponse{}
	b.must(b.call("describe", &protocol.DescribeTunnelRequest{TableName: proto.String("tbl"), TunnelName: proto.String("tun")}, resp))
	return resp
}

// statuses returns "id:STATUS ..." for the tunnel's channels.
func (b *bench) statuses() string {
	b.Helper()
	var all []string
	for _, c := range b.describe().Channels {
		all = append(all, c.GetChannelId()+":"+c.GetChannelStatus())
	}
	return strings.Join(all, " ")
}

func (b *bench) wantStatuses(want string) {
	b.Helper()
	if got := b.statuses(); got != want {
		b.Fatalf("channels = %s, want %s", got, want)
	}
}

// apiClient calls the service as one connected client; it keeps the heartbeat's
// table of channels by the SDKs' merge rule.
type apiClient struct {
	*bench
	tunnelID, id string
	channels     map[string]*protocol.Channel
}

func (b *bench) tryConnect(tunnelID string, timeout time.Duration) (*apiClient, error) {
	b.Helper()
	resp := &protocol.ConnectResponse{}
	err := b.call("connect", &protocol.ConnectRequest{TunnelId: &tunnelID, ClientConfig: &protocol.ClientConfig{
		Timeout: proto.Int64(int64(timeout / time.Second)), ClientTag: proto.String("tag"),
	}}, resp)
	return &apiClient{bench: b, tunnelID: tunnelID, id: resp.GetClientId(), channels: make(map[string]*protocol.Channel)}, err
}

func (b *bench) connect(tunnelID string) *apiClient {
	b.Helper()
	c, err := b.tryConnect(tunnelID, 300*time.Second)
	b.must(err)
	return c
}

// exchange sends a heartbeat and returns the channels in the response, which
// the client has not merged yet.
func (c *apiClient) exchange() ([]*protocol.Channel, error) {
	c.Helper()
	req := &protocol.HeartbeatRequest{TunnelId: &c.tunnelID, ClientId: &c.id}
	for _, id := range sortedKeys(c.channels) {
		req.Channels = append(req.Channels, c.channels[id])
	}
	resp := &protocol.HeartbeatResponse{}
	if err := c.call("heartbeat", req, resp); err != nil {
		return nil, err
	}
	for _, ch := range resp.Channels {
		if ch.GetStatus() != protocol.ChannelStatus_OPEN && ch.GetStatus() != protocol.ChannelStatus_CLOSING {
			c.Fatalf("heartbeat lists %s as %s", ch.GetChannelId(), ch.GetStatus())
		}
		old := c.channels[ch.GetChannelId()]
		if old == nil {
			continue
		}
		ended := old.GetStatus() == protocol.ChannelStatus_CLOSE || old.GetStatus() == protocol.ChannelStatus_TERMINATED
		if old.GetVersion() > ch.GetVersion() || ended && old.GetVersion() == ch.GetVersion() {
			c.Fatalf("heartbeat lists %s at version %d, the client reported %s at %d", ch.GetChannelId(), ch.GetVersion(), old.GetStatus(), old.GetVersion())
		}
	}
	return resp.Channels, nil
}

// merge applies a response: the client keeps its own entry against a lower
// version, and drops entries that are missing in the response.
func (c *apiClient) merge(answer []*protocol.Channel) {
	merged := make(map[string]*protocol.Channel)
	for _, ch := range answer {
		if old := c.channels[ch.GetChannelId()]; old != nil && old.GetVersion() > ch.GetVersion() {
			ch = old
		}
		merged[ch.GetChannelId()] = ch
	}
	c.channels = merged
}

func (c *apiClient) tryHeartbeat() error {
	c.Helper()
	answer, err := c.exchange()
	if err == nil {
		c.merge(answer)
	}
	return err
}

// heartbeat sends a heartbeat and returns "id:STATUS:version ..." from the
// response.
func (c *apiClient) heartbeat() string {
	c.Helper()
	c.must(c.tryHeartbeat())
	return c.held()
}

func (c *apiClient) wantHeartbeat(want string) {
	c.Helper()
	if got := c.heartbeat(); got != want {
		c.Fatalf("heartbeat of %s = %q, want %q", c.id, got, want)
	}
}

// set changes a status on the client's side: the version goes up by one.
func (c *apiClient) set(channelID string, status protocol.ChannelStatus) {
	c.Helper()
	ch := c.channels[channelID]
	if ch == nil {
		c.Fatalf("client does not hold %s", channelID)
	}
	c.channels[channelID] = &protocol.Channel{ChannelId: &channelID, Version: proto.Int64(ch.GetVersion() + 1), Status: status.Enum()}
}

func (c *apiClient) getCheckpoint(channelID string) (string, int64, error) {
	c.Helper()
	resp := &protocol.GetCheckpointResponse{}
	err := c.call("getcheckpoint", &protocol.GetCheckpointRequest{TunnelId: &c.tunnelID, ClientId: &c.id, ChannelId: &channelID}, resp)
	return resp.GetCheckpoint(), resp.GetSequenceNumber(), err
}

func (c *apiClient) checkpoint(channelID, token string, sequence int64) error {
	c.Helper()
	return c.call("checkpoint", &protocol.CheckpointRequest{TunnelId: &c.tunnelID, ClientId: &c.id, ChannelId: &channelID,
		Checkpoint: &token, SequenceNumber: &sequence}, nil)
}

// read returns the rows after a token and the next token.
func (c *apiClient) read(channelID, token string) (rows []string, next string, more bool, err error) {
	c.Helper()
	resp := &protocol.ReadRecordsResponse{}
	err = c.call("readrecords", &protocol.ReadRecordsRequest{TunnelId: &c.tunnelID, ClientId: &c.id, ChannelId: &channelID, Token: &token}, resp)
	for _, r := range resp.Records {
		rows = append(rows, string(r.Record))
	}
	return rows, resp.GetNextToken(), resp.GetMayMoreRecord(), err
}

// readBody is the encoded request to read a channel from its checkpoint.
func (c *apiClient) readBody(channelID string) []byte {
	c.Helper()
	token, _, err := c.getCheckpoint(channelID)
	c.must(err)
	body, err := proto.Marshal(protoadapt.MessageV2Of(&protocol.ReadRecordsRequest{
		TunnelId: &c.tunnelID, ClientId: &c.id, ChannelId: &channelID, Token: &token}))
	c.must(err)
	return body
}

// drain reads a channel from its checkpoint to its end or to an empty page, stores
// the checkpoint and returns the rows.
func (c *apiClient) drain(channelID string) (rows []string, finished bool) {
	c.Helper()
	token, sequence, err := c.getCheckpoint(channelID)
	c.must(err)
	for token != finishToken {
		page, next, _, err := c.read(channelID, token)
		c.must(err)
		rows, token = append(rows, page...), next
		if len(page) == 0 {
			break
		}
	}
	c.must(c.checkpoint(channelID, token, sequence+1))
	return rows, token == finishToken
}

// finish drains a channel that has an end, and reports it TERMINATED with the next heartbeat.
func (c *apiClient) finish(channelID string) []string {
	c.Helper()
	rows, finished := c.drain(channelID)
	if !finished {
		c.Fatalf("channel %s has no end", channelID)
	}
	c.set(channelID, protocol.ChannelStatus_TERMINATED)
	return rows
}

func (c *apiClient) shutdown() error {
	c.Helper()
	return c.call("shutdown", &protocol.ShutdownRequest{TunnelId: &c.tunnelID, ClientId: &c.id}, nil)
}

func (c *apiClient) schedule(channelID string, status protocol.ChannelStatus) error {
	c.Helper()
	return c.call("schedule", &protocol.ScheduleRequest{TunnelId: &c.tunnelID, Channels: []*protocol.Channel{
		{ChannelId: &channelID, Version: proto.Int64(0), Status: status.Enum()}}}, nil)
}

// held returns "id:STATUS:version ..." for the channels that the client knows,
// by id.
func (c *apiClient) held() string {
	var all []string
	for _, id := range sortedKeys(c.channels) {
		ch := c.channels[id]
		all = append(all, id+":"+ch.GetStatus().String()+":"+itoa(ch.GetVersion()))
	}
	return strings.Join(all, " ")
}

func encode64(b []byte) []byte { return base64.StdEncoding.AppendEncode(nil, b) }
