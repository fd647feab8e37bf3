package subscriber

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

func (s *subscription) status(now time.Time) SubscriptionStatus {
	st, _ := s.statusAndLeft(now)
	return st
}

// statusAndLeft returns also the channels that are expected back, which no part of the
// status holds.
func (s *subscription) statusAndLeft(now time.Time) (SubscriptionStatus, map[string]leftChannel) {
	st := SubscriptionStatus{
		Topic: s.topic, Table: s.table, Tunnel: s.tunnel, TunnelID: s.tunnelID, TunnelType: s.tunnelType, Started: s.started,
		Draining:    s.stopping.Err() != nil,
		MaxInFlight: s.cfg.MaxInFlight, MaxInFlightBytes: s.cfg.MaxInFlightBytes,
		Retention: s.retention.load(), ExpectedClients: s.cfg.ExpectedClients,
		Channels: []ChannelStatus{}, Failing: []FailingRecord{},
	}
	s.mu.Lock()
	fatal, failed := s.err, s.failed
	st.Finished = s.finished
	s.mu.Unlock()
	if fatal != nil {
		st.Fatal = fatal.Error()
	}
	st.View = s.view.Load()
	sums := s.sums()
	st.Totals = sums.totals()
	st.Errors, st.LastError = s.observer.calls.status()
	runs, left := s.channels.allAndLeft()
	st.Clients = s.clients.status()
	for _, c := range st.Clients {
		st.Connected = st.Connected || c.Connected
	}
	s.channels.expected(left, now, st.Connected)
	for _, r := range runs {
		c := r.channelStatus(now)
		st.Channels = append(st.Channels, c)
		st.InFlight += c.InFlight
		st.InFlightBytes += c.InFlightBytes
		st.Lag = max(st.Lag, c.Lag)
		failing, n := r.failures.worst(r.id)
		st.Failing = append(st.Failing, failing...)
		st.FailingTotal += n
	}
	st.Lag = max(st.Lag, s.lagOfLeft(now, &st, left))
	st.Trouble = s.troubles(now, &st, runs, left)
	if s.cfg.heals(fatal) {
		st.Trouble = append(st.Trouble, recreating(failed, fatal).trouble())
	}
	slices.SortFunc(st.Channels, func(a, b ChannelStatus) int {
		if a.Base != b.Base {
			if a.Base {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.ID, b.ID)
	})
	slices.SortFunc(st.Failing, func(a, b FailingRecord) int {
		return cmp.Or(cmp.Compare(b.Attempts, a.Attempts), a.First.Compare(b.First), strings.Compare(a.Key, b.Key))
	})
	st.Failing = st.Failing[:min(len(st.Failing), MaxFailing)]
	return st, left
}

// lagOfLeft returns the lag of channels that are not read, because no client is
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

// troubles returns what fails without success in a subscription whose status is st.
func (s *subscription) troubles(now time.Time, st *SubscriptionStatus, runs []*channelRun, left map[string]leftChannel) []Trouble {
	found := []Trouble{}
	var clients, reads, commits, lookups callSum
	op := "heartbeat"
	for _, c := range st.Clients {
		since := c.FailingSince
		if !c.Connected {
			since, op = st.disconnectedSince(), "connect"
		}
		clients.add(since, c.LastError, false)
	}
	if t := clients.trouble(op, codeNetwork); t != nil && (op == "heartbeat" || clients.last != nil) {
		found = append(found, *t)
	}
	for _, r := range runs {
		state := &r.metrics.calls
		read, commit := state.failing(now)
		last, alone := state.readErr.Load().of(read)
		reads.add(read, last, alone)
		last, alone = state.commErr.Load().of(commit)
		commits.add(commit, last, alone)
		since := tunnelapi.SinceEpoch(state.rows.Load())
		last, alone = state.rowsErr.Load().of(since)
		lookups.add(since, last, alone)
	}
	for _, l := range left {
		if l.failing != nil {
			reads.add(tunnelapi.SinceEpoch(l.failingSince), l.failing.Failure, l.failing.alone())
		}
	}
	if t := reads.trouble("readrecords", codeTimeout); t != nil {
		found = append(found, *t)
	}
	if t := commits.trouble("checkpoint", codeTimeout); t != nil {
		found = append(found, *t)
	}
	if t := lookups.trouble(opLookup, codeTimeout); t != nil {
		found = append(found, *t)
	}
	return found
}
