package subscriber

import "time"

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
