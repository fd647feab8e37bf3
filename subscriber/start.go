package subscriber

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/ots"
)

// initializeTimeout bounds SubscribeInitialize, which has no context that could end it.
const initializeTimeout = time.Minute

// startContext bounds the calls of a start: by ctx and by Close.
func (s *Subscriber) startContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(s.ctx, func() { end(ErrClosed) })
	return ctx, func() { unlink(); end(nil) }
}

// persist makes a call of a start, again and again with backoff while it fails for a
// reason that may pass: the service is busy, throttles or cannot be reached, an answer
// is late. Anything else is returned at once. Each kind of failure is logged once.
func (s *Subscriber) persist(ctx context.Context, topic, op string, call func() error) error {
	began, pauses := time.Now(), s.cfg.ReadBackoff()
	told := make(map[failedCall]bool)
	defer s.startEnds(topic)
	for failures := 0; ; failures++ {
		err := call()
		if err == nil {
			if failures > 0 {
				s.logger.Info("Calls succeed again", watermill.LogFields{
					"topic": topic, "operation": op, "failures": failures, "lasted": time.Since(began).Round(time.Millisecond).String(),
				})
			}
			return nil
		}
		if c := classify(err); c != retry && c != throttled {
			return err
		}
		if ctx.Err() != nil {
			return gaveUp(ctx, err)
		}
		s.startFails(topic, op, began, err)
		pause := nextPause(pauses)
		if classify(err) == throttled {
			pause = max(pause, throttlePause)
		}
		fields := callFields(op, err).Add(watermill.LogFields{"topic": topic, "pause": pause.String()})
		if kind := failedCallOf(op, err); !told[kind] && len(told) < maxFailedCalls {
			told[kind] = true
			s.logger.Error("Start failed; it is tried again", s.advise(ctx, err), fields)
		} else {
			s.logger.Debug("Start failed; it is tried again", fields.Add(watermill.LogFields{"err": err.Error()}))
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return gaveUp(ctx, err)
		}
	}
}

// gaveUp is the error of a start that was ended while it was tried again: what failed
// last, and what ended it.
func gaveUp(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); !errors.Is(err, cause) {
		return fmt.Errorf("%w; given up: %w", err, cause)
	}
	return err
}

// describe looks a tunnel up.
func (s *Subscriber) describe(ctx context.Context, table, name string) (info *tunnel.TunnelInfo, err error) {
	err = s.persist(ctx, table+"/"+name, "describe", func() error {
		return s.endpoint.call(ctx, "describe", func(api *tunnel.TunnelApi) error {
			resp, err := api.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: table, TunnelName: name})
			if err == nil {
				info = resp.Tunnel
			}
			return err
		})
	})
	return info, err
}

// create creates the tunnel that Config.Tunnel describes, unless another process was faster.
func (s *Subscriber) create(ctx context.Context, table, name string) error {
	return s.persist(ctx, table+"/"+name, "create", func() error {
		err := s.endpoint.call(ctx, "create", func(api *tunnel.TunnelApi) error {
			_, err := api.CreateTunnel(&tunnel.CreateTunnelRequest{
				TableName: table, TunnelName: name,
				Type: tunnel.TunnelType(s.cfg.Tunnel.Type), StreamTunnelConfig: s.cfg.Tunnel.stream(),
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

// checkType refuses a tunnel of another type than the configuration asks for. One
// that names no type takes any.
func (s *Subscriber) checkType(info *tunnel.TunnelInfo) error {
	want := s.wantType
	if want == "" || TunnelType(info.TunnelType) == want {
		return nil
	}
	return fmt.Errorf("%w: the tunnel is of type %s and Config.Tunnel.Type is %s; a tunnel keeps its type: configure %s, or use a tunnel of another name",
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
		s.logger.Error("Tunnel starts or ends at another time than Config.Tunnel says; it stays as it is", errTunnelTimes, fields)
	}
}

// errTunnelTimes goes with the warning: start and end of a tunnel are fixed at its creation.
var errTunnelTimes = errors.New("a tunnel keeps the start and the end that it was created with")

// startText tells from when on a tunnel delivers changes.
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
