package subscriber

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// leftChannel is what is kept of a channel when its run ends, for the run that opens
// it again and for Status in between. Times are in nanoseconds since 1970, 0: none.
type leftChannel struct {
	at       time.Time // when the run ended; zero: there was none
	base     bool
	position int64 // up to where all changes are acked, as far as is known
	since    int64 // when the first of the runs that had no position was opened

	failingSince int64        // when the first read without a success since was made
	failing      *failedState // nil: the channel could be read
}

// comesBackMargin and HeartbeatInterval are how long a channel that its client has
// given back, or lost, may take to come back to a client that is connected: the
// answer to the next heartbeat hands it out. After that another client has it.
const comesBackMargin = 10 * time.Second

// leaves keeps what is to be known of a run that ends. The caller holds mu.
func (s *subscription) leaves(r *channelRun, end runEnd) {
	failing := r.status.reopening.Load()
	delete(s.left, r.conn.id)
	if end == endTerminated || end == endClosed && !failing {
		return // it is at its end, or another client's
	}
	l := leftChannel{at: time.Now(), base: r.status.base.Load(), position: r.status.fenced.Load(), since: r.status.since().UnixNano()}
	if calls := &r.status.calls; failing && calls.read.Load() != 0 {
		l.failingSince, l.failing = calls.read.Load(), calls.readErr.Load()
	}
	if s.left == nil {
		s.left = make(map[string]leftChannel)
	}
	s.left[r.conn.id] = l
}

// comesBack gives a run what the run before has left. The caller holds mu.
func (s *subscription) comesBack(r *channelRun) {
	l, ok := s.left[r.conn.id]
	if !ok {
		return
	}
	delete(s.left, r.conn.id)
	r.status.before = l
	if l.failing != nil {
		r.status.calls.readErr.Store(l.failing)
		r.status.calls.read.Store(l.failingSince)
	}
}

// from is the time from which the lag of the channel counts.
func (l leftChannel) from() time.Time { return sinceEpoch(cmp.Or(l.position, l.since)) }

// since is when the channel was opened, by the first of the runs that had no position.
func (s *runStatus) since() time.Time {
	if s.before.since != 0 {
		return sinceEpoch(s.before.since)
	}
	return s.opened
}

// runsAndLeft returns the channels that are read and, from the same moment, those that
// ended and may come back: a channel on its way between them is in one of the two.
func (s *subscription) runsAndLeft() (runs []*channelRun, left map[string]leftChannel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.runs)), maps.Clone(s.left)
}

// expected removes from left the channels that are not expected back. While a client is
// connected, those that stay away for long are not: another client has them.
func (s *subscription) expected(left map[string]leftChannel, now time.Time, connected bool) {
	if !connected {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, l := range left {
		from := l.at
		if s.connected.After(from) {
			from = s.connected
		}
		if now.Sub(from) <= s.cfg.HeartbeatInterval+comesBackMargin {
			continue
		}
		delete(left, id)
		if s.left[id].at.Equal(l.at) {
			delete(s.left, id)
		}
	}
}

// lagOfLeft returns the lag of channels that nobody reads, because no client is
// connected or because they were given back a moment ago. Base data has none.
func (s *subscription) lagOfLeft(now time.Time, st *SubscriptionStatus, left map[string]leftChannel) (lag time.Duration) {
	if s.tunnelType == BaseData {
		return 0
	}
	for _, l := range left {
		if !l.base {
			lag = max(lag, now.Sub(l.from()))
		}
	}
	if !st.Connected && len(left) == 0 && len(st.Channels) == 0 {
		lag = now.Sub(st.disconnectedSince())
	}
	return lag
}
