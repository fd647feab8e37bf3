package verify

import (
	"strings"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

func timeoutCountsFromHeartbeat(p *probe) error {
	c, _, _, _, err := p.streaming(p.kit.name(""))
	if err != nil {
		return err
	}
	timeout := p.kit.cfg.ClientTimeout
	if err := c.heartbeat(); err != nil {
		return err
	}
	// Four fifths of the timeout after the heartbeat the client must still be known.
	if err := pause(p.ctx, timeout*4/5); err != nil {
		return err
	}
	if err := c.heartbeat(); classOf(err) == service.Lost {
		return refuted("the client was dropped %v after a heartbeat, with a timeout of %v.", timeout*4/5, timeout)
	} else if err != nil {
		return err
	}
	silent := time.Now()
	for since := timeout; ; since += timeout / 4 {
		if err := pause(p.ctx, time.Until(silent.Add(since))); err != nil {
			return err
		}
		err := p.describeClient(c)
		if classOf(err) == service.Lost {
			p.note("a silent client was dropped within %.2f times the timeout", float64(since)/float64(timeout))
			return nil
		}
		if err != nil {
			return err
		}
		if since > p.kit.cfg.Patience+2*timeout {
			p.note("a silent client was still connected after %v", since)
			return nil
		}
	}
}

// describeClient makes a call of the client that is no heartbeat.
func (p *probe) describeClient(c *client) error {
	for channel := range c.held {
		_, _, err := c.stored(channel)
		return err
	}
	return nil
}

func shutdownFreesChannels(p *probe) error {
	first, channel, _, _, err := p.streaming(p.kit.name(""))
	if err != nil {
		return err
	}
	second, err := p.connect(first.tunnel, "ots-verify")
	if err != nil {
		return err
	}
	if err := p.call("shutdown", &protocol.ShutdownRequest{TunnelId: &first.tunnel, ClientId: &first.id}, nil); err != nil {
		return err
	}
	started, timeout := time.Now(), p.kit.cfg.ClientTimeout
	if _, err := second.until(func() bool { return second.held[channel] != nil }); err != nil {
		return err
	}
	took := time.Since(started)
	if second.held[channel] == nil {
		return refuted("the channel was not handed out within %v.", took.Round(time.Second))
	}
	if took > timeout*2/3 {
		return refuted("the channel was handed out after %v, with a timeout of %v.", took.Round(10*time.Millisecond), timeout)
	}
	p.note("the channel was handed over in %v", took.Round(time.Millisecond))
	return nil
}

func heartbeatsMayBeClose(p *probe) error {
	c, _, _, _, err := p.streaming(p.kit.name(""))
	if err != nil {
		return err
	}
	for range 8 {
		if err := pause(p.ctx, 250*time.Millisecond); err != nil {
			return err
		}
		if err := c.heartbeat(); answerOf(err) != nil {
			return refuted("%v", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

func longTagIsTaken(p *probe) error {
	_, id, err := p.createTunnel(p.kit.name(""), protocol.TunnelType_Stream)
	if err != nil {
		return err
	}
	const printable = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!#$()*+,:;=?@[]^{}"
	tag := strings.Repeat(printable, 2)[:128]
	c, err := p.connect(id, tag)
	if answerOf(err) != nil {
		return refuted("%v", err)
	} else if err != nil {
		return err
	}
	if !strings.HasPrefix(c.id, tag) {
		p.note("the client's id does not begin with the tag: %.160q", c.id)
	}
	return nil
}

func deletedTunnelIsTold(p *probe) error {
	table := p.kit.name("")
	c, channel, token, _, err := p.streaming(table)
	if err != nil {
		return err
	}
	name := p.tunnels[len(p.tunnels)-1][1]
	if err := p.call("delete", &protocol.DeleteTunnelRequest{TableName: &table, TunnelName: &name}, nil); err != nil {
		return err
	}
	_, connecting := p.connect(c.tunnel, "ots-verify")
	_, describing := p.describe(table, name)
	_, reading := c.read(channel, token)
	for op, err := range map[string]error{"connect": connecting, "heartbeat": c.heartbeat(), "describe": describing, "readrecords": reading} {
		switch class := classOf(err); {
		case err == nil:
			return refuted("%s succeeds.", op)
		case answerOf(err) == nil:
			return err
		case op == "readrecords" && class == service.Lost:
		case class != service.Gone:
			return refuted("%v", err)
		}
	}
	return nil
}

func clockMayBeOff(p *probe) error {
	table := p.kit.name("")
	list := func(ahead time.Duration) error {
		return p.callWith("list", &protocol.ListTunnelRequest{TableName: &table}, nil, variation{ahead: ahead})
	}
	for _, ahead := range []time.Duration{-14 * time.Minute, 14 * time.Minute} {
		switch err := list(ahead); {
		case answerOf(err) != nil:
			return refuted("a request that is dated %v from now: %v", ahead, err)
		case err != nil:
			return err
		}
	}
	if err := list(time.Hour); err == nil {
		p.note("a request from an hour ahead is accepted, too")
	}
	return nil
}

func wrongKeysAreTold(p *probe) error {
	table := p.kit.name("")
	err := p.callWith("list", &protocol.ListTunnelRequest{TableName: &table}, nil, variation{secret: "not the secret"})
	switch e := answerOf(err); {
	case err == nil:
		return skipped("the service does not check signatures")
	case e == nil:
		return err
	case e.Code != service.CodeAuthFailed:
		return refuted("%v", err)
	}
	return nil
}
