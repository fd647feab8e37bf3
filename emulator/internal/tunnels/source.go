package tunnels

import (
	"errors"
	"time"
)

// ErrNoTable is wrapped by errors of a Source's methods if the table does not
// exist. A *wire.Error with the code OTSObjectNotExist means the same.
var ErrNoTable = errors.New("table does not exist")

// Source is the tunnel service's view of the table storage.
// emulator/internal/store implements it.
//
// All methods are safe for concurrent use and hold no lock after they return.
// An error that is a *wire.Error is sent to the client as it is, any other as
// OTSTunnelServerUnavailable, which SDKs retry.
//
// Tables are identified by their ids, so that a tunnel never reads rows of a
// later table with the same name.
type Source interface {
	// TableID returns the id of the table with this name. The id is unique
	// among all tables, past and future ones with the same name included.
	TableID(name string) (string, error)

	// Stream returns the table's stream. If the stream is off and enable is
	// set, it turns the stream on (7 days).
	Stream(table string, enable bool) (StreamInfo, error)

	// Shards returns every shard of the table's stream that has not been
	// trimmed, parents before children.
	Shards(table string) ([]Shard, error)

	// SeekShard returns the offset of the first log record whose commit time is
	// at or after t; the oldest kept for the zero time; the tail if there is
	// none. truncated reports that records at or after t were already dropped
	// because the log expired.
	SeekShard(table, shard string, t time.Time) (offset int64, truncated bool, err error)

	// ReadShard appends log records to dst, starting at offset, each as field 1
	// (Record) of a ReadRecordsResponse in protobuf wire format (action type,
	// PlainBuffer row with sequence info, origin record if the stream has
	// origin columns), at most maxRows records and about maxBytes bytes (at
	// least one record if there is one). before, if not zero, is the commit
	// time at which reading ends (exclusive).
	ReadShard(dst []byte, table, shard string, offset int64, before time.Time, maxRows, maxBytes int) (ShardPage, error)

	// BaseRanges returns the key ranges (one per partition) into which a full
	// scan of the table is divided.
	BaseRanges(table string) ([]KeyRange, error)

	// ReadBase appends rows with start <= key < end (nil: unbounded), as
	// PUT_ROW records without sequence info, in the format and within the
	// limits of ReadShard. Keys are PlainBuffer-encoded primary keys.
	ReadBase(dst []byte, table string, start, end []byte, maxRows, maxBytes int) (BasePage, error)

	// SaveState and DeleteState persist the tunnel service's own state. They
	// return once a killed process cannot lose it. Several pairs, or keys, are
	// saved, or deleted, atomically.
	SaveState(pairs map[string][]byte) error
	DeleteState(keys ...string) error

	// LoadState calls f for each saved pair whose key has the prefix, in key order.
	LoadState(prefix string, f func(key string, value []byte) error) error

	// Watch registers f, which is called whenever a table's shards have
	// changed, and with gone set after a table was deleted, before the deletion
	// is answered. f may save and delete state.
	Watch(f func(table string, gone bool))
}

// StreamInfo describes a table's stream.
type StreamInfo struct {
	Enabled    bool
	StreamID   string // changes each time the stream is turned on
	Expiration time.Duration
	EnabledAt  time.Time
	Origin     []string // columns whose previous value the log holds
}

// Shard is one partition's log between two splits or merges.
type Shard struct {
	ID      string
	Parents []string // none, one (split) or two (merge); they may have been trimmed already
	Closed  bool     // no record will be appended any more
	Created time.Time
}

// ShardPage is the result of one ReadShard.
type ShardPage struct {
	Data     []byte // dst with the records appended
	Records  int
	Next     int64     // offset at which to continue
	LastTime time.Time // commit time of the last record read
	Known    time.Time // every record before this time is at an offset below Next; at the tail it follows the clock
	More     bool      // whether more records exist already
	End      bool      // the shard is drained at Next, and closed or past before: no record below it will follow
	Trimmed  bool      // offset was older than the oldest record kept; reading began at the oldest
}

// KeyRange is Start <= key < End; nil is unbounded.
type KeyRange struct{ Start, End []byte }

// BasePage is the result of one ReadBase.
type BasePage struct {
	Data    []byte // dst with the records appended
	Records int
	Next    []byte // start of the next page; nil at the end of the range
}
