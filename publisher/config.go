package publisher

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

// Defaults of Config. These numbers are written only here.
const (
	DefaultMaxBatchRows    = 200
	DefaultMaxBatchBytes   = 3 << 20
	DefaultCallTimeout     = 20 * time.Second
	DefaultCloseTimeout    = 10 * time.Second
	DefaultStreamRetention = 7 * 24 * time.Hour
)

// Limits of the service.
const (
	maxBatchRows   = 200     // of a BatchWriteRow
	maxBatchBytes  = 4 << 20 // of a BatchWriteRow
	maxKeyBytes    = 1 << 10 // of a primary key column
	maxColumnBytes = 2 << 20 // of a string or binary column
	maxRetention   = 7 * 24 * time.Hour
	minTimeToLive  = 24 * time.Hour
	maxTimeToLive  = (1<<31 - 1) * time.Second
)

// MetadataOrderingKey is the metadata key whose value is a message's ordering
// key, unless Config.OrderingKey says otherwise.
const MetadataOrderingKey = "ots.ordering_key"

// SetOrderingKey gives msg an ordering key, at most 1 KiB of UTF-8.
func SetOrderingKey(msg *message.Message, key string) { msg.Metadata.Set(MetadataOrderingKey, key) }

// Config configures a Publisher. Endpoint, Instance and credentials are
// required; every other zero field means its default.
type Config struct {
	// Endpoint is the URL of the instance; plain http only for loopback
	// addresses, unless AllowInsecure is set.
	Endpoint string

	// Instance is the name of the Tablestore instance.
	Instance string

	// AccessKeyID and AccessKeySecret sign the requests; SecurityToken belongs to
	// the temporary keys of STS. They are ignored if Credentials is set.
	AccessKeyID, AccessKeySecret, SecurityToken string

	// Credentials provides credentials that change over time (STS, RAM role). It
	// is called again shortly before they expire, by one goroutine at a time.
	Credentials ots.CredentialsProvider

	// SignatureVersion is how requests are signed. SignatureV4 needs Region.
	// Default SignatureV2.
	SignatureVersion ots.SignatureVersion

	// Region is the region of the instance, such as "cn-hangzhou", for
	// SignatureV4; empty otherwise.
	Region string

	// AllowInsecure permits http:// endpoints outside loopback.
	AllowInsecure bool

	// Transport carries the HTTP requests. Default: the Publisher's own pooled
	// transport.
	Transport http.RoundTripper

	// Columns names the columns of a message's row. It must be the same in the
	// Unmarshaler.
	Columns Columns

	// Table returns the name of a topic's table. Default: the topic itself.
	Table func(topic string) string

	// OrderingKey returns the ordering key of a message; "" means none. It is
	// called once for each message, by the goroutine that calls Publish. Default:
	// the metadata MetadataOrderingKey.
	OrderingKey func(topic string, msg *message.Message) string

	// MaxBatchRows is the maximum number of rows in a request, up to the service's
	// 200. Default 200.
	MaxBatchRows int

	// MaxBatchBytes limits the size of the rows in a request, up to the service's
	// 4 MiB. A larger row is sent alone. Default 3 MiB.
	MaxBatchBytes int

	// RetryBackoff returns the backoff for rows whose failure was transient. It is
	// called for each Publish, and again after a failure when rows were stored since
	// the last one. At backoff.Stop Publish gives up. Default: 50 ms doubling up to
	// 5 s, for 30 s without any row stored.
	RetryBackoff func() backoff.BackOff

	// CallTimeout limits one request. Default 20 s.
	CallTimeout time.Duration

	// CloseTimeout is how long Close waits for running Publish calls. Default 10 s.
	CloseTimeout time.Duration

	// CreateTables makes Publish create missing tables, as NewTable says. Without
	// it, see CreateTable.
	CreateTables bool

	// NewTable says how tables are created.
	NewTable TableSpec
}

// TableSpec says how CreateTable creates a table, besides the key columns.
type TableSpec struct {
	// TimeToLive is how long rows are kept, at least a day. Tunnels deliver from
	// the stream, so rows are needed only for new tunnels that begin with base
	// data. Default: no limit.
	TimeToLive time.Duration

	// StreamRetention is how long the stream keeps changes for tunnels that lag
	// behind, whole hours up to 7 days. Default 7 days.
	StreamRetention time.Duration
}

// withDefaults returns a copy with every zero field set to its default.
func (c Config) withDefaults() Config {
	c.Columns = c.Columns.withDefaults()
	c.MaxBatchRows = cmp.Or(c.MaxBatchRows, DefaultMaxBatchRows)
	c.MaxBatchBytes = cmp.Or(c.MaxBatchBytes, DefaultMaxBatchBytes)
	c.CallTimeout = cmp.Or(c.CallTimeout, DefaultCallTimeout)
	c.CloseTimeout = cmp.Or(c.CloseTimeout, DefaultCloseTimeout)
	c.NewTable.StreamRetention = cmp.Or(c.NewTable.StreamRetention, DefaultStreamRetention)
	if c.Table == nil {
		c.Table = func(topic string) string { return topic }
	}
	if c.OrderingKey == nil {
		c.OrderingKey = func(_ string, msg *message.Message) string { return msg.Metadata.Get(MetadataOrderingKey) }
	}
	if c.RetryBackoff == nil {
		c.RetryBackoff = func() backoff.BackOff {
			return backoff.NewExponentialBackOff(
				backoff.WithInitialInterval(50*time.Millisecond),
				backoff.WithMaxInterval(5*time.Second),
				backoff.WithMultiplier(2),
				backoff.WithRandomizationFactor(0.2),
				backoff.WithMaxElapsedTime(30*time.Second),
			)
		}
	}
	return c
}

// Validate reports all faults of the configuration in one error; each line names the
// field and its valid values. It does not change c.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	faults = append(faults, service.Connection{
		Endpoint: c.Endpoint, Instance: c.Instance, AllowInsecure: c.AllowInsecure,
		AccessKeyID: c.AccessKeyID, AccessKeySecret: c.AccessKeySecret, Credentials: c.Credentials,
		SignatureVersion: c.SignatureVersion, Region: c.Region,
	}.Faults()...)
	faults = append(faults, c.Columns.withDefaults().faults()...)
	if c.MaxBatchRows < 0 || c.MaxBatchRows > maxBatchRows {
		fault("Config.MaxBatchRows is %d: a request takes 1 to %d rows", c.MaxBatchRows, maxBatchRows)
	}
	if c.MaxBatchBytes < 0 || c.MaxBatchBytes > maxBatchBytes {
		fault("Config.MaxBatchBytes is %d: a request takes 1 to %d bytes", c.MaxBatchBytes, maxBatchBytes)
	}
	if c.CallTimeout < 0 {
		fault("Config.CallTimeout is %v: it must not be negative (zero means the default)", c.CallTimeout)
	}
	if c.CloseTimeout < 0 {
		fault("Config.CloseTimeout is %v: it must not be negative (zero means the default)", c.CloseTimeout)
	}
	if ttl := c.NewTable.TimeToLive; ttl != 0 && (ttl < minTimeToLive || ttl > maxTimeToLive || ttl%time.Second != 0) {
		fault("Config.NewTable.TimeToLive is %v: it must be whole seconds, at least %v (zero keeps rows without limit)", ttl, minTimeToLive)
	}
	if r := c.NewTable.StreamRetention; r < 0 || r > maxRetention || r%time.Hour != 0 {
		fault("Config.NewTable.StreamRetention is %v: it must be whole hours, at most %v", r, maxRetention)
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("publisher configuration: %w", errors.Join(faults...))
}

// Columns names the columns of a message's row. An empty name means its default.
type Columns struct {
	Key      string // first primary key column, the ordering key or the UUID: STRING ["key"]
	Sequence string // second primary key column, numbered by the service: INTEGER, auto-increment ["seq"]
	UUID     string // STRING; absent for a message without one ["uuid"]
	Payload  string // BINARY ["payload"]
	Metadata string // STRING, a JSON object of strings; absent when there is none ["metadata"]
}

func (c Columns) withDefaults() Columns {
	return Columns{
		Key:      cmp.Or(c.Key, "key"),
		Sequence: cmp.Or(c.Sequence, "seq"),
		UUID:     cmp.Or(c.UUID, "uuid"),
		Payload:  cmp.Or(c.Payload, "payload"),
		Metadata: cmp.Or(c.Metadata, "metadata"),
	}
}

func (c Columns) faults() (faults []error) {
	var seen []string
	for _, column := range []struct{ field, name string }{
		{"Key", c.Key}, {"Sequence", c.Sequence}, {"UUID", c.UUID}, {"Payload", c.Payload}, {"Metadata", c.Metadata},
	} {
		if !service.IsTableName(column.name) {
			faults = append(faults, fmt.Errorf("Config.Columns.%s is %q: a column's name has %s", column.field, column.name, service.TableNameRule))
		}
		if slices.Contains(seen, column.name) {
			faults = append(faults, fmt.Errorf("Config.Columns.%s is %q, as is another column", column.field, column.name))
		}
		seen = append(seen, column.name)
	}
	return faults
}
