package subscriber

import (
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
)

// checkType refuses a tunnel of another type than the configuration asks for. One
// that names no type takes any. With OnGapRecreate a tunnel that was recreated as BaseAndStream stands in for a
// Stream tunnel.
func (s *Subscriber) checkType(info *tunnel.TunnelInfo) error {
	if err := s.checkRecreatable(info); err != nil {
		return err
	}
	want, is := s.wantType, TunnelType(info.TunnelType)
	if want == "" || is == want || s.cfg.OnGap == OnGapRecreate && is == BaseAndStream {
		return nil
	}
	return fmt.Errorf("%w: the tunnel is of type %s and the configured type is %s; a tunnel keeps its type: configure %s, or use a tunnel of another name",
		ErrTunnelType, info.TunnelType, want, info.TunnelType)
}

// checkTimes logs when a tunnel starts or ends at another time than the configuration says.
func (s *Subscriber) checkTimes(topic string, info *tunnel.TunnelInfo) {
	want, have := s.cfg.Tunnel.stream(), info.StreamTunnelConfig
	if want == nil || TunnelType(info.TunnelType) == BaseData { // nothing is configured, or there is no stream
		return
	}
	if have == nil {
		have = new(tunnel.StreamTunnelConfig)
	}
	fields := watermill.LogFields{"topic": topic}
	differ := func(name, of, by string) {
		if of != by {
			fields["tunnel_"+name], fields["config_"+name] = of, by
		}
	}
	differ("start", startText(have), startText(want))
	differ("end", offsetText(have.EndOffset, "none"), offsetText(want.EndOffset, "none"))
	if len(fields) > 1 {
		s.logger.Error("Tunnel starts or ends at another time than the configuration says; it stays as it is", errTunnelTimes, fields)
	}
}

// errTunnelTimes goes with the warning: start and end of a tunnel are fixed at its creation.
var errTunnelTimes = errors.New("a tunnel keeps the start and the end that it was created with")

// startText is the time since which a tunnel delivers changes.
func startText(c *tunnel.StreamTunnelConfig) string {
	if c.Flag == protocol.StartOffsetFlag_EARLIEST {
		return "earliest"
	}
	return offsetText(c.StartOffset, "latest")
}

// offsetText shows an offset as a time, to the millisecond: SDKs of other languages know
// no more.
func offsetText(ns uint64, none string) string {
	if ns == 0 {
		return none
	}
	return time.Unix(0, int64(ns)).UTC().Truncate(time.Millisecond).Format(time.RFC3339Nano)
}
