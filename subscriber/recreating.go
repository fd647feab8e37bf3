package subscriber

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/ots"
)

// opRecreate is the Op of a Trouble that lasts while a tunnel is recreated.
const opRecreate = "recreate"

// recreating is what Status shows of a series whose tunnel is recreated because of err.
func recreating(since time.Time, err error) starting {
	code := tunnel.ErrCodeTunnelExpired // found by a look at the tunnel
	var se *ots.ServiceError
	if errors.As(err, &se) {
		code = se.Code
	}
	return starting{since, newFailure(failedCall{opRecreate, code}, err)}
}

// trouble returns what fails at a start, or why a tunnel is recreated.
func (s starting) trouble() Trouble {
	t := Trouble{
		Op: s.last.Op, Since: s.began, Failing: 1, Of: 1,
		Cause: causeOf(s.last.Code), Code: s.last.Code, Error: s.last.Error,
	}
	if t.Op == opRecreate {
		t.Cause = "the tunnel is recreated, and all rows are delivered again"
	}
	return t
}

// recreationBegins notes that the tunnel of a series, which has no subscription, is recreated.
func (s *Subscriber) recreationBegins(r *series, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recreations[r] = recreating(time.Now(), err)
}

// recreationEnds notes the end of that, whatever became of it.
func (s *Subscriber) recreationEnds(r *series) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.recreations, r)
}

// recreationFailed notes that sub is the last subscription of its series, because of err.
func (s *Subscriber) recreationFailed(r *series, sub *subscription, err error) {
	s.mu.Lock()
	delete(s.recreations, r)
	s.ended[r.topic].fail(sub, err)
	watches := slices.Collect(maps.Keys(s.watches))
	s.mu.Unlock()
	for _, f := range watches {
		(*f)()
	}
}

// startsNow returns the topics whose start fails, and those whose tunnels are recreated. The caller holds mu.
func (s *Subscriber) startsNow() map[string]starting {
	all := maps.Clone(s.starts)
	if all == nil {
		all = make(map[string]starting)
	}
	for topic := range all { // while another subscription works, a start that fails is its caller's concern
		if slices.ContainsFunc(s.subscriptions, func(o *subscription) bool { return o.topic == topic }) {
			delete(all, topic)
		}
	}
	for r, since := range s.recreations {
		all[r.topic] = since
	}
	return all
}
