package tunnels

import (
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/assume"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// owned returns a channel that the client owns.
func (t *tunnel) owned(clientID, channelID string) (*channel, error) {
	if _, err := t.liveClient(clientID); err != nil {
		return nil, err
	}
	ch := t.byID[channelID]
	if ch == nil && t.assume[assume.UnknownChannelIsGone] {
		return nil, wire.ResourceGone(t.ID, "channel %q does not exist", channelID)
	}
	if ch == nil {
		return nil, wire.TunnelErrorf(wire.CodeParameterInvalid, t.ID, "channel %q does not exist", channelID)
	}
	if ch.Owner != clientID {
		return nil, wire.ResourceGone(t.ID, "channel %q is not assigned to client %q", channelID, clientID)
	}
	return ch, nil
}

// storable returns a channel whose checkpoint the client may store.
func (t *tunnel) storable(clientID, channelID string) (*channel, error) {
	if ch := t.byID[channelID]; ch != nil && !t.Expired && t.assume[assume.CheckpointOfLoser] {
		return ch, nil
	}
	return t.owned(clientID, channelID)
}

// readable returns a channel that the client may read: its own, or one without
// an owner if the client gives no id. The Java SDK's live tail reads a tunnel
// in this way, without Connect; it stores nothing.
func (t *tunnel) readable(clientID, channelID string) (*channel, error) {
	ch := t.byID[channelID]
	if ch != nil && !t.Expired && t.assume[assume.ReadsNeedNoClient] {
		return ch, nil
	}
	if clientID != "" {
		return t.owned(clientID, channelID)
	}
	switch {
	case t.Expired:
		return nil, expired(t.ID)
	case ch == nil || ch.Owner != "":
		return t.owned(clientID, channelID) // returns the error
	}
	return ch, nil
}

// getCheckpoint answers with the stored token, at which a new owner starts to
// read.
func (s *Service) getCheckpoint(req *protocol.GetCheckpointRequest) (protoadapt.MessageV1, error) {
	t, err := s.tunnel(req.GetTunnelId())
	if err != nil {
		return nil, err
	}
	resp := &protocol.GetCheckpointResponse{}
	err = s.update(t, func(time.Time) error {
		ch, err := t.readable(req.GetClientId(), req.GetChannelId())
		if err != nil {
			return err
		}
		resp.Checkpoint, resp.SequenceNumber = proto.String(ch.Token), proto.Int64(ch.Sequence)
		return nil
	})
	return resp, err
}

// logEnd returns the offset at which the log of the request's channel ends. A
// checkpoint beyond it would skip records that are yet to be written.
func (s *Service) logEnd(t *tunnel, req *protocol.CheckpointRequest) (int64, error) {
	p, err := parseToken([]byte(req.GetCheckpoint()))
	if err != nil || p.shard == "" || p.shard != req.GetChannelId() || p.offset == 0 {
		return 0, nil // a token of another kind, or an invalid one, which is detected later
	}
	end, _, err := s.src.SeekShard(t.TableID, p.shard, tail)
	return end, err
}

// checkpoint stores a token with the next sequence number. The client decides
// whether the token moves forward, but it cannot be ahead of the log.
func (s *Service) checkpoint(req *protocol.CheckpointRequest) (protoadapt.MessageV1, error) {
	t, err := s.tunnel(req.GetTunnelId())
	if err != nil {
		return nil, err
	}
	end, unknown := s.logEnd(t, req)
	if noTable(unknown) {
		return nil, s.sourceError(t, unknown)
	}
	return nil, s.update(t, func(time.Time) error {
		ch, err := t.storable(req.GetClientId(), req.GetChannelId())
		if err != nil {
			return err
		}
		if n := req.GetSequenceNumber(); n != ch.Sequence+1 && !(n > ch.Sequence && t.assume[assume.SequenceMayGrow]) {
			return wire.TunnelErrorf(wire.CodeSequenceNumberNotMatch, t.ID, "channel %q: sequence number %d is not the stored one, %d, plus one",
				ch.ID, req.GetSequenceNumber(), ch.Sequence)
		}
		p := position{count: ch.Count, time: ch.RPO} // a client that ends an unread channel has consumed nothing more
		switch {
		case req.GetCheckpoint() != finishToken:
			var err error
			if p, err = positionIn(&ch.channelRecord, []byte(req.GetCheckpoint())); err != nil {
				return wire.TunnelErrorf(wire.CodeParameterInvalid, t.ID, "checkpoint of channel %q: %v", ch.ID, err)
			}
			if unknown != nil {
				return sourceError(t.Table, unknown)
			}
			if before, err := positionIn(&ch.channelRecord, []byte(ch.Token)); err == nil && p.offset < before.offset && t.assume[assume.CheckpointForwardOnly] {
				return wire.TunnelErrorf(wire.CodeParameterInvalid, t.ID, "checkpoint of channel %q: the token is behind the stored one", ch.ID)
			}
			if p.offset > end {
				return wire.TunnelErrorf(wire.CodeParameterInvalid, t.ID,
					"checkpoint of channel %q: the token is ahead of the log: it is at record %d, and the log ends at %d", ch.ID, p.offset, end)
			}
		case ch.FinishServed:
			p.count, p.time = ch.EndCount, ch.EndRPO
		}
		ch.Count, ch.RPO = p.count, p.time
		ch.Token, ch.Sequence = req.GetCheckpoint(), req.GetSequenceNumber()
		t.touch(ch)
		return nil
	})
}
