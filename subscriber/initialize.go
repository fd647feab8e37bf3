package subscriber

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/ots"
)

// SubscribeInitialize implements message.SubscribeInitializer. It is Initialize for at
// most a minute, as it has no context.
func (s *Subscriber) SubscribeInitialize(topic string) error {
	ctx, stop := context.WithTimeoutCause(context.Background(), initializeTimeout, errInitializeTimeout)
	defer stop()
	return s.Initialize(ctx, topic)
}

// Initialize creates the tunnel that topic names, as Config.Tunnel says, unless it
// exists. With OnGapRecreate it creates BaseAndStream. The table must exist. A tunnel that exists
// stays as it is, even if it has expired; one of another type than Config.Tunnel names, or one that
// OnGapRecreate is not for, is an error (ErrTunnelType). It fails at once, and retries until ctx ends, as
// Subscribe does.
func (s *Subscriber) Initialize(ctx context.Context, topic string) (err error) {
	defer func() { s.refused(topic, err) }()
	table, name, err := splitTopic(topic)
	if err != nil {
		return err
	}
	if s.isClosed() {
		return fmt.Errorf("initializing %s: %w", topic, ErrClosed)
	}
	startCtx, cancel := s.startContext(ctx)
	defer cancel()
	info, err := s.describe(startCtx, table, name)
	switch {
	case err == nil:
		err = s.checkType(info)
	case errors.Is(err, ots.ErrTunnelGone):
		err = s.create(startCtx, table, name)
	}
	switch {
	case errors.Is(err, ots.ErrTunnelGone):
		return fmt.Errorf("initializing %s: %w; the table must exist, with a stream, in instance %q", topic, err, s.cfg.Instance)
	case err != nil:
		return fmt.Errorf("initializing %s: %w", topic, s.advise(ctx, topic, err))
	}
	return nil
}

// errInitializeTimeout ends SubscribeInitialize.
var errInitializeTimeout = fmt.Errorf("not within %v: %w", initializeTimeout, context.DeadlineExceeded)

// initializeTimeout bounds SubscribeInitialize, which has no context that could end it.
const initializeTimeout = time.Minute

// create creates the tunnel that Config.created describes, unless another process was faster.
func (s *Subscriber) create(ctx context.Context, table, name string) error {
	spec := s.cfg.created()
	return s.persist(ctx, table+"/"+name, "create", func() error {
		err := s.endpoint.Call(ctx, "create", func(api *tunnel.TunnelApi) error {
			_, err := api.CreateTunnel(&tunnel.CreateTunnelRequest{
				TableName: table, TunnelName: name,
				Type: tunnel.TunnelType(spec.Type), StreamTunnelConfig: spec.stream(),
			})
			return err
		})
		var se *ots.ServiceError
		if errors.As(err, &se) && se.Code == tunnel.ErrCodeTunnelExist {
			return nil
		}
		return err
	})
}

// stream returns the SDK's form of start and end; nil where the service's default is meant.
func (s TunnelSpec) stream() *tunnel.StreamTunnelConfig {
	if s.Start.IsZero() && s.End.IsZero() && !s.Earliest {
		return nil
	}
	c := &tunnel.StreamTunnelConfig{Flag: protocol.StartOffsetFlag_LATEST}
	if s.Earliest {
		c.Flag = protocol.StartOffsetFlag_EARLIEST
	}
	// Offsets are nanoseconds on the wire, and the Go SDK passes them as they are [docs/protocol.md, Start and end of a tunnel].
	if !s.Start.IsZero() {
		c.StartOffset = uint64(s.Start.UnixNano())
	}
	if !s.End.IsZero() {
		c.EndOffset = uint64(s.End.UnixNano())
	}
	return c
}
