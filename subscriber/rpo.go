package subscriber

import (
	"context"
	"fmt"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// RPO is how far a tunnel is, as the service sees it: over all of its
// consumers, in this process or others. Times are by the service's clock.
type RPO struct {
	Stage string // what the tunnel does, in the service's words

	// Read is the time up to which all channels were read, Committed that up to
	// which their checkpoints are. Zero while base data are read.
	Read, Committed time.Time

	ReadRecords, CommittedRecords int64 // over the tunnel's life
}

// RPO asks the service how far the tunnel of a topic is (GetRpo and
// GetRpoByOffset). This subscriber must have a subscription to it, else the error
// wraps ErrNotSubscribed. It makes two calls and may be called from any goroutine.
func (s *Subscriber) RPO(ctx context.Context, topic string) (RPO, error) {
	id := s.tunnelID(topic)
	if id == "" {
		return RPO{}, fmt.Errorf("asking how far %s is: %w", topic, ErrNotSubscribed)
	}
	ctx, cancel := s.callContext(ctx)
	defer cancel()
	read, err := s.recoveryPoint(ctx, "getrpo", id, (*tunnel.TunnelApi).GetRpo)
	if err != nil {
		return RPO{}, fmt.Errorf("asking how far %s is: %w", topic, err)
	}
	committed, err := s.recoveryPoint(ctx, "getrpobyoffset", id, (*tunnel.TunnelApi).GetRpoByOffset)
	if err != nil {
		return RPO{}, fmt.Errorf("asking how far %s is: %w", topic, err)
	}
	return RPO{
		Stage: read.Status,
		Read:  tunnelapi.SinceEpoch(read.RpoTime), ReadRecords: read.TotalCount,
		Committed: tunnelapi.SinceEpoch(committed.RpoTime), CommittedRecords: committed.TotalCount,
	}, nil
}

// tunnelID returns the id of the tunnel that a topic is subscribed to, if it is.
func (s *Subscriber) tunnelID(topic string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.subscriptions {
		if sub.topic == topic {
			return sub.tunnelID
		}
	}
	return ""
}

func (s *Subscriber) recoveryPoint(ctx context.Context, op, id string, get func(*tunnel.TunnelApi, *tunnel.GetRpoRequest) (*tunnel.GetRpoResponse, error)) (point tunnel.TunnelRpoLatency, err error) {
	defer func() { // the SDK dereferences fields of the answer that may be missing
		if v := recover(); v != nil {
			err = fmt.Errorf("%s: the answer is incomplete: %w", op, ack.NewPanicError("the SDK", v))
		}
	}()
	err = s.endpoint.Call(ctx, op, func(api *tunnel.TunnelApi) error {
		resp, err := get(api, &tunnel.GetRpoRequest{TunnelId: id})
		if err != nil {
			return err
		}
		for _, p := range resp.TunnelRpoInfos { // one, by the tunnel's id
			if p != nil {
				point = *p
			}
		}
		return nil
	})
	return point, err
}

// metaTimeout bounds what RPO does at the service.
const metaTimeout = 20 * time.Second

// callContext bounds the calls of a method: by ctx, by Close and in time.
func (s *Subscriber) callContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, metaTimeout)
	ctx, end := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(s.ctx, func() { end(ErrClosed) })
	return ctx, func() { unlink(); end(nil); cancel() }
}
