package subscriber

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
)

// Pauses between two looks at whether a tunnel was read to its end, while the
// subscription has no channel. They double.
const (
	finishFirstPause = 250 * time.Millisecond
	finishMaxPause   = 10 * time.Second
)

// splitGap is how long all channels of a stream tunnel must have been at their ends. The
// children of a split may be listed some time after their parent has ended.
const splitGap = 15 * time.Second

// What DescribeTunnel says of a tunnel and its channels [docs/protocol.md, Types, stages and channels].
const (
	statusTerminated = "TERMINATED"
	channelStream    = "Stream"
	stageStream      = "ProcessStream" // of a BaseData tunnel, too, once it was read
)

// finite reports whether the tunnel has an end: a BaseData tunnel ends with its
// rows, another one only if it was made to end at a time.
func (s *subscription) finite() bool { return s.tunnelType == BaseData || !s.tunnelEnd.IsZero() }

// awaitFinish ends the subscription when the tunnel was read to its end. The service
// does not say so: it only hands out no more channels. So it is asked, at
// pauses, while this subscription has none. Whichever process read the last channel, every
// process of a backfill ends.
func (s *subscription) awaitFinish(ctx context.Context) {
	if !s.finite() {
		return
	}
	const who = "the look for the tunnel's end"
	defer s.observer.outages.gone(who)
	pause := finishFirstPause
	var ended time.Time // when all channels were first seen at their ends; zero: they are not
	for {
		wait := finishFirstPause // while it has channels, the service need not be asked
		if !s.channels.none() {
			pause, ended = finishFirstPause, time.Time{}
		} else {
			finished, err := s.readToEnd(ctx)
			if ctx.Err() != nil {
				return
			}
			switch {
			case err != nil:
				s.observer.calls.note("describe", err)
				if s.observer.callFailed(who, "describe", err) {
					s.logger.Error("Cannot find out whether the tunnel was read to its end; the service is asked again", err, callFields("describe", err))
				}
			case finished:
				if ended.IsZero() {
					ended = time.Now()
				}
				if s.tunnelType == BaseData || time.Since(ended) >= splitGap {
					s.finish()
					return
				}
				s.observer.callSucceeded(who, "describe")
			default:
				ended = time.Time{}
				s.observer.callSucceeded(who, "describe")
			}
			wait, pause = pause, min(2*pause, finishMaxPause)
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

// finish ends the subscription well: its tunnel has nothing more to read.
func (s *subscription) finish() {
	s.mu.Lock()
	s.finished = true
	s.mu.Unlock()
	acked := s.sums()[countAcked]
	s.logger.Info("Tunnel was read to its end; the subscription ends", watermill.LogFields{"acked": acked})
	s.stop()
}

// readToEnd asks the service whether all channels of the tunnel are at their
// ends. Their last checkpoints are stored then (law L5), by this process or another.
func (s *subscription) readToEnd(ctx context.Context) (finished bool, err error) {
	err = s.endpoint.Call(ctx, "describe", func(api *tunnel.TunnelApi) error {
		resp, err := api.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: s.table, TunnelName: s.tunnel})
		if err == nil && resp.Tunnel.TunnelId == s.tunnelID {
			finished = s.allTerminated(resp)
		}
		return err
	})
	return finished, err
}

// allTerminated reports whether a tunnel that has an end is at it.
func (s *subscription) allTerminated(d *tunnel.DescribeTunnelResponse) bool {
	stream := 0
	for _, c := range d.Channels {
		if c.ChannelStatus != statusTerminated {
			return false
		}
		if c.ChannelType == channelStream {
			stream++
		}
	}
	if s.tunnelType == BaseData {
		return len(d.Channels) > 0 || d.Tunnel.Stage == stageStream
	}
	// The stream's channels may come after those of the base data, and the children
	// of a split partition after their parent: before the end there can be more.
	return stream > 0 && time.Now().After(s.tunnelEnd)
}

// endOf returns the time after which a tunnel delivers no changes, zero for never.
func endOf(info *tunnel.TunnelInfo) time.Time {
	if c := info.StreamTunnelConfig; c != nil && c.EndOffset > 0 {
		return time.Unix(0, int64(c.EndOffset)) // nanoseconds, as they are sent [docs/protocol.md, Start and end of a tunnel]
	}
	return time.Time{}
}
