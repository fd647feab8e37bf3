package tunnels

import (
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// schedule suspends (CLOSING), resumes (OPEN) and ends (TERMINATED) channels on
// request: all that are named, or none if that is impossible for one of them.
// Versions in the request are ignored.
func (s *Service) schedule(req *protocol.ScheduleRequest) (protoadapt.MessageV1, error) {
	t, err := s.tunnel(req.GetTunnelId())
	if err != nil {
		return nil, err
	}
	return nil, s.update(t, func(time.Time) error {
		for _, r := range req.Channels {
			ch := t.byID[r.GetChannelId()]
			switch {
			case ch == nil:
				return wire.TunnelErrorf(wire.CodeParameterInvalid, t.ID, "channel %q does not exist", r.GetChannelId())
			case r.GetStatus() == protocol.ChannelStatus_CLOSE:
				return wire.TunnelErrorf(wire.CodeParameterInvalid, t.ID, "channel %q: CLOSE cannot be scheduled, only CLOSING, OPEN and TERMINATED", ch.ID)
			case ch.Status == StatusTerminated && r.GetStatus() != protocol.ChannelStatus_TERMINATED:
				return wire.TunnelErrorf(wire.CodeParameterInvalid, t.ID, "channel %q is TERMINATED, which is final", ch.ID)
			}
		}
		for _, r := range req.Channels {
			t.scheduleChannel(t.byID[r.GetChannelId()], r.GetStatus())
		}
		return nil
	})
}

func (t *tunnel) scheduleChannel(ch *channel, to protocol.ChannelStatus) {
	switch to {
	case protocol.ChannelStatus_CLOSING:
		ch.Suspended = true
		if ch.Status == StatusOpen {
			t.move(ch, StatusClosing, ch.Owner, ch.Version+1)
		}
	case protocol.ChannelStatus_OPEN:
		ch.Suspended = false
		if ch.Status == StatusClosing {
			// An owner that has begun to close answers with CLOSE, and gets the
			// channel again.
			t.move(ch, StatusOpen, ch.Owner, ch.Version+1)
		}
	case protocol.ChannelStatus_TERMINATED:
		ch.Suspended = false
		if ch.Status != StatusTerminated {
			t.move(ch, StatusTerminated, "", ch.Version+1) // the owner finds it missing in the next response
		}
	}
	t.touch(ch)
}
