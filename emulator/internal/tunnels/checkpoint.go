package tunnels

import (
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// owned returns a channel that the client owns.
func (t *tunnel) owned(clientID, channelID string) (*channel, error) {
	if _, err := t.liveClient(clientID); err != nil {
		return nil, err
	}
	ch := t.byID[channelID]
	if ch == nil {
		return nil, wire.TunnelErrorf(wire.CodeParameterInvalid, t.ID, "channel %q does not exist", channelID)
	}
	if ch.Owner != clientID {
		return nil, wire.ResourceGone(t.ID, "channel %q is not assigned to client %q", channelID, clientID)
	}
	return ch, nil
}

// getCheckpoint answers with the stored token, which is where a new owner starts to read.
func (s *Service) getCheckpoint(req *protocol.GetCheckpointRequest) (protoadapt.MessageV1, error) {
	t, err := s.tunnel(req.GetTunnelId())
	if err != nil {
		return nil, err
	}
	resp := &protocol.GetCheckpointResponse{}
	err = s.update(t, func(time.Time) error {
		ch, err := t.owned(req.GetClientId(), req.GetChannelId())
		if err != nil {
			return err
		}
		resp.Checkpoint, resp.SequenceNumber = proto.String(ch.Token), proto.Int64(ch.Sequence)
		return nil
	})
	return resp, err
}

// checkpoint stores a token with the next number. Whether the token moves
// forward is the client's business.
func (s *Service) checkpoint(req *protocol.CheckpointRequest) (protoadapt.MessageV1, error) {
	t, err := s.tunnel(req.GetTunnelId())
	if err != nil {
		return nil, err
	}
	return nil, s.update(t, func(time.Time) error {
		ch, err := t.owned(req.GetClientId(), req.GetChannelId())
		if err != nil {
			return err
		}
		if req.GetSequenceNumber() != ch.Sequence+1 {
			return wire.TunnelErrorf(wire.CodeSequenceNumberNotMatch, t.ID, "channel %q: sequence number %d follows %d, the stored one, not directly",
				ch.ID, req.GetSequenceNumber(), ch.Sequence)
		}
		p := position{count: ch.Count, time: ch.RPO} // a client that ends a channel unread has consumed nothing more
		switch {
		case req.GetCheckpoint() != finishToken:
			var err error
			if p, err = positionIn(&ch.channelRecord, []byte(req.GetCheckpoint())); err != nil {
				return wire.TunnelErrorf(wire.CodeParameterInvalid, t.ID, "checkpoint of channel %q: %v", ch.ID, err)
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
