package subscriber

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

// counter names one thing that is counted. Effects stand before their causes,
// and are read in this order: so no snapshot has more acked than delivered, or
// more delivered for the first time than read.
type counter uint8

const (
	countAcked counter = iota
	countSkipped
	countNacked
	countRefused
	countCalledBack
	countAbandoned
	countRedelivered
	countFirstDelivered // not Redelivered
	countRecords
	countBytes
	countReadsFull
	countReadsPartial
	countReadsEmpty
	countReadsFailed
	countCheckpoints
	countCheckpointsFailed
	countFinished
	countClosed
	countLost
	countRebalances
	countDrains
	countOpened
	countHeartbeats
	countHeartbeatsFailed
	countReconnects
	countConnects
	counters
)

// counts are the counters of one channelRun or one session. Any goroutine may
// add; they are summed up only when somebody asks.
type counts [counters]atomic.Uint64

func (c *counts) inc(n counter) { c[n].Add(1) }

func (c *counts) add(n counter, by int) {
	if by != 0 {
		c[n].Add(uint64(by))
	}
}

// tally is a sum of counts.
type tally [counters]uint64

func (t *tally) addCounts(c *counts) {
	for n := range c {
		t[n] += c[n].Load()
	}
}

func (t *tally) add(o *tally) {
	for n := range o {
		t[n] += o[n]
	}
}

// totals gives the sums their names.
func (t *tally) totals() Totals {
	return Totals{
		RecordsRead: t[countRecords], BytesRead: t[countBytes],
		ReadsFull: t[countReadsFull], ReadsPartial: t[countReadsPartial], ReadsEmpty: t[countReadsEmpty], ReadsFailed: t[countReadsFailed],
		Delivered: t[countFirstDelivered] + t[countRedelivered], Redelivered: t[countRedelivered],
		Acked: t[countAcked], Skipped: t[countSkipped], Nacked: t[countNacked], Refused: t[countRefused], CalledBack: t[countCalledBack], Abandoned: t[countAbandoned],
		Checkpoints: t[countCheckpoints], CheckpointsFailed: t[countCheckpointsFailed],
		ChannelsOpened: t[countOpened], ChannelsFinished: t[countFinished], ChannelsClosed: t[countClosed], ChannelsLost: t[countLost],
		Rebalances: t[countRebalances], Drains: t[countDrains],
		Connects: t[countConnects], Reconnects: t[countReconnects], Heartbeats: t[countHeartbeats], HeartbeatsFailed: t[countHeartbeatsFailed],
	}
}

// failedCall identifies failures that are counted together.
type failedCall struct{ op, code string }

// maxFailedCalls bounds how many of them a subscription tells apart: the codes
// come from outside. Further ones count as otherCode.
const (
	maxFailedCalls = 64
	otherCode      = "other"
)

// Codes of failures that are no answers of the service.
const (
	codeMalformed   = "malformed" // the answer does not decode
	codeTimeout     = "timeout"
	codeCredentials = "credentials" // Config.Credentials gave none
	codeNetwork     = "network"     // everything else
)

// failedCallOf returns what failed: the operation, and the service's code or one of ours.
func failedCallOf(op string, err error) failedCall {
	var se *ots.ServiceError
	var ne net.Error
	switch {
	case errors.As(err, &se):
		return failedCall{se.Op, se.Code}
	case errors.Is(err, errPage):
		return failedCall{"readrecords", codeMalformed}
	case errors.Is(err, service.ErrCredentials):
		return failedCall{op, codeCredentials}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return failedCall{op, codeTimeout}
	}
	return failedCall{op, codeNetwork}
}

// countPage counts a page, which pause follows. The tracker does not have it
// yet: what is delivered was counted as read.
func (r *channelRun) countPage(p *page, pause time.Duration) {
	r.counts.add(countRecords, len(p.rows))
	r.counts.add(countBytes, p.size)
	switch {
	case len(p.rows) == 0:
		r.counts.inc(countReadsEmpty)
	case pause == 0:
		r.counts.inc(countReadsFull)
	default:
		r.counts.inc(countReadsPartial)
	}
}

// noteDelivered counts a message that was taken from the output.
func (r *channelRun) noteDelivered(a ledger.Attempt) {
	if a.Number() > 1 {
		r.counts.inc(countRedelivered)
	} else {
		r.counts.inc(countFirstDelivered)
	}
}

// noteAcked counts an ack, and tells Config.OnAck.
func (r *channelRun) noteAcked(d *delivery) {
	r.counts.inc(countAcked)
	f := r.sub.cfg.OnAck
	if f == nil {
		return
	}
	now := time.Now()
	a := Acked{Instance: r.sub.cfg.Instance, Topic: r.sub.topic, Attempt: d.attempt.Number(), Handling: now.Sub(d.since())}
	if d.changed != 0 {
		a.Changed = time.UnixMicro(d.changed)
		a.Delay = max(0, now.Sub(a.Changed))
	}
	f(a)
}

// noteError counts a call that failed. What we gave up ourselves does not count:
// the caller knows by the context of the call.
func (s *subscription) noteError(op string, err error) *Failure {
	call := failedCallOf(op, err)
	f := &Failure{Time: time.Now(), Op: call.op, Code: call.code, Error: err.Error()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastError = f
	if _, known := s.errors[call]; !known && len(s.errors) >= maxFailedCalls {
		call.code = otherCode
	}
	if s.errors == nil {
		s.errors = make(map[failedCall]uint64)
	}
	s.errors[call]++
	return f
}

// noteError counts a failed call of the channel. The caller has seen that the
// run had not ended when it failed.
func (r *channelRun) noteError(op string, err error) {
	f := r.sub.noteError(op, err)
	r.status.lastError.Store(f)
	r.status.calls.failed(f, classify(err))
	switch f.Op {
	case "readrecords":
		r.counts.inc(countReadsFailed)
	case "checkpoint", "getcheckpoint":
		r.counts.inc(countCheckpointsFailed)
	}
}

// enter adds a run to what Status tells of the subscription.
func (s *subscription) enter(r *channelRun) {
	r.counts.inc(countOpened)
	r.status.opened = time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.comesBack(r)
	if s.runs == nil {
		s.runs = make(map[*channelRun]struct{})
	}
	s.runs[r] = struct{}{}
}

// leave takes a run out, and keeps its counts.
func (s *subscription) leave(r *channelRun, end runEnd) {
	switch end {
	case endTerminated:
		r.counts.inc(countFinished)
	case endClosed:
		r.counts.inc(countClosed)
		if s.stopping.Err() == nil && !r.status.reopening.Load() {
			r.counts.inc(countRebalances)
		}
	default:
		r.counts.inc(countLost)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.runs, r)
	s.leaves(r, end)
	s.tally.addCounts(&r.counts)
}

// sums adds up everything that was counted. The caller holds mu.
func (s *subscription) sums() tally {
	t := s.tally
	for r := range s.runs {
		t.addCounts(&r.counts)
	}
	for _, c := range s.clients {
		if c.session != nil {
			t.addCounts(&c.session.transport.counts)
		}
	}
	return t
}

// clientSlot is one of the tunnel clients of a subscription, which has one
// session after the other.
type clientSlot struct {
	session   *session // nil between sessions
	sessions  int      // begun so far
	lastError *Failure
	lastBeat  time.Time // when the last heartbeat of sessions before was sent that was answered
}

// sessionBegins notes the session of client n.
func (s *subscription) sessionBegins(n int, ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients == nil {
		s.clients = make([]clientSlot, s.cfg.WorkerSize)
	}
	if s.clients[n].sessions > 0 {
		s.tally[countReconnects]++
	}
	s.clients[n].session = ses
	s.clients[n].sessions++
}

// sessionEnds notes that the session of client n is over, and keeps its counts.
func (s *subscription) sessionEnds(n int, err error) {
	var f *Failure
	if err != nil {
		f = s.noteError("connect", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := &s.clients[n]
	s.tally.addCounts(&slot.session.transport.counts)
	slot.session.transport.mu.Lock()
	if ok := slot.session.transport.beat.ok; !ok.IsZero() {
		slot.lastBeat = ok
	}
	slot.session.transport.mu.Unlock()
	slot.session = nil
	if f != nil {
		slot.lastError = f
	}
}

func (c clientSlot) status(n int) ClientStatus {
	st := ClientStatus{Worker: n, Reconnects: max(0, c.sessions-1), LastError: c.lastError, LastHeartbeat: c.lastBeat}
	if c.session == nil {
		return st
	}
	t := c.session.transport
	t.mu.Lock()
	defer t.mu.Unlock()
	st.ClientID, st.FailingHeartbeats = t.clientID, t.beat.failures
	if !t.beat.ok.IsZero() {
		st.LastHeartbeat = t.beat.ok
	}
	if st.FailingHeartbeats > 0 {
		st.FailingSince = t.beat.failing
	}
	if f := c.session.lastFailure.Load(); f != nil {
		st.LastError = f
	}
	st.Connected = t.clientID != "" && !t.released && !t.lease.over(time.Now())
	return st
}

// endedSubscriptions is what is kept of the subscriptions of a topic that have ended.
type endedSubscriptions struct {
	last   SubscriptionStatus // of the one that ended last
	tally  tally
	errors map[failedCall]uint64
	fatal  error // the last one
	held   int   // messages that drains gave up

	uncommitted int // acked messages that drains could not commit
	commitError error
}

// add takes in a subscription that has ended, whose last status is given.
func (e *endedSubscriptions) add(sub *subscription, last SubscriptionStatus) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	e.last = last
	sums := sub.sums()
	e.tally.add(&sums)
	if e.errors == nil {
		e.errors = make(map[failedCall]uint64)
	}
	for call, n := range sub.errors {
		if _, known := e.errors[call]; !known && len(e.errors) >= maxFailedCalls {
			call.code = otherCode
		}
		e.errors[call] += n
	}
	e.held += sub.held
	e.uncommitted += sub.uncommitted
	if e.commitError == nil {
		e.commitError = sub.commitError
	}
	if sub.err != nil {
		e.fatal = sub.err
	}
}

func (e *endedSubscriptions) status() SubscriptionStatus {
	st := e.last
	st.Totals, st.Errors = e.tally.totals(), errorCounts(e.errors)
	return st
}
