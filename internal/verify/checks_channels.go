package verify

import (
	"fmt"
	"slices"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/internal/service"
)

// readToEnd reads a channel of a BaseData tunnel to its end, and stores nothing. It returns
// the client, which still holds the channel, and the tunnel's name.
func (p *probe) readToEnd() (c *client, tunnelName, channel string, err error) {
	tunnelName, id, err := p.createTunnel(p.kit.name(""), protocol.TunnelType_BaseData)
	if err != nil {
		return nil, "", "", err
	}
	if c, err = p.connect(id, "ots-verify"); err != nil {
		return nil, "", "", err
	}
	if channel, err = c.awaitChannel(true); err != nil {
		return nil, "", "", err
	}
	token, _, err := c.stored(channel)
	if err != nil {
		return nil, "", "", err
	}
	_, _, err = c.readUntil(channel, token, 1<<30)
	return c, tunnelName, channel, err
}

// ended is readToEnd, and stores the finish token, but does not report TERMINATED.
func (p *probe) ended() (c *client, tunnelName, channel string, version int64, err error) {
	c, tunnelName, channel, err = p.readToEnd()
	if err != nil {
		return c, tunnelName, channel, 0, err
	}
	_, sequence, err := c.stored(channel)
	if err != nil {
		return c, tunnelName, channel, 0, err
	}
	return c, tunnelName, channel, c.held[channel].GetVersion(), c.store(channel, finished, sequence+1)
}

// awaitEnd waits until the client does not hold the channel any more.
func (c *client) awaitEnd(channel string) (bool, error) {
	return c.until(func() bool { return c.held[channel] == nil })
}

func storedTokenEnds(p *probe) error {
	c, _, channel, _, err := p.ended()
	if err != nil {
		return err
	}
	gone, err := c.awaitEnd(channel)
	if err == nil && !gone {
		return refuted("the channel is still handed out %v after its token was stored.", p.kit.cfg.Patience)
	}
	return err
}

// endAndReport ends a base channel in the way of the SDKs: token, then report.
func (p *probe) endAndReport() (c *client, tunnelName, channel string, version int64, err error) {
	c, tunnelName, channel, version, err = p.ended()
	if err != nil {
		return c, tunnelName, channel, version, err
	}
	err = c.heartbeat(entry(channel, protocol.ChannelStatus_TERMINATED, version+1))
	if err == nil {
		_, err = c.awaitEnd(channel)
	}
	return c, tunnelName, channel, version, err
}

func lateReportIsIgnored(p *probe) error {
	c, _, channel, version, err := p.endAndReport()
	if err != nil {
		return err
	}
	if err := c.heartbeat(entry(channel, protocol.ChannelStatus_TERMINATED, version+2)); answerOf(err) != nil {
		return refuted("%v", err)
	} else if err != nil {
		return err
	}
	if c.held[channel] != nil {
		return refuted("the channel is handed out again, as %v.", c.held[channel].GetStatus())
	}
	return nil
}

func endedChannelsAreListed(p *probe) error {
	_, name, channel, _, err := p.endAndReport()
	if err != nil {
		return err
	}
	d, err := p.describe(p.kit.name(""), name)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(d.Channels, func(ch *protocol.ChannelInfo) bool { return ch.GetChannelId() == channel })
	if i < 0 {
		return refuted("the channel is not listed.")
	}
	if s := d.Channels[i].GetChannelStatus(); s != "TERMINATED" {
		return refuted("it is listed as %s.", s)
	}
	return nil
}

func finishedCanBeRead(p *probe) error {
	c, _, channel, err := p.readToEnd()
	if err != nil {
		return err
	}
	pg, err := c.read(channel, finished)
	switch {
	case answerOf(err) != nil && classOf(err) != service.Lost:
		return refuted("%v", err)
	case err != nil:
		return err
	case len(pg.records) > 0 || pg.next != finished:
		return refuted("%d records and the token %.20q.", len(pg.records), pg.next)
	}
	return nil
}

func olderReportIsIgnored(p *probe) error {
	c, channel, _, _, err := p.streaming(p.kit.name(""))
	if err != nil {
		return err
	}
	version := c.held[channel].GetVersion()
	if err := c.heartbeat(entry(channel, protocol.ChannelStatus_CLOSE, version-1)); err != nil {
		return err
	}
	// A client without rivals gets a channel again that it has closed: with another version.
	if ch := c.held[channel]; ch == nil || ch.GetStatus() != protocol.ChannelStatus_OPEN || ch.GetVersion() != version {
		return refuted("a CLOSE with version %d, below %d, changed the channel to %v.", version-1, version, ch)
	}
	return nil
}

func streamWaitsForBase(p *probe) error {
	_, id, err := p.createTunnel(p.kit.name(""), protocol.TunnelType_BaseAndStream)
	if err != nil {
		return err
	}
	c, err := p.connect(id, "ots-verify")
	if err != nil {
		return err
	}
	if _, err := c.awaitAny(); err != nil {
		return err
	}
	for range 3 {
		if ch := c.opened(false); ch != "" {
			return refuted("the stream's channel %s is open while base data is to be read.", ch)
		}
		if err := pause(p.ctx, p.kit.pace()); err != nil {
			return err
		}
		if err := c.heartbeat(); err != nil {
			return err
		}
	}
	if err := c.finishBase(); err != nil {
		return err
	}
	p.note("the stream's channel was open after base data had ended")
	return nil
}

func streamBeginsAtCreation(p *probe) error {
	_, id, err := p.createTunnel(p.kit.name(""), protocol.TunnelType_BaseAndStream)
	if err != nil {
		return err
	}
	const n = 3
	if err := p.write(0, n); err != nil {
		return err
	}
	c, err := p.connect(id, "ots-verify")
	if err != nil {
		return err
	}
	if err := c.finishBase(); err != nil {
		return err
	}
	channel := c.opened(false)
	token, _, err := c.stored(channel)
	if err != nil {
		return err
	}
	var keys []string
	take := func(rows []plainbuffer.Row) {
		for _, row := range rows {
			keys = append(keys, row.PrimaryKey[0].Value.Str())
		}
	}
	first, err := c.read(channel, token)
	if err != nil {
		return err
	}
	rows, err := decode(first.records)
	if err != nil {
		return err
	}
	take(rows)
	// A row behind the others shows that the stream was read up to there.
	if err := p.write(n, 1); err != nil {
		return err
	}
	for token = first.next; !slices.Contains(keys, p.key(n)); {
		if rows, token, err = c.readUntil(channel, token, 1); err != nil {
			return err
		}
		take(rows)
	}
	for i := range n {
		if !slices.Contains(keys, p.key(i)) {
			return refuted("a row that was written after the creation and before the scan is not in the stream; it has %v.", keys)
		}
	}
	return nil
}

func childrenWaitForParent(p *probe) error {
	if p.kit.cfg.Split == nil {
		return skipped("the service splits partitions when it chooses to")
	}
	table := p.kit.name("split")
	if err := p.kit.createTable(p.ctx, table); err != nil {
		return err
	}
	c, parent, _, _, err := p.streaming(table)
	if err != nil {
		return err
	}
	for i := range 10 {
		if err := p.kit.put(p.ctx, table, p.key(i), 1); err != nil {
			return err
		}
	}
	if err := p.kit.cfg.Split(table); err != nil {
		return fmt.Errorf("splitting the table: %w", err)
	}
	for range 3 {
		if err := pause(p.ctx, p.kit.pace()); err != nil {
			return err
		}
		if err := c.heartbeat(); err != nil {
			return err
		}
		for id := range c.held {
			if id != parent {
				return refuted("the channel %s is handed out while its parent is to be read.", id)
			}
		}
	}
	return nil
}
