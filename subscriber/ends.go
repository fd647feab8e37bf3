package subscriber

import (
	"errors"
	"time"

	"github.com/watermill-ots/watermill-ots/ots"
)

// endedSubscriptions is what is kept of the subscriptions of a topic that have ended.
type endedSubscriptions struct {
	last      SubscriptionStatus // of the one that ended last
	tally     tally
	calls     failedCalls
	unsettled unsettled
	fatal     error // the last one
}

// add takes in a subscription that has ended, whose last status is given.
func (e *endedSubscriptions) add(sub *subscription, last SubscriptionStatus) {
	e.last = last
	sums := sub.sums()
	e.tally.add(&sums)
	e.calls.addAll(&sub.observer.calls)
}

// fail takes in what a subscription has left behind that no other follows, and why it ended by itself; nil
// if it did not. What one left behind whose tunnel was recreated does not count: all rows are delivered again.
func (e *endedSubscriptions) fail(sub *subscription, err error) {
	e.unsettled.add(&sub.observer.unsettled)
	if err != nil {
		e.fatal, e.last.Fatal = err, err.Error()
	}
}

func (e *endedSubscriptions) status() SubscriptionStatus {
	st := e.last
	st.Totals = e.tally.totals()
	st.Errors, _ = e.calls.status()
	return st
}

// refused keeps, for Status, that a tunnel could not be subscribed to because it is
// gone or expired: the program may continue with other tunnels. Err does not return it,
// because the caller has the error.
func (s *Subscriber) refused(topic string, err error) {
	if !errors.Is(err, ots.ErrTunnelGone) && !errors.Is(err, ots.ErrTunnelExpired) {
		return
	}
	table, name, splitErr := splitTopic(topic)
	if splitErr != nil { // it was split before
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.ended[topic]
	if e == nil {
		e = &endedSubscriptions{last: SubscriptionStatus{
			Topic: topic, Table: table, Tunnel: name, Started: time.Now(), Ended: true,
			MaxInFlight: s.cfg.MaxInFlight, MaxInFlightBytes: s.cfg.MaxInFlightBytes,
			Clients: []ClientStatus{}, Channels: []ChannelStatus{}, Failing: []FailingRecord{},
		}}
		s.ended[topic] = e
	}
	e.last.Finished, e.last.Fatal = false, err.Error()
}

// begins forgets why the last subscription to a topic ended: another one begins. The
// caller holds mu.
func (s *Subscriber) begins(topic string) {
	if e := s.ended[topic]; e != nil {
		e.fatal, e.last.Fatal, e.last.Finished = nil, "", false
	}
}

// watchEnds has f called at each end of a subscription, before its output is
// closed, until the returned function is called.
func (s *Subscriber) watchEnds(f func()) (unwatch func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watches == nil {
		s.watches = make(map[*func()]struct{})
	}
	key := &f
	s.watches[key] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watches, key)
	}
}

// allEnded reports whether there were subscriptions, and all have ended for good.
func (s *Subscriber) allEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.subscriptions) == 0 && len(s.recreations) == 0 && len(s.ended) > 0
}
