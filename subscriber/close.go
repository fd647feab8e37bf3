package subscriber

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

// Err returns the errors that ended subscriptions, one for each topic: their
// tunnels were deleted (ErrTunnelGone) or expired (ErrTunnelExpired), or changes are lost (ErrGap). Nil while
// all is well, when tunnels were read to their ends, and while OnGapRecreate recreates a tunnel. A new
// subscription to a topic takes the error of the one before away.
func (s *Subscriber) Err() error {
	fatal := make(map[string]error)
	s.mu.Lock()
	for topic, e := range s.ended {
		fatal[topic] = e.fatal
	}
	for _, sub := range s.subscriptions {
		if err := sub.fatal(); err != nil && !s.cfg.heals(err) {
			fatal[sub.topic] = err
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, topic := range slices.Sorted(maps.Keys(fatal)) {
		errs = append(errs, fatal[topic])
	}
	return errors.Join(errs...)
}

// Close drains all subscriptions, as the end of their contexts does, and
// returns when their output channels are closed and no goroutine is left. It
// takes at most CloseTimeout and five seconds for the last calls to the service,
// whatever does not answer; user code that does not return by then is left alone, and
// the log says so. Messages that were unsettled then give an error that wraps
// ErrDrainTimeout, and acked ones whose checkpoint could not be stored one that wraps
// ErrNotCommitted; both are redelivered to the tunnel's next consumer. Further
// calls wait for the first one and return the same.
func (s *Subscriber) Close() error {
	return s.closing.Do(func() error {
		s.mu.Lock()
		s.closed = true
		subs, all := slices.Clone(s.subscriptions), slices.Collect(maps.Keys(s.all))
		s.mu.Unlock()
		s.cancel(ErrClosed) // which also ends the calls that recreate tunnels
		for _, sub := range subs {
			sub.stop()
		}
		for _, r := range all {
			<-r.done
		}
		s.endpoint.Creds.Close(service.CredentialsGrace)
		if s.own != nil {
			s.own.CloseIdleConnections()
		}
		return s.unsettled()
	})
}

// unsettled tells of the messages that drains gave up, and of those that they could not commit.
func (s *Subscriber) unsettled() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, topic := range slices.Sorted(maps.Keys(s.ended)) {
		errs = append(errs, s.ended[topic].unsettled.err(topic))
	}
	return errors.Join(errs...)
}

// subscriptionEnded stores the status and the error of a subscription that has ended, and decides
// whether the series continues.
func (s *Subscriber) subscriptionEnded(r *series, sub *subscription) {
	last := sub.status(time.Now())
	last.Ended, last.Connected, last.Draining, last.Trouble, last.View = true, false, false, []Trouble{}, nil
	cause := sub.fatal()
	s.mu.Lock()
	s.subscriptions = slices.DeleteFunc(s.subscriptions, func(o *subscription) bool { return o == sub })
	e := s.ended[sub.topic]
	if e == nil {
		e = new(endedSubscriptions)
		s.ended[sub.topic] = e
	}
	e.add(sub, last)
	if s.cfg.heals(cause) && !s.closed && r.ctx.Err() == nil {
		sub.continues = true
		s.recreations[r] = recreating(sub.failed, cause)
	} else {
		e.fail(sub, cause)
	}
	watches := slices.Collect(maps.Keys(s.watches))
	s.mu.Unlock()
	for _, f := range watches {
		(*f)()
	}
}

func (s *Subscriber) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}
