package subscriber

import (
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// tunnelInfo is the tunnel that a subscription reads and how the subscription reads
// it. It does not change, and all parts of the subscription share it.
type tunnelInfo struct {
	cfg      Config
	endpoint *tunnelapi.Client

	topic, table, tunnel, tunnelID string
	tunnelType                     TunnelType
	tunnelEnd                      time.Time // no changes after it; zero: the tunnel has no end
	snapshot                       string    // names the tunnel among those of its name; empty with OnGapFail
	started                        time.Time // when the subscription started
}

// channelInfo is one channel of a tunnel, as its calls, errors and log lines name it.
type channelInfo struct {
	*tunnelInfo
	id       string
	clientID string                  // the client that owns the channel
	worker   int                     // the number of that client in the subscription
	logger   watermill.LoggerAdapter // with the channel's fields once channelRun.main has begun
}

func (c *channelInfo) channelError(op string, err error) *ChannelError {
	return &ChannelError{Table: c.table, Tunnel: c.tunnel, Channel: c.id, Op: op, Err: err}
}
