package verify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/internal/service"
)

// probe is one check while it runs. Only the check's goroutine uses it.
type probe struct {
	kit     *Kit
	ctx     context.Context
	check   string
	notes   []string
	answers []Answer
	tunnels [][2]string // table and name
	clients []*client
}

// note adds a measured value to the result.
func (p *probe) note(format string, args ...any) {
	p.notes = append(p.notes, fmt.Sprintf(format, args...))
}

// call makes one call of the tunnel API, and keeps an error answer for the report.
func (p *probe) call(op string, req, resp protoadapt.MessageV1) error {
	return p.callWith(op, req, resp, variation{})
}

func (p *probe) callWith(op string, req, resp protoadapt.MessageV1, v variation) error {
	err := p.kit.wire.call(p.ctx, op, req, resp, v)
	if e := answerOf(err); e != nil {
		p.answers = append(p.answers, Answer{Op: op, Status: e.Status, Code: e.Code, Message: e.Message, Request: e.RequestID})
	}
	return err
}

// end shuts the clients down and deletes the tunnels, whatever the state of the check.
func (p *probe) end() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), callTimeout)
	defer cancel()
	var errs []error
	for _, c := range p.clients {
		// The client may have ended by itself: what counts is that its tunnel goes.
		_ = p.kit.wire.call(ctx, "shutdown", &protocol.ShutdownRequest{TunnelId: &c.tunnel, ClientId: &c.id}, nil, variation{})
	}
	for _, t := range p.tunnels {
		errs = append(errs, p.kit.deleteTunnel(ctx, t[0], t[1]))
	}
	return errors.Join(errs...)
}

// createTunnel creates a tunnel of the table for this check, and returns its name and id.
func (p *probe) createTunnel(table string, typ protocol.TunnelType) (name, id string, err error) {
	name = fmt.Sprintf("%s-%d", p.check, len(p.tunnels))
	p.tunnels = append(p.tunnels, [2]string{table, name})
	var resp protocol.CreateTunnelResponse
	err = p.call("create", &protocol.CreateTunnelRequest{Tunnel: &protocol.Tunnel{TableName: &table, TunnelName: &name, TunnelType: &typ}}, &resp)
	return name, resp.GetTunnelId(), err
}

// describe describes the tunnel of that name.
func (p *probe) describe(table, name string) (*protocol.DescribeTunnelResponse, error) {
	resp := new(protocol.DescribeTunnelResponse)
	return resp, p.call("describe", &protocol.DescribeTunnelRequest{TableName: &table, TunnelName: &name}, resp)
}

// client is a connected tunnel client that does what it is told and nothing else.
type client struct {
	*probe
	tunnel, id string
	held       map[string]*protocol.Channel // as the last answer said, by id
	beaten     time.Time                    // of the last heartbeat that was answered
}

// connect connects a client with the kit's timeout.
func (p *probe) connect(tunnelID, tag string) (*client, error) {
	timeout := int64(p.kit.cfg.ClientTimeout / time.Second)
	var resp protocol.ConnectResponse
	err := p.call("connect", &protocol.ConnectRequest{
		TunnelId: &tunnelID, ClientConfig: &protocol.ClientConfig{Timeout: &timeout, ClientTag: &tag},
	}, &resp)
	if err != nil {
		return nil, err
	}
	c := &client{probe: p, tunnel: tunnelID, id: resp.GetClientId(), held: make(map[string]*protocol.Channel)}
	p.clients = append(p.clients, c)
	return c, nil
}

// heartbeat reports what the client holds, with changes instead where there are some, and
// takes the answer.
func (c *client) heartbeat(changes ...*protocol.Channel) error {
	report := make(map[string]*protocol.Channel, len(c.held))
	for id, ch := range c.held {
		report[id] = ch
	}
	for _, ch := range changes {
		report[ch.GetChannelId()] = ch
	}
	req := &protocol.HeartbeatRequest{TunnelId: &c.tunnel, ClientId: &c.id}
	for _, ch := range report {
		req.Channels = append(req.Channels, ch)
	}
	var resp protocol.HeartbeatResponse
	if err := c.call("heartbeat", req, &resp); err != nil {
		return err
	}
	c.beaten = time.Now()
	clear(c.held)
	for _, ch := range resp.Channels {
		c.held[ch.GetChannelId()] = ch
	}
	return nil
}

// stay sends a heartbeat when it is time for one. What takes long calls it now and then.
func (c *client) stay() error {
	if time.Since(c.beaten) < c.kit.cfg.ClientTimeout/4 {
		return nil
	}
	return c.heartbeat()
}

// entry returns a report on a channel.
func entry(id string, status protocol.ChannelStatus, version int64) *protocol.Channel {
	return &protocol.Channel{ChannelId: &id, Status: &status, Version: &version}
}

// pace is the time between two heartbeats of a client that waits: often enough to measure
// well, seldom enough for a service.
func (k *Kit) pace() time.Duration { return min(k.cfg.ClientTimeout/20, time.Second) }

// until sends heartbeats until done, or for as long as the run is patient. ok is false when
// patience ended.
func (c *client) until(done func() bool) (ok bool, err error) {
	limit := time.Now().Add(c.kit.cfg.Patience)
	for wait := c.kit.pace(); ; {
		err := c.heartbeat()
		switch {
		case err == nil && done():
			return true, nil
		case err != nil && classOf(err) == service.Throttled:
			wait = max(wait, 2*time.Second)
		case err != nil:
			return false, err
		}
		if time.Now().After(limit) {
			return false, nil
		}
		if err := pause(c.ctx, wait); err != nil {
			return false, err
		}
	}
}

// isBase reports whether a channel is one of base data.
func isBase(id string) bool { return strings.HasPrefix(id, "BaseData_") }

// opened returns an open channel of base data or of the stream, "" if there is none.
func (c *client) opened(base bool) string {
	for id, ch := range c.held {
		if ch.GetStatus() == protocol.ChannelStatus_OPEN && isBase(id) == base {
			return id
		}
	}
	return ""
}

// awaitChannel waits until the client holds an open channel.
func (c *client) awaitChannel(base bool) (id string, err error) {
	ok, err := c.until(func() bool { return c.opened(base) != "" })
	if err == nil && !ok {
		err = fmt.Errorf("no channel was handed out within %v", c.kit.cfg.Patience)
	}
	return c.opened(base), err
}

// stored returns the stored checkpoint.
func (c *client) stored(channel string) (token string, sequence int64, err error) {
	var resp protocol.GetCheckpointResponse
	err = c.call("getcheckpoint", &protocol.GetCheckpointRequest{TunnelId: &c.tunnel, ClientId: &c.id, ChannelId: &channel}, &resp)
	return resp.GetCheckpoint(), resp.GetSequenceNumber(), err
}

// store stores a checkpoint.
func (c *client) store(channel, token string, sequence int64) error {
	return c.call("checkpoint", &protocol.CheckpointRequest{
		TunnelId: &c.tunnel, ClientId: &c.id, ChannelId: &channel, Checkpoint: &token, SequenceNumber: proto.Int64(sequence),
	}, nil)
}

// page is one read response.
type page struct {
	records []*protocol.Record
	next    string
	more    bool
}

func (c *client) read(channel, token string) (page, error) {
	var resp protocol.ReadRecordsResponse
	err := c.call("readrecords", &protocol.ReadRecordsRequest{TunnelId: &c.tunnel, ClientId: &c.id, ChannelId: &channel, Token: &token}, &resp)
	return page{resp.Records, resp.GetNextToken(), resp.GetMayMoreRecord()}, err
}

// finished is the token of a channel that was read to its end.
const finished = "finished"

// decode decodes records of a page.
func decode(records []*protocol.Record) ([]plainbuffer.Row, error) {
	rows := make([]plainbuffer.Row, len(records))
	for i, r := range records {
		if err := plainbuffer.Decode(r.Record, &rows[i]); err != nil {
			return nil, fmt.Errorf("decoding a record: %w", err)
		}
	}
	return rows, nil
}

// own returns the rows whose keys belong to this check: others write to the same table.
func (p *probe) own(rows []plainbuffer.Row) (own []plainbuffer.Row) {
	for _, row := range rows {
		if strings.HasPrefix(row.PrimaryKey[0].Value.Str(), p.check) {
			own = append(own, row)
		}
	}
	return own
}

// key is the key of row i of this check.
func (p *probe) key(i int) string { return fmt.Sprintf("%s-%03d", p.check, i) }

// write writes rows first to first+n-1 of this check to the common table.
func (p *probe) write(first, n int) error {
	for i := first; i < first+n; i++ {
		if err := p.kit.put(p.ctx, p.kit.name(""), p.key(i), int64(i)); err != nil {
			return err
		}
	}
	return nil
}

// readUntil reads on from token until n rows of this check have come, or the channel's end,
// or for as long as the run is patient. It returns all rows and the next token.
func (c *client) readUntil(channel, token string, n int) (rows []plainbuffer.Row, next string, err error) {
	limit := time.Now().Add(c.kit.cfg.Patience)
	for {
		pg, err := c.read(channel, token)
		if err != nil {
			return rows, token, err
		}
		decoded, err := decode(pg.records)
		if err != nil {
			return rows, token, err
		}
		rows, token = append(rows, decoded...), pg.next
		if token == finished || len(c.own(rows)) >= n {
			return rows, token, nil
		}
		if pg.more {
			continue
		}
		if err := c.stay(); err != nil {
			return rows, token, err
		}
		if time.Now().After(limit) {
			return rows, token, fmt.Errorf("%d of %d records were read within %v", len(c.own(rows)), n, c.kit.cfg.Patience)
		}
		if err := pause(c.ctx, c.kit.pace()); err != nil {
			return rows, token, err
		}
	}
}

// finishBase reads all base channels of a client to their ends and stores that, until a
// channel of the stream is open or the tunnel has no base channel any more.
func (c *client) finishBase() error {
	for {
		id, err := c.awaitAny()
		if err != nil || !isBase(id) {
			return err
		}
		token, sequence, err := c.stored(id)
		if err != nil {
			return err
		}
		if token != finished {
			if _, token, err = c.readUntil(id, token, 1<<30); err != nil {
				return err
			}
			if err := c.store(id, token, sequence+1); err != nil {
				return err
			}
		}
		if err := c.heartbeat(entry(id, protocol.ChannelStatus_TERMINATED, c.held[id].GetVersion()+1)); err != nil {
			return err
		}
	}
}

// awaitAny waits until the client holds any open channel, and prefers base data.
func (c *client) awaitAny() (string, error) {
	ok, err := c.until(func() bool { return c.opened(true) != "" || c.opened(false) != "" })
	if err == nil && !ok {
		err = fmt.Errorf("no channel was handed out within %v", c.kit.cfg.Patience)
	}
	if id := c.opened(true); id != "" {
		return id, err
	}
	return c.opened(false), err
}

// streaming creates a tunnel of the table's changes, connects a client and waits for its
// channel, which begins at token.
func (p *probe) streaming(table string) (c *client, channel, token string, sequence int64, err error) {
	_, id, err := p.createTunnel(table, protocol.TunnelType_Stream)
	if err != nil {
		return nil, "", "", 0, err
	}
	if c, err = p.connect(id, "ots-verify"); err != nil {
		return nil, "", "", 0, err
	}
	if channel, err = c.awaitChannel(false); err != nil {
		return nil, "", "", 0, err
	}
	token, sequence, err = c.stored(channel)
	return c, channel, token, sequence, err
}
