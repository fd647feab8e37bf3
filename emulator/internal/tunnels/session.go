package tunnels

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/assume"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

const (
	// defaultTimeout is the SDKs' default, used if a client names none.
	defaultTimeout = 300 * time.Second

	// maxTimeout limits how long a vanished client holds its channels.
	maxTimeout = 24 * time.Hour

	maxTagBytes = 128

	// shortTagBytes and heartbeatGap are those of assume.ShortTags and
	// assume.HeartbeatsThrottled.
	shortTagBytes = 32
	heartbeatGap  = time.Second

	// maxClients limits the cost of a client that connects in a loop.
	maxClients = 4096

	// maxVersion is far above what a client reaches by adding one, and leaves
	// the service enough values to add its own.
	maxVersion = 1 << 62
)

// connect adds a client, which gets its channels in response to heartbeats.
func (s *Service) connect(req *protocol.ConnectRequest) (protoadapt.MessageV1, error) {
	timeout := defaultTimeout
	if seconds := req.GetClientConfig().GetTimeout(); seconds < 0 {
		return nil, wire.Invalid("client timeout of %d s is negative", seconds)
	} else if seconds > int64(maxTimeout/time.Second) {
		timeout = maxTimeout
	} else if seconds > 0 {
		timeout = time.Duration(seconds) * time.Second
	}
	t, err := s.tunnel(req.GetTunnelId())
	if err != nil {
		return nil, err
	}
	if err := s.refresh(t); err != nil {
		return nil, err
	}
	if t.assume[assume.EarlyTimeout] {
		timeout /= 2
	}
	if n := len(req.GetClientConfig().GetClientTag()); n > shortTagBytes && t.assume[assume.ShortTags] {
		return nil, wire.TunnelErrorf(wire.CodeParameterInvalid, t.ID, "client tag of %d bytes", n)
	}
	tag := cleanTag(req.GetClientConfig().GetClientTag())
	c := &client{clientRecord: clientRecord{TunnelID: t.ID, ID: newClientID(tag), Tag: tag, Timeout: timeout}}
	err = s.update(t, func(now time.Time) error {
		if t.Expired {
			return expired(t.ID)
		}
		if len(t.clients) >= maxClients {
			return wire.TunnelErrorf(wire.CodeQuotaExhausted, t.ID, "tunnel %q has %d clients", t.ID, maxClients)
		}
		c.Connected, c.lastSeen, c.heard = now.UnixNano(), now, s.cfg.Aging.Now()
		t.clients[c.ID] = c
		t.touchClient(c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.log.Info("client connected", "tunnel_id", t.ID, "client_id", c.ID, "timeout", timeout)
	return &protocol.ConnectResponse{ClientId: &c.ID}, nil
}

// cleanTag makes a tag suitable for ids and logs: valid UTF-8 of bounded
// length.
func cleanTag(tag string) string {
	if len(tag) > maxTagBytes {
		tag = tag[:maxTagBytes]
	}
	return strings.ToValidUTF8(tag, "")
}

// newClientID has the form of the service's ids: tag and random string.
func newClientID(tag string) string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return tag + "_" + hex.EncodeToString(b[:])
}

func expired(tunnelID string) error {
	return wire.TunnelErrorf(wire.CodeTunnelExpired, tunnelID, "tunnel %q has expired: a part of the log that it needs was dropped", tunnelID)
}

// heartbeat processes a client's report about its channels and answers with all
// channels that the client should hold.
func (s *Service) heartbeat(req *protocol.HeartbeatRequest) (protoadapt.MessageV1, error) {
	t, err := s.tunnel(req.GetTunnelId())
	if err != nil {
		return nil, err
	}
	for _, r := range req.Channels {
		if r.GetVersion() < 0 || r.GetVersion() > maxVersion {
			return nil, wire.Invalid("channel %q: version %d is out of range", r.GetChannelId(), r.GetVersion())
		}
	}
	if err := s.refresh(t); err != nil { // so that the children of what ends here are known
		return nil, err
	}
	resp := &protocol.HeartbeatResponse{}
	err = s.update(t, func(now time.Time) error {
		c, err := t.liveClient(req.GetClientId())
		if err != nil {
			return err
		}
		if err := t.mayReport(c, now, req.Channels); err != nil {
			return err
		}
		c.lastSeen, c.heard, c.joined = now, s.cfg.Aging.Now(), true
		for _, r := range req.Channels {
			t.report(c, r)
		}
		t.endFinished(req.Channels)
		t.balance()
		t.handOut(c, req.Channels)
		for _, ch := range t.channels {
			if ch.Owner == c.ID {
				resp.Channels = append(resp.Channels, ch.entry())
			}
		}
		return nil
	})
	return resp, err
}

// mayReport returns the refusal of a heartbeat that the default behaviour accepts.
func (t *tunnel) mayReport(c *client, now time.Time, reported []*protocol.Channel) error {
	if t.assume[assume.HeartbeatsThrottled] && c.joined && now.Sub(c.lastSeen) < heartbeatGap {
		return wire.TunnelErrorf(wire.CodeFlowControl, t.ID, "heartbeats of client %q are less than %v apart", c.ID, heartbeatGap)
	}
	if !t.assume[assume.LateReportRefused] {
		return nil
	}
	for _, r := range reported {
		if ch := t.byID[r.GetChannelId()]; ch == nil || ch.Owner != c.ID {
			return wire.TunnelErrorf(wire.CodeParameterInvalid, t.ID, "channel %q is not assigned to client %q", r.GetChannelId(), c.ID)
		}
	}
	return nil
}

// liveClient returns a connected client, if the tunnel can be used.
func (t *tunnel) liveClient(id string) (*client, error) {
	if t.Expired {
		return nil, expired(t.ID)
	}
	c := t.clients[id]
	if c == nil {
		return nil, unknownClient(t.ID)
	}
	return c, nil
}

// unknownClient is the error for a client that is not connected, or was silent for
// longer than its timeout. The text is the service's: broadway_ots compares all of it.
func unknownClient(tunnelID string) error {
	return wire.ResourceGone(tunnelID, "[tunnelservice] client not exist")
}

// report applies one entry of a heartbeat if it is new information about a
// channel that the client owns: its version is above the stored one. If both
// sides raised the version at once, the service to CLOSING and the owner to
// CLOSE or TERMINATED, the owner's entry counts: its connection is closed
// already, so a response with the same version would only make it build a dead
// one.
func (t *tunnel) report(c *client, r *protocol.Channel) {
	ch := t.byID[r.GetChannelId()]
	if ch == nil || ch.Owner != c.ID {
		return
	}
	status, version := r.GetStatus(), r.GetVersion()
	ended := status == protocol.ChannelStatus_CLOSE || status == protocol.ChannelStatus_TERMINATED
	if (version < ch.Version || version == ch.Version && !ended) && !t.assume[assume.OlderReportTaken] {
		return
	}
	version = max(version, ch.Version+1)
	switch {
	case status == protocol.ChannelStatus_TERMINATED && (ch.finished() || t.assume[assume.TerminatedIsBelieved]):
		t.move(ch, StatusTerminated, "", version)
	case ended: // TERMINATED too: without the finish token the client cannot have read to the end
		t.move(ch, StatusWait, "", version)
	case status == protocol.ChannelStatus_CLOSING:
		t.move(ch, StatusClosing, c.ID, version)
	default:
		t.move(ch, StatusOpen, c.ID, version)
	}
}

// endFinished ends the channels whose finish token is stored. It needs no
// report: ex_aliyun_ots (Elixir) reports OPEN only. reported are the entries of
// the heartbeat that is being answered.
func (t *tunnel) endFinished(reported []*protocol.Channel) {
	if t.assume[assume.FinishNeedsReport] {
		return
	}
	for _, ch := range t.channels {
		if ch.Token == finishToken && ch.Status != StatusTerminated {
			t.move(ch, StatusTerminated, "", max(ch.Version, reportedVersion(reported, ch.ID))+1)
		}
	}
}

// entry is the channel's entry in the response to a heartbeat. Only owned
// channels are listed, so there is no WAIT or TERMINATED to translate.
func (c *channel) entry() *protocol.Channel {
	status := protocol.ChannelStatus_OPEN
	if c.Status == StatusClosing {
		status = protocol.ChannelStatus_CLOSING
	}
	return &protocol.Channel{ChannelId: proto.String(c.ID), Version: proto.Int64(c.Version), Status: status.Enum()}
}

// shutdown disconnects a client and frees its channels at once.
func (s *Service) shutdown(req *protocol.ShutdownRequest) (protoadapt.MessageV1, error) {
	t, err := s.tunnel(req.GetTunnelId())
	if err != nil {
		return nil, err
	}
	err = s.update(t, func(time.Time) error {
		c := t.clients[req.GetClientId()]
		if c == nil {
			return unknownClient(t.ID)
		}
		if !t.assume[assume.ShutdownHolds] {
			t.removeClient(c)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.log.Info("client shut down", "tunnel_id", t.ID, "client_id", req.GetClientId())
	return nil, nil
}
