package subscriber

import (
	"maps"
	"slices"
	"time"
)

// Status returns a snapshot of the subscriber. It takes short locks only, calls no
// code of the user's, and may be called at any time, also after Close.
func (s *Subscriber) Status() Status {
	s.mu.Lock()
	st := Status{Instance: s.cfg.Instance, Closed: s.closed}
	subs := slices.Clone(s.subscriptions)
	ended, starts := make([]SubscriptionStatus, 0, len(s.ended)), s.startsNow()
	for _, topic := range slices.Sorted(maps.Keys(s.ended)) {
		if _, starts := starts[topic]; !starts {
			ended = append(ended, s.ended[topic].status())
		}
	}
	for _, topic := range slices.Sorted(maps.Keys(starts)) {
		ended = append(ended, s.startStatus(topic, starts[topic]))
	}
	s.mu.Unlock()

	st.Time = time.Now()
	st.Subscriptions = make([]SubscriptionStatus, 0, len(subs)+len(ended))
	for _, sub := range subs {
		st.Subscriptions = append(st.Subscriptions, sub.status(st.Time))
	}
	st.Subscriptions = append(st.Subscriptions, ended...)
	return st
}

// startStatus returns the status of a topic whose start fails, or whose tunnel is recreated, with the totals of the
// earlier subscriptions to it. The caller holds mu.
func (s *Subscriber) startStatus(topic string, start starting) (st SubscriptionStatus) {
	if e := s.ended[topic]; e != nil {
		st = e.status()
	}
	st.Topic = topic
	st.Table, st.Tunnel, _ = splitTopic(topic) // it was split before
	st.Started, st.LastError = start.began, start.last
	st.Connected, st.Draining, st.Ended, st.Finished, st.Fatal = false, false, false, false, ""
	st.MaxInFlight, st.MaxInFlightBytes, st.ExpectedClients = s.cfg.MaxInFlight, s.cfg.MaxInFlightBytes, s.cfg.ExpectedClients
	st.Clients, st.Channels, st.Failing = []ClientStatus{}, []ChannelStatus{}, []FailingRecord{}
	st.Trouble = []Trouble{start.trouble()}
	return st
}
