package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// recreatePause is the first pause between two tries to recreate a tunnel; pauses grow to a minute.
const recreatePause = time.Second

// isGone reports whether err ends a single pipeline: its tunnel or its table does not exist,
// or the log has expired that it still needs. Retrying does not help, but the other
// pipelines are not affected.
func isGone(err error) bool {
	return errors.Is(err, ots.ErrTunnelGone) || errors.Is(err, ots.ErrTunnelExpired) || errors.Is(err, ots.ErrGap)
}

// follow returns when a subscription that has begun is over for good: drained, read to its
// end, or ended by an error. If the tunnel was deleted and the configuration says to create
// it, follow recreates and resubscribes it. With on_gap: recreate the subscription does that itself, and
// when it has ended by an error, it could not.
func (r *Router) follow(ctx context.Context, s *subscription) {
	for {
		<-s.done
		err := s.subscriber.Err()
		if err == nil || s.pipeline.ended() != nil {
			return
		}
		if t := r.cfg.Tunnels[s.name]; errors.Is(err, ots.ErrTunnelGone) && t.Tunnel.Create && !t.recreates() {
			if err = r.recreate(ctx, s, err); err == nil {
				continue
			}
		}
		r.pipelineEnded(s, err)
		return
	}
}

// recreate creates the tunnel, which was deleted, and subscribes to it. If it cannot, or ctx
// ends first, it returns the error that ends the pipeline.
//
// Other processes do the same: one creates the tunnel, and the others find it. A tunnel that
// has expired is not recreated: it still exists, and its expiry means that changes were lost.
func (r *Router) recreate(ctx context.Context, s *subscription, gone error) error {
	name := watermill.LogFields{"tunnel": s.name}
	r.logger.Error("Tunnel was deleted; it is recreated, and changes in between may be missing", gone, name)
	pauses := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(r.recreatePause), backoff.WithMaxInterval(time.Minute), backoff.WithMaxElapsedTime(0))
	for {
		err := r.connect(ctx, s)
		switch {
		case err == nil:
			r.logger.Info("Tunnel was recreated; the pipeline continues", name)
			return nil
		case r.stops.Err() != nil:
			return gone
		case isGone(err), errors.Is(err, ots.ErrAuth), errors.Is(err, subscriber.ErrTunnelType), errors.Is(err, subscriber.ErrClosed):
			return fmt.Errorf("%w; recreating the tunnel: %w", gone, err)
		}
		pause := pauses.NextBackOff()
		r.logger.Error("Tunnel cannot be recreated; it is retried", err, name.Add(watermill.LogFields{"pause": pause.String()}))
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-r.stopping:
			timer.Stop()
			return gone
		}
	}
}

// pipelineEnded ends a pipeline because of err. The others keep running, unless on_end says
// otherwise.
func (r *Router) pipelineEnded(s *subscription, err error) {
	if !s.pipeline.end(err) {
		return
	}
	if isGone(err) && s.pipeline.waits.Load() {
		r.logger.Error("Pipeline cannot start: its table or tunnel does not exist, or has expired", err, r.othersOf(s.name))
	} else if isGone(err) {
		r.logger.Error("Pipeline has ended: its tunnel is gone or expired", err, r.othersOf(s.name))
	} else { // a late one: earlier this error fails Run
		r.logger.Error("Pipeline has ended: its tunnel cannot be subscribed to", err, r.othersOf(s.name))
	}
	r.afterEnd(s.name)
}

// brakePipeline drains one pipeline whose brake has tripped.
func (r *Router) brakePipeline(name string, err error) {
	r.mu.Lock()
	p, sub := r.pipelines[name], r.subscribers[name]
	r.mu.Unlock()
	if !p.end(err) {
		return
	}
	r.logger.Error("Pipeline is stopped", err, r.othersOf(name))
	if sub != nil {
		// Ends with the drain; end waits.
		r.ending.Go(func() { _ = sub.Close() }) // end returns the same error
	}
	r.afterEnd(name)
}

// afterEnd does what on_end says.
func (r *Router) afterEnd(name string) {
	if r.cfg.Tunnels[name].OnEnd == onEndStop {
		r.stop()
	}
}

// othersOf returns the log fields for the end of a pipeline: its name, and how many others have
// not ended.
func (r *Router) othersOf(name string) watermill.LogFields {
	r.mu.Lock()
	defer r.mu.Unlock()
	others := 0
	for other, p := range r.pipelines {
		if other != name && !r.cfg.Tunnels[other].Disabled && p.ended() == nil {
			others++
		}
	}
	onEnd := r.cfg.Tunnels[name].OnEnd
	if onEnd == "" {
		onEnd = onEndContinue
	}
	return watermill.LogFields{"tunnel": name, "others": others, "on_end": onEnd}
}

// end drains the subscriptions, and returns the errors that ended pipelines.
func (r *Router) end(subs []*subscription) error {
	r.stop()
	closed := make([]error, len(subs))
	for i, s := range subs {
		closed[i] = s.subscriber.Close()
	}
	r.connecting.Wait()
	r.following.Wait()
	r.ending.Wait()
	var errs []error
	for i, s := range subs {
		if s.done != nil {
			<-s.done
		}
		if err := errors.Join(closed[i], s.pipeline.ended()); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", keypath.Join("tunnels", s.name), err))
		}
	}
	return errors.Join(errs...)
}
