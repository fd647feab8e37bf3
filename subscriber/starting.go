package subscriber

import (
	"slices"
	"time"
)

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
	s.starts[topic] = starting{began, &Failure{Time: time.Now(), Op: call.op, Code: call.code, Error: err.Error()}}
}

// startEnds notes that a start is over, whatever became of it.
func (s *Subscriber) startEnds(topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.starts, topic)
}

// startStatus returns the status of a topic whose start fails, with the totals of the
// earlier subscriptions to it. ok is false if no start of the topic fails, or if there
// is another subscription to it. The caller holds mu.
func (s *Subscriber) startStatus(topic string) (st SubscriptionStatus, ok bool) {
	start, ok := s.starts[topic]
	if !ok || slices.ContainsFunc(s.subscriptions, func(o *subscription) bool { return o.topic == topic }) {
		return st, false
	}
	if e := s.ended[topic]; e != nil {
		st = e.status()
	}
	st.Topic = topic
	st.Table, st.Tunnel, _ = splitTopic(topic) // it was split before
	st.Started, st.LastError = start.began, start.last
	st.Connected, st.Draining, st.Ended, st.Finished, st.Fatal = false, false, false, false, ""
	st.MaxInFlight, st.MaxInFlightBytes, st.ExpectedClients = s.cfg.MaxInFlight, s.cfg.MaxInFlightBytes, s.cfg.ExpectedClients
	st.Clients, st.Channels, st.Failing = []ClientStatus{}, []ChannelStatus{}, []FailingRecord{}
	st.Trouble = []Trouble{{
		Op: start.last.Op, Since: start.began, Failing: 1, Of: 1,
		Cause: causeOf(start.last.Code), Code: start.last.Code, Error: start.last.Error,
	}}
	return st, true
}
