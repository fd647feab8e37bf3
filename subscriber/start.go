package subscriber

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
	"github.com/watermill-ots/watermill-ots/ots"
)

// startContext bounds the calls of a start: by ctx and by Close.
func (s *Subscriber) startContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(s.ctx, func() { end(ErrClosed) })
	return ctx, func() { unlink(); end(nil) }
}

// persist makes one call of a start, and retries it with backoff while it fails for a
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
		if c := tunnelapi.Classify(err); c != retry && c != throttled {
			return err
		}
		if ctx.Err() != nil {
			return gaveUp(ctx, err)
		}
		s.startFails(topic, op, began, err)
		pause := nextPause(pauses)
		if tunnelapi.Classify(err) == throttled {
			pause = max(pause, throttlePause)
		}
		fields := callFields(op, err).Add(watermill.LogFields{"topic": topic, "pause": pause.String()})
		if kind := failedCallOf(op, err); !told[kind] && len(told) < maxFailedCalls {
			told[kind] = true
			s.logger.Error("Start failed; retrying", s.advise(ctx, topic, err), fields)
		} else {
			s.logger.Debug("Start failed; retrying", fields.Add(watermill.LogFields{"err": err.Error()}))
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

// gaveUp is the error of a start that was ended while it was retried: what failed
// last, and what ended it.
func gaveUp(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); !errors.Is(err, cause) {
		return fmt.Errorf("%w; given up: %w", err, cause)
	}
	return err
}

// describe looks a tunnel up.
func (s *Subscriber) describe(ctx context.Context, table, name string) (*tunnel.TunnelInfo, error) {
	found, err := s.look(ctx, table, name)
	if err != nil {
		return nil, err
	}
	return found.Tunnel, nil
}

// look looks a tunnel up, with its channels.
func (s *Subscriber) look(ctx context.Context, table, name string) (found *tunnel.DescribeTunnelResponse, err error) {
	err = s.persist(ctx, table+"/"+name, "describe", func() error {
		return s.endpoint.Call(ctx, "describe", func(api *tunnel.TunnelApi) (err error) {
			found, err = api.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: table, TunnelName: name})
			return err
		})
	})
	return found, err
}

// advise adds to an error what can be done about it. A call that ended because ctx,
// the caller's context, was cancelled or because of Close needs no advice; that of a tunnel that has expired
// is in the error.
func (s *Subscriber) advise(ctx context.Context, topic string, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) || s.ctx.Err() != nil || errors.Is(err, ErrTunnelType) || errors.Is(err, ots.ErrTunnelExpired) {
		return err
	}
	terms := service.TermsOf(ctx, configTerms)
	switch tunnelapi.Classify(err) {
	case auth:
		region := "" // which only signature version 4 needs
		if s.cfg.Region != "" {
			region = fmt.Sprintf(", that %s %q is the region of the instance", terms.Region, s.cfg.Region)
		}
		return fmt.Errorf("%w; check %s%s, and that the key may use instance %q", err, terms.Keys, region, s.cfg.Instance)
	case fatal:
		if errors.Is(err, ots.ErrTunnelGone) {
			return s.adviseGone(ctx, terms, topic, err)
		}
	case retry:
		return fmt.Errorf("%w; check %s (%s) and that it can be reached from here", err, terms.Endpoint, s.cfg.Endpoint)
	}
	return err
}

// configTerms are the terms of those who call New.
var configTerms = service.Terms{
	Endpoint: "Config.Endpoint",
	Keys:     "Config.AccessKeyID, AccessKeySecret and SecurityToken (or Config.Credentials)",
	Region:   "Config.Region",
	Names:    "the topic (table/tunnel) and Config.Instance",
	Table:    "the topic (table/tunnel)",
	Create:   "create the tunnel with SubscribeInitialize",
}

// tableLook bounds the call that tells a missing table from a missing tunnel.
const tableLook = 5 * time.Second

// adviseGone is advise for a table or a tunnel that does not exist. The service answers
// both alike, so that the table is looked up; when it cannot be, the advice is for both.
func (s *Subscriber) adviseGone(ctx context.Context, terms service.Terms, topic string, err error) error {
	table, _, malformed := splitTopic(topic)
	if malformed != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tableLook)
	defer cancel()
	_, look := streamRetention(ctx, s.endpoint, table)
	answer, _ := errors.AsType[*ots.ServiceError](look)
	switch {
	case look == nil:
		return fmt.Errorf("%w; table %q exists and the tunnel does not: check its name, or %s", err, table, terms.Create)
	case answer != nil && answer.Code == service.CodeObjectNotExist:
		return fmt.Errorf("%w; instance %q has no table %q: check %s, or create the table, with a stream", err, s.cfg.Instance, table, terms.Table)
	}
	return fmt.Errorf("%w; check %s, or %s", err, terms.Names, terms.Create)
}

// starting is a start that fails and is retried. Status shows it in the place of the
// subscription that does not exist yet.
type starting struct {
	began time.Time
	last  *Failure
}

// startFails notes that a call of a start failed.
func (s *Subscriber) startFails(topic, op string, began time.Time, err error) {
	call := failedCallOf(op, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.starts == nil {
		s.starts = make(map[string]starting)
	}
	s.starts[topic] = starting{began, newFailure(call, err)}
}

// startEnds notes that a start is over, whatever became of it.
func (s *Subscriber) startEnds(topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.starts, topic)
}
