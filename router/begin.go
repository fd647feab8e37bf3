package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
)

const (
	// startPatience is how long subscribed pipelines wait for the others before they run.
	startPatience = 10 * time.Second
	// faultPatience is how long Run, once it fails, waits for errors of other pipelines.
	faultPatience = time.Second
)

// beginnings is the state of the subscriptions when the pipelines begin to run.
type beginnings struct {
	alive []*subscription // subscribed
	late  []*subscription // not subscribed yet
	tried <-chan attempt  // the outcomes of late, one each
}

// attempt is the outcome of one subscription's connect.
type attempt struct {
	*subscription
	err error
}

// subscribe subscribes to all tunnels concurrently. A tunnel that is gone or expired ends only
// its own pipeline. An error is one that fails Run. A tunnel whose service cannot be reached is
// retried; after startPatience the others do not wait for it any longer.
func (r *Router) subscribe(ctx context.Context, subs []*subscription) (b beginnings, err error) {
	tried := make(chan attempt, len(subs))
	for _, s := range subs {
		r.connecting.Go(func() { // ends with the calls in it, which ctx bounds; end waits
			tried <- attempt{s, r.unlessStopping(r.connect(ctx, s))}
		})
	}
	pending := make(map[*subscription]bool, len(subs))
	for _, s := range subs {
		pending[s] = true
	}
	patience := time.NewTimer(r.patience)
	defer patience.Stop()
	var impatient <-chan time.Time // of patience, once a pipeline could run
	var failing <-chan time.Time   // set once Run fails
	var errs []error
	for len(pending) > 0 {
		select {
		case a := <-tried:
			delete(pending, a.subscription)
			switch {
			case isGone(a.err):
				r.pipelineEnded(a.subscription, a.err)
			case a.err != nil:
				errs = append(errs, fmt.Errorf("%s: %w", keypath.Join("tunnels", a.name), a.err))
				failing = time.After(faultPatience)
			case a.done != nil: // nil: the Router stops
				b.alive = append(b.alive, a.subscription)
				impatient = patience.C
			}
			continue
		case <-failing:
		case <-impatient:
		}
		break
	}
	if len(errs) > 0 {
		return b, errors.Join(errs...)
	}
	b.tried = tried
	for _, s := range subs {
		if pending[s] {
			b.late = append(b.late, s)
			r.logger.Info("Pipeline is not subscribed yet; the others run", watermill.LogFields{"tunnel": s.name})
		}
	}
	return b, nil
}

// followAll follows all subscriptions that have begun, and the late ones once they begin.
func (r *Router) followAll(ctx context.Context, b beginnings) {
	follow := func(s *subscription) {
		r.following.Go(func() { // ends with the subscription
			r.follow(ctx, s)
			close(s.over)
			close(s.messages)
		})
	}
	for _, s := range b.alive {
		follow(s)
	}
	r.following.Go(func() { // ends when all late ones have been tried, or the Router stops
		for range b.late {
			a := <-b.tried
			switch {
			case a.err == nil && a.done != nil:
				r.logger.Info("Pipeline is subscribed; it runs", watermill.LogFields{"tunnel": a.name})
				follow(a.subscription)
				continue
			case a.err != nil:
				r.pipelineEnded(a.subscription, a.err)
			}
			close(a.over)
			close(a.messages)
		}
	})
}

// connect creates the tunnel if that is asked for, and starts the subscription. With on_gap: recreate the
// subscription creates the tunnel itself.
func (r *Router) connect(ctx context.Context, s *subscription) error {
	s.pipeline.waits.Store(true)
	ctx = service.WithTerms(ctx, r.cfg.terms(s.name))
	if t := r.cfg.Tunnels[s.name]; t.Tunnel.Create && !t.recreates() {
		// For a minute, as SubscribeInitialize.
		limited, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		unlink := context.AfterFunc(ctx, func() { _ = s.subscriber.Close() }) // end returns the same error
		err := s.subscriber.Initialize(limited, s.topic)
		unlink()
		stop()
		if err != nil {
			return err
		}
	}
	done, err := s.start(ctx, s)
	if err != nil {
		return err
	}
	s.done = done
	s.pipeline.waits.Store(false)
	return nil
}
