package subscriber

import "time"

// Status is a snapshot of a Subscriber. It holds no secrets, but primary keys
// of the records that hold things up. Its parts are taken in order
// while everything continues: numbers of different channels may be some
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
	// connected it still grows, from where the channels were; without any,
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
	Op    string `json:"op"`   // "connect", "heartbeat", "getcheckpoint", "checkpoint", "readrecords", "describe", "BatchGetRow"
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

	Recreations uint64 `json:"recreations"` // tunnels that OnGapRecreate continued with

	Lookups      uint64 `json:"lookups"`        // calls of BatchGetRow for Config.Lookup
	RowsLookedUp uint64 `json:"rows_looked_up"` // by these
	RowsGone     uint64 `json:"rows_gone"`      // of these, that were not there any more
	LookupUnits  uint64 `json:"lookup_units"`   // read capacity units of these, as the service counts
}
