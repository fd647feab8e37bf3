package tunnels

import (
	"encoding/json"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/assume"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// channelRPO and tunnelRPO are the JSON that the Go SDK decodes, in which the
// type of a channel is spelt "ChannelTyp". Times are nanoseconds since 1970.
type channelRPO struct {
	ChannelTyp string
	tunnelRPO
}

type tunnelRPO struct {
	Status     string
	TotalCount int64
	AccessTime int64
	RpoTime    int64
}

// rpo is the recovery point of the tunnel: that of its slowest stream channel
// that has not ended, the newest one if all have ended, and 1970 while base
// data are read or if there is no channel.
func (t *tunnel) rpo(of func(*channel) int64) int64 {
	if !t.hasStream() || !t.baseDone() {
		return 0
	}
	var slowest, newest int64
	live := false
	for _, c := range t.channels {
		if c.Base {
			continue
		}
		point := of(c)
		newest = max(newest, point)
		if c.Status != StatusTerminated && (!live || point < slowest) {
			slowest, live = point, true
		}
	}
	if live {
		return slowest
	}
	return newest
}

// shownAccess is the time of the channel's last read, as GetRpo tells it.
func (t *tunnel) shownAccess(c *channel) int64 {
	if t.assume[assume.NoAccessTime] {
		return 0
	}
	return c.accessTime
}

// getRPO answers how far the channels have been read.
func (s *Service) getRPO(req *protocol.GetRpoRequest) (protoadapt.MessageV1, error) {
	return s.recoveryPoints(req, func(c *channel) (count, point int64) { return c.readCount, c.readRPO })
}

// getRPOByOffset answers how far the channels have been consumed, by their
// checkpoints.
func (s *Service) getRPOByOffset(req *protocol.GetRpoRequest) (protoadapt.MessageV1, error) {
	return s.recoveryPoints(req, func(c *channel) (count, point int64) { return c.Count, c.RPO })
}

func (s *Service) recoveryPoints(req *protocol.GetRpoRequest, of func(*channel) (count, point int64)) (protoadapt.MessageV1, error) {
	t, err := s.tunnel(req.GetTunnelId())
	if err != nil {
		return nil, err
	}
	if req.GetLimit() < 0 {
		return nil, wire.Invalid("limit %d is negative", req.GetLimit())
	}
	if err := s.refresh(t); err != nil {
		return nil, err
	}
	var channels map[string]channelRPO
	var whole tunnelRPO
	err = s.update(t, func(time.Time) error {
		channels = make(map[string]channelRPO, len(t.channels))
		whole.Status = t.stage()
		whole.RpoTime = t.rpo(func(c *channel) int64 { _, point := of(c); return point })
		for _, c := range t.channels {
			count, point := of(c)
			whole.TotalCount += count
			whole.AccessTime = max(whole.AccessTime, t.shownAccess(c))
			if limit := int(req.GetLimit()); limit == 0 || len(channels) < limit {
				channels[c.ID] = channelRPO{c.kind(), tunnelRPO{string(c.shown()), count, t.shownAccess(c), point}}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	resp := &protocol.GetRpoResponse{TunnelId: &t.ID}
	if resp.RpoInfos, err = json.Marshal(map[string]map[string]channelRPO{t.ID: channels}); err != nil {
		return nil, wire.Errorf(wire.CodeInternalServerError, "encode recovery points: %v", err)
	}
	if resp.TunnelRpoInfos, err = json.Marshal(map[string]tunnelRPO{t.ID: whole}); err != nil {
		return nil, wire.Errorf(wire.CodeInternalServerError, "encode recovery points: %v", err)
	}
	return resp, nil
}
