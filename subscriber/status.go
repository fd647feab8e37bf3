package subscriber

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
)

// Status is a snapshot of a Subscriber. It holds no secrets, but primary keys
// of the records that hold things up. Its parts are taken one after the other
// while everything goes on: numbers of different channels may be some
// microseconds apart. Durations are nanoseconds in JSON.
type Status struct {
	Time     time.Time `json:"time"` // when it was taken
	Instance string    `json:"instance"`
	Closed   bool      `json:"closed"` // Close was called

	// Subscriptions are those at work, then for each topic one entry with Ended
	// set that sums up all that have ended.
	Subscriptions []SubscriptionStatus `json:"subscriptions"`
}

// SubscriptionStatus is the part of a Status about one Subscribe.
type SubscriptionStatus struct {
	Topic      string     `json:"topic"` // table/tunnel
	Table      string     `json:"table"`
	Tunnel     string     `json:"tunnel"`
	TunnelID   string     `json:"tunnel_id"`
	TunnelType TunnelType `json:"tunnel_type"`
	Started    time.Time  `json:"started"`

	Connected bool   `json:"connected"`       // at least one client is
	Draining  bool   `json:"draining"`        // it stops: nothing more is read or delivered
	Ended     bool   `json:"ended"`           // its output is closed
	Finished  bool   `json:"finished"`        // its tunnel was read to its end, as only a BaseData tunnel or one with an end is
	Fatal     string `json:"fatal,omitempty"` // why it ended by itself, or could not begin: its tunnel is gone or expired

	InFlight         int   `json:"in_flight"` // records read and not settled, in all channels
	InFlightBytes    int64 `json:"in_flight_bytes"`
	MaxInFlight      int   `json:"max_in_flight"` // as configured
	MaxInFlightBytes int64 `json:"max_in_flight_bytes"`

	// Lag is that of the channel that is farthest behind. While no client is
	// connected it goes on counting, from where the channels were; without any,
	// from the last answered heartbeat or from Started.
	Lag time.Duration `json:"lag_ns"`
	// Retention is how long the table's stream keeps records; 0 while unknown.
	Retention time.Duration `json:"retention_ns"`

	Clients  []ClientStatus  `json:"clients"`
	Channels []ChannelStatus `json:"channels"` // those that this subscription has, base data first

	// View is the tunnel as the service sees it, with the channels of all consumers:
	// that of the last look (Config.TunnelViewInterval). Nil before the first one.
	View *TunnelView `json:"view,omitempty"`
	// ExpectedClients is Config.ExpectedClients.
	ExpectedClients int `json:"expected_clients"`

	// Failing are the records that failed and are not acked yet, those with the
	// most attempts first, at most MaxFailing of FailingTotal.
	Failing      []FailingRecord `json:"failing"`
	FailingTotal int             `json:"failing_total"`

	// Trouble is what fails without success; empty while all is well.
	Trouble []Trouble `json:"trouble"`

	LastError *Failure     `json:"last_error,omitempty"` // newest failure of any call
	Totals    Totals       `json:"totals"`
	Errors    []ErrorCount `json:"errors"` // failed calls, by operation and code
}

// MaxFailing bounds SubscriptionStatus.Failing.
const MaxFailing = 20

// ClientStatus is one of the WorkerSize tunnel clients of a subscription.
type ClientStatus struct {
	Worker    int    `json:"worker"`              // from 0
	ClientID  string `json:"client_id,omitempty"` // given by the service; a new one with each session
	Connected bool   `json:"connected"`           // the service knows the client, as far as the last heartbeat tells

	LastHeartbeat     time.Time `json:"last_heartbeat,omitzero"` // when the last one that was answered was sent, by an earlier session if need be
	FailingHeartbeats int       `json:"failing_heartbeats"`      // since then
	FailingSince      time.Time `json:"failing_since,omitzero"`  // when the first of these was sent

	Reconnects int      `json:"reconnects"` // sessions after the first
	LastError  *Failure `json:"last_error,omitempty"`
}

// ChannelState is where a channel stands between its opening and its end.
type ChannelState string

// The states of a channel.
const (
	ChannelOpening  ChannelState = "opening"  // its checkpoint is being asked for
	ChannelOpen     ChannelState = "open"     // it is read
	ChannelDraining ChannelState = "draining" // it will go to another client, or the subscription stops
	ChannelFailing  ChannelState = "failing"  // the service refuses its calls; it is given back, or opened again, after a pause
	ChannelEnding   ChannelState = "ending"   // it was lost or is at its end; its messages' contexts have ended
)

// ChannelStatus is one channel of a subscription.
type ChannelStatus struct {
	ID       string       `json:"id"`
	ClientID string       `json:"client_id"` // its owner
	State    ChannelState `json:"state"`
	Base     bool         `json:"base"` // base data: rows, not changes
	Opened   time.Time    `json:"opened"`

	// Position is the time up to which all changes are acked, as far as is
	// known; zero for base data, and until the first read. A channel that comes
	// back after its session was lost begins with the position it had.
	Position time.Time `json:"position,omitzero"`
	// Lag is how long ago Position is: for a channel that has caught up, the
	// time since the last read that said so. Until the first read it is the time
	// since Opened; for base data it is 0. It compares the service's clock with
	// this machine's, and is never negative.
	Lag time.Duration `json:"lag_ns"`

	// FailingSince is since when no read of the channel has succeeded although some
	// were tried; one that is not answered for some seconds counts. Zero: the last one
	// succeeded. CommitFailingSince is the same of checkpoints.
	FailingSince       time.Time `json:"failing_since,omitzero"`
	CommitFailingSince time.Time `json:"commit_failing_since,omitzero"`

	InFlight      int   `json:"in_flight"`
	InFlightBytes int64 `json:"in_flight_bytes"`
	WithHandlers  int   `json:"with_handlers"` // of those in flight, delivered and not settled
	Retrying      int   `json:"retrying"`      // of those in flight, nacked and waiting for their pause to end

	// Oldest is the record that holds the checkpoint back; nil when nothing is in flight.
	Oldest *OldestRecord `json:"oldest,omitempty"`

	WindowFull   bool          `json:"window_full"`      // reading waits for records to be settled
	PollInterval time.Duration `json:"poll_interval_ns"` // pause after the last read; 0 while there is more

	// CheckpointAge is how long ago the stored checkpoint was last known to be
	// that of all acked records. It stays below CheckpointInterval while the
	// service takes checkpoints.
	CheckpointAge time.Duration `json:"checkpoint_age_ns"`

	Read  uint64 `json:"read"` // records, since Opened
	Acked uint64 `json:"acked"`

	LastError *Failure `json:"last_error,omitempty"`
}

// OldestRecord is the oldest record of a channel that is not acked.
type OldestRecord struct {
	Key      string        `json:"key"`      // primary key as a JSON array
	Attempts int           `json:"attempts"` // deliveries so far
	Failures int           `json:"failures"` // of these, nacked
	Age      time.Duration `json:"age_ns"`   // since it was read
}

// FailingRecord is a record that failed and was not acked since.
type FailingRecord struct {
	Channel  string    `json:"channel"`
	Key      string    `json:"key"`  // primary key as a JSON array
	Type     string    `json:"type"` // "put", "update" or "delete"
	Sequence string    `json:"sequence"`
	Attempts int       `json:"attempts"` // deliveries up to the last failure
	First    time.Time `json:"first"`    // failure
	Last     time.Time `json:"last"`     // failure

	// Error is that of the last failure. A Nack tells none: then it is "message
	// nacked", unless a middleware gave one to the message's ack.Delivery, as
	// batching does.
	Error string `json:"error"`
}

// Failure is a call that failed.
type Failure struct {
	Time  time.Time `json:"time"`
	Op    string    `json:"op"`   // as in ErrorCount
	Code  string    `json:"code"` // as in ErrorCount
	Error string    `json:"error"`
}

// ErrorCount counts failed calls. What was given up by ourselves does not count.
type ErrorCount struct {
	Op    string `json:"op"`   // "connect", "heartbeat", "getcheckpoint", "checkpoint", "readrecords", "describe"
	Code  string `json:"code"` // the service's, or "timeout", "network", "credentials", "malformed"; "other" when there were too many
	Count uint64 `json:"count"`
}

// Totals count from the start of a subscription and never go down.
type Totals struct {
	RecordsRead uint64 `json:"records_read"`
	BytesRead   uint64 `json:"bytes_read"` // of the service's answers

	ReadsFull    uint64 `json:"reads_full"`    // more was there, and read at once
	ReadsPartial uint64 `json:"reads_partial"` // records, and no more behind them
	ReadsEmpty   uint64 `json:"reads_empty"`
	ReadsFailed  uint64 `json:"reads_failed"`

	Delivered   uint64 `json:"delivered"`   // messages taken from the output
	Redelivered uint64 `json:"redelivered"` // of these, not the first attempt of their record
	Acked       uint64 `json:"acked"`
	Skipped     uint64 `json:"skipped"`     // by the Unmarshaler (ErrSkip): done with, and not delivered
	Nacked      uint64 `json:"nacked"`      // failed, Refused included
	Refused     uint64 `json:"refused"`     // by the Unmarshaler: failed without being delivered
	CalledBack  uint64 `json:"called_back"` // taken back because an earlier one of their key failed
	Abandoned   uint64 `json:"abandoned"`   // unsettled when their channel was lost, or its drain's time was up

	Checkpoints       uint64 `json:"checkpoints"` // stored
	CheckpointsFailed uint64 `json:"checkpoints_failed"`

	ChannelsOpened   uint64 `json:"channels_opened"`
	ChannelsFinished uint64 `json:"channels_finished"` // read to their ends
	ChannelsClosed   uint64 `json:"channels_closed"`   // given back
	ChannelsLost     uint64 `json:"channels_lost"`
	Rebalances       uint64 `json:"rebalances"` // channels given back because the service asked for them
	Drains           uint64 `json:"drains"`     // of channels, begun

	Connects         uint64 `json:"connects"`   // sessions that the service admitted
	Reconnects       uint64 `json:"reconnects"` // sessions begun because the one before had ended
	Heartbeats       uint64 `json:"heartbeats"`
	HeartbeatsFailed uint64 `json:"heartbeats_failed"`
}

// Status returns a snapshot of the subscriber. It takes short locks only, calls
// nobody, and may be called at any time, also after Close.
func (s *Subscriber) Status() Status {
	s.mu.Lock()
	st := Status{Instance: s.cfg.Instance, Closed: s.closed}
	subs := slices.Clone(s.subscriptions)
	ended := make([]SubscriptionStatus, 0, len(s.ended))
	for _, topic := range slices.Sorted(maps.Keys(s.ended)) {
		if _, starts := s.starts[topic]; !starts {
			ended = append(ended, s.ended[topic].status())
		}
	}
	for _, topic := range slices.Sorted(maps.Keys(s.starts)) {
		if st, ok := s.startStatus(topic); ok {
			ended = append(ended, st)
		}
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
		Retention: time.Duration(s.retention.Load()), ExpectedClients: s.cfg.ExpectedClients,
		Channels: []ChannelStatus{}, Failing: []FailingRecord{},
	}
	s.mu.Lock()
	if s.err != nil {
		st.Fatal = s.err.Error()
	}
	st.Finished = s.finished
	st.View = s.view
	sums := s.sums()
	st.Totals, st.Errors, st.LastError = sums.totals(), errorCounts(s.errors), s.lastError
	slots := slices.Clone(s.clients)
	s.mu.Unlock()
	runs, left := s.runsAndLeft()

	st.Clients = make([]ClientStatus, len(slots))
	for n, slot := range slots {
		st.Clients[n] = slot.status(n)
		st.Connected = st.Connected || st.Clients[n].Connected
	}
	s.expected(left, now, st.Connected)
	for _, r := range runs {
		c := r.channelStatus(now)
		st.Channels = append(st.Channels, c)
		st.InFlight += c.InFlight
		st.InFlightBytes += c.InFlightBytes
		st.Lag = max(st.Lag, c.Lag)
		failing, n := r.failing()
		st.Failing = append(st.Failing, failing...)
		st.FailingTotal += n
	}
	st.Lag = max(st.Lag, s.lagOfLeft(now, &st, left))
	st.Trouble = s.troubles(now, &st, runs, left)
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

func errorCounts(errs map[failedCall]uint64) []ErrorCount {
	counts := make([]ErrorCount, 0, len(errs))
	for f, n := range errs {
		counts = append(counts, ErrorCount{Op: f.op, Code: f.code, Count: n})
	}
	slices.SortFunc(counts, func(a, b ErrorCount) int {
		return cmp.Or(strings.Compare(a.Op, b.Op), strings.Compare(a.Code, b.Code))
	})
	return counts
}

// runStatus is what Status tells of a channelRun besides its counts. Its
// goroutines write it as they go; times are in nanoseconds since 1970, 0: never.
type runStatus struct {
	opened    time.Time
	before    leftChannel  // what the run before has left
	begun     atomic.Bool  // the checkpoint is known
	base      atomic.Bool  // valid once begun
	newest    atomic.Int64 // change time of the newest record read
	caughtUp  atomic.Int64 // when the last read was sent that said that there was no more
	poll      atomic.Int64 // the pause after the last read
	committed atomic.Int64 // when the stored checkpoint was last known to be up to date
	blocked   atomic.Bool  // the reader waits for the window
	reopening atomic.Bool  // it could not be read
	lastError atomic.Pointer[Failure]
	calls     callState
	fenced    atomic.Int64 // position at which the channel was given up; afterwards nothing is in flight
}

// begins notes that the checkpoint is known.
func (s *runStatus) begins(base bool) {
	s.base.Store(base)
	s.committed.Store(time.Now().UnixNano())
	s.begun.Store(true)
}

// readUpTo notes how far a page takes the channel, once the tracker has it.
func (s *runStatus) readUpTo(p *page, pause time.Duration, more bool) {
	s.poll.Store(int64(pause))
	s.calls.readSucceeded()
	if p.newest != 0 {
		s.newest.Store(time.UnixMicro(p.newest).UnixNano())
	}
	if !more {
		s.caughtUp.Store(p.asked.UnixNano())
	}
}

// position returns the time up to which all changes are acked, in nanoseconds since
// 1970 and as far as is known, and what the tracker holds. It is 0 for base data and
// while nothing is known.
func (r *channelRun) position() (position int64, held ledger.Stats) {
	s := &r.status
	// What was read up to here is read before the tracker is asked: then a record
	// that the tracker does not have any more is settled, not on its way to it.
	position = max(s.newest.Load(), s.caughtUp.Load(), s.before.position)
	held = r.tracker.Stats()
	switch p, ok := held.Oldest.Page.(*page); {
	case s.base.Load():
		return 0, held
	case s.fenced.Load() != 0:
		position = s.fenced.Load()
	case ok:
		position = time.UnixMicro(p.record(held.Oldest.Index).Sequence.Timestamp).UnixNano()
	}
	return position, held
}

func (r *channelRun) channelStatus(now time.Time) ChannelStatus {
	s := &r.status
	position, held := r.position()
	c := ChannelStatus{
		ID: r.conn.id, ClientID: r.conn.clientID, State: r.state(), Base: s.base.Load(), Opened: s.opened,
		InFlight: held.InFlight, InFlightBytes: held.Bytes, WithHandlers: held.Live, Retrying: held.Retrying,
		WindowFull: s.blocked.Load(), PollInterval: time.Duration(s.poll.Load()),
		Acked: r.counts[countAcked].Load(), Read: r.counts[countRecords].Load(),
		LastError: s.lastError.Load(),
	}
	if at := s.committed.Load(); at != 0 {
		c.CheckpointAge = max(0, now.Sub(time.Unix(0, at)))
	}
	if p, ok := held.Oldest.Page.(*page); ok {
		rec := p.record(held.Oldest.Index)
		c.Oldest = &OldestRecord{
			Key: rec.KeyText(), Attempts: held.Oldest.Attempts, Failures: held.Oldest.Failures,
			Age: max(0, now.Sub(p.came)),
		}
	}
	c.FailingSince, c.CommitFailingSince = s.calls.failing(now)
	switch {
	case c.Base:
	case position == 0:
		c.Lag = now.Sub(s.since())
	default:
		c.Position = time.Unix(0, position)
		c.Lag = max(0, now.Sub(c.Position))
	}
	return c
}

// state tells where the run stands.
func (r *channelRun) state() ChannelState {
	select {
	case <-r.ctx.Done():
		return ChannelEnding
	default:
	}
	if r.status.reopening.Load() {
		return ChannelFailing
	}
	select {
	case <-r.draining:
		return ChannelDraining
	default:
	}
	if !r.status.begun.Load() {
		return ChannelOpening
	}
	return ChannelOpen
}

// failure is what is known of a record that failed and is not acked.
type failure struct {
	pauses      backoff.BackOff
	longest     time.Duration  // pause so far
	attempt     ledger.Attempt // the last one that failed
	first, last time.Time
	err         error
}

// noteFailure notes a nack that counted. The record may have been acked meanwhile.
func (r *channelRun) noteFailure(a ledger.Attempt, cause error) {
	r.counts.inc(countNacked)
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.failures[a.ID()]
	if f == nil || a.Number() <= f.attempt.Number() {
		return
	}
	f.last = time.Now()
	if f.first.IsZero() {
		f.first = f.last
	}
	f.attempt, f.err = a, cause
}

// failing returns the records of the run that failed and are not acked, those
// with the most attempts first and at most MaxFailing, and how many there are.
func (r *channelRun) failing() (worst []FailingRecord, total int) {
	r.mu.Lock()
	failures := make([]failure, 0, len(r.failures))
	for _, f := range r.failures {
		if f.err != nil { // nil: it is being noted
			failures = append(failures, *f)
		}
	}
	r.mu.Unlock()
	slices.SortFunc(failures, func(a, b failure) int {
		return cmp.Or(cmp.Compare(b.attempt.Number(), a.attempt.Number()), a.first.Compare(b.first))
	})
	for _, f := range failures[:min(len(failures), MaxFailing)] {
		rec := f.attempt.Page().(*page).record(f.attempt.Index())
		worst = append(worst, FailingRecord{
			Channel: r.conn.id, Key: rec.KeyText(), Type: rec.Type.String(), Sequence: rec.Sequence.String(),
			Attempts: f.attempt.Number(), First: f.first, Last: f.last, Error: f.err.Error(),
		})
	}
	return worst, len(failures)
}
