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

// anewPause is the first pause between two tries to create a tunnel anew; they grow to a minute.
const anewPause = time.Second

// isGone reports whether err ends a single pipeline: its tunnel, or the table, does not exist
// (any more), or the log that it still needs. Trying again does not help, but the
// other pipelines have nothing to do with it.
func isGone(err error) bool {
	return errors.Is(err, ots.ErrTunnelGone) || errors.Is(err, ots.ErrTunnelExpired) || errors.Is(err, ots.ErrGap)
}

// follow returns when a subscription that has begun is over for good: drained, read
// to its end, or ended by itself. Another one follows if the tunnel was deleted and
// the file says that it is to be created.
func (r *Router) follow(ctx context.Context, s *subscription) {
	for {
		<-s.done
		err := s.subscriber.Err()
		if err == nil || s.pipeline.ended() != nil {
			return
		}
		if errors.Is(err, ots.ErrTunnelGone) && r.cfg.Tunnels[s.name].Tunnel.Create {
			if err = r.makeAnew(ctx, s, err); err == nil {
				continue
			}
		}
		r.pipelineEnded(s, err)
		return
	}
}

// makeAnew creates the tunnel, which was deleted, and subscribes to it. It returns why the
// pipeline ends if that cannot be done, or when ctx ends before.
//
// Other processes do the same: one creates it, and the others find it made. A tunnel that has
// expired is not made anew: it is still there, and its end means that changes were lost.
func (r *Router) makeAnew(ctx context.Context, s *subscription, gone error) error {
	name := watermill.LogFields{"tunnel": s.name}
	r.logger.Error("Tunnel was deleted; it is created anew, and changes of the time between may be missing", gone, name)
	pauses := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(r.anewPause), backoff.WithMaxInterval(time.Minute), backoff.WithMaxElapsedTime(0))
	for {
		err := r.connect(ctx, s)
		switch {
		case err == nil:
			r.logger.Info("Tunnel was created anew; the pipeline goes on", name)
			return nil
		case r.stops.Err() != nil:
			return gone
		case isGone(err), errors.Is(err, ots.ErrAuth), errors.Is(err, subscriber.ErrTunnelType), errors.Is(err, subscriber.ErrClosed):
			return fmt.Errorf("%w; creating the tunnel anew: %w", gone, err)
		}
		pause := pauses.NextBackOff()
		r.logger.Error("Tunnel cannot be created anew; it is tried again", err, name.Add(watermill.LogFields{"pause": pause.String()}))
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-r.stopping:
			timer.Stop()
			return gone
		}
	}
}

// pipelineEnded notes that a pipeline has ended by itself. The others run on, unless
// on_end says otherwise.
func (r *Router) pipelineEnded(s *subscription, err error) {
	if !s.pipeline.end(err) {
		return
	}
	if isGone(err) {
		r.logger.Error("Pipeline has ended: its tunnel is gone or expired", err, r.othersOf(s.name))
	} else { // after the others began
		r.logger.Error("Pipeline has ended: its tunnel cannot be subscribed to", err, r.othersOf(s.name))
	}
	r.afterEnd(s.name)
}

// brakePipeline drains one pipeline because its brake tripped.
func (r *Router) brakePipeline(name string, err error) {
	r.mu.Lock()
	p, sub := r.pipelines[name], r.subscribers[name]
	r.mu.Unlock()
	if !p.end(err) {
		return
	}
	r.logger.Error("Pipeline is stopped", err, r.othersOf(name))
	if sub != nil {
		// Owner: end, which waits. It takes as long as the drain.
		r.ending.Go(func() { _ = sub.Close() }) // end gets the same error
	}
	r.afterEnd(name)
}

// afterEnd does what on_end says.
func (r *Router) afterEnd(name string) {
	if r.cfg.Tunnels[name].OnEnd == onEndStop {
		r.stop()
	}
}

// othersOf says in the log which pipeline it is about, and how many others have not ended.
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

// end drains what still runs, and tells what ended each pipeline.
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
