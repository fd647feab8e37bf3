package tunnels

import (
	"errors"
	"time"
)

// ErrNoTable is what the methods of a Source wrap when the table does not exist.
// A *wire.Error with the code OTSObjectNotExist means the same.
var ErrNoTable = errors.New("table does not exist")

// Source is the table storage as the tunnel service sees it.
// emulator/internal/store implements it.
//
// All methods are safe for concurrent use and hold no lock while the caller
// works on the result. An error that is a *wire.Error is sent to the client as
// it is, any other as OTSTunnelServerUnavailable, which SDKs retry.
//
// Tables are named by their ids, so that a tunnel never meets the rows of a
// later table that has its table's name.
type Source interface {
	// TableID returns the id of the table that has this name. No other table has
	// or gets that id, not even one of the same name.
	TableID(name string) (string, error)

	// Stream returns the table's stream, turning it on (7 days) when it is off
	// and enable is set.
	Stream(table string, enable bool) (StreamInfo, error)

	// Shards returns every shard of the table's stream that was not trimmed
	// away, parents before children.
	Shards(table string) ([]Shard, error)

	// SeekShard returns the offset of the first log record whose commit time is
	// at or after t; the oldest kept for the zero time; the tail when there is
	// none. truncated reports that records from t on were already dropped
	// because the log expired.
	SeekShard(table, shard string, t time.Time) (offset int64, truncated bool, err error)

	// ReadShard appends log records from offset on to dst, each as field 1
	// (Record) of a ReadRecordsResponse in protobuf wire form (action type,
	// PlainBuffer row with sequence info, origin record when the stream has
	// origin columns), at most maxRows records and about maxBytes bytes (at
	// least one record when there is one). before, when not zero, is the commit
	// time at which reading ends (exclusive).
	ReadShard(dst []byte, table, shard string, offset int64, before time.Time, maxRows, maxBytes int) (ShardPage, error)

	// BaseRanges returns the key ranges (one a partition) that a full scan of
	// the table is divided into.
	BaseRanges(table string) ([]KeyRange, error)

	// ReadBase appends rows with start <= key < end (nil: unbounded), as PUT_ROW
	// records without sequence info, in the form and within the limits of
	// ReadShard. Keys are PlainBuffer-encoded primary keys.
	ReadBase(dst []byte, table string, start, end []byte, maxRows, maxBytes int) (BasePage, error)

	// SaveState and DeleteState persist the tunnel service's own state; they
	// return once a killed process cannot lose it. Several pairs, or keys, are
	// saved, or deleted, atomically.
	SaveState(pairs map[string][]byte) error
	DeleteState(keys ...string) error

	// LoadState calls f for each saved pair whose key has the prefix, in key order.
	LoadState(prefix string, f func(key string, value []byte) error) error

	// Watch calls f whenever a table's shards have changed, and with gone set
	// once a table was deleted, before the deletion is answered. f may save
	// and delete state.
	Watch(f func(table string, gone bool))
}

// StreamInfo describes a table's stream.
type StreamInfo struct {
	Enabled    bool
	StreamID   string // another one each time the stream is turned on
	Expiration time.Duration
	EnabledAt  time.Time
	Origin     []string // columns whose value before the change the log holds
}

// Shard is one partition's log between two splits or merges.
type Shard struct {
	ID      string
	Parents []string // none, one (split) or two (merge); they may be trimmed away already
	Closed  bool     // no record will be appended any more
	Created time.Time
}

// ShardPage is what one ReadShard found.
type ShardPage struct {
	Data     []byte // dst with the records appended
	Records  int
	Next     int64     // offset to go on from
	LastTime time.Time // commit time of the last record read
	Known    time.Time // every record before it is at an offset below Next; at the tail it follows the clock
	More     bool      // more records are there already
	End      bool      // the shard is drained at Next, and closed or past before: no record below it will come
	Trimmed  bool      // offset was older than the oldest record kept; reading began at the oldest
}

// KeyRange is Start <= key < End; nil is unbounded.
type KeyRange struct{ Start, End []byte }

// BasePage is what one ReadBase found.
type BasePage struct {
	Data    []byte // dst with the records appended
	Records int
	Next    []byte // start of the next page; nil at the end of the range
}
