package subscriber

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/ack"
)

// Defaults of Config: the only place where these numbers stand.
const (
	DefaultWorkerSize         = 1
	DefaultHeartbeatInterval  = 30 * time.Second
	DefaultHeartbeatTimeout   = 300 * time.Second
	DefaultMaxInFlight        = 4096
	DefaultMaxInFlightBytes   = 64 << 20
	DefaultCheckpointInterval = 5 * time.Second
	DefaultMaxPollInterval    = time.Second
	DefaultCloseTimeout       = 10 * time.Second
	DefaultStuckAfter         = 5 * time.Minute
)

// Ordering is the promise about the order in which records are delivered.
type Ordering uint8

const (
	// OrderByKey delivers the records of one primary key in order, the next
	// one only after the one before is acked (or waits in an ordered batch);
	// different keys run side by side.
	OrderByKey Ordering = iota
	// OrderByChannel delivers the records of a whole channel in order, one at a
	// time unless they wait in ordered batches.
	OrderByChannel
	// Unordered delivers as fast as handlers take messages, with no order.
	Unordered
)

// String returns "key", "channel" or "none".
func (o Ordering) String() string {
	switch o {
	case OrderByKey:
		return "key"
	case OrderByChannel:
		return "channel"
	case Unordered:
		return "none"
	}
	return fmt.Sprintf("Ordering(%d)", uint8(o))
}

func (o Ordering) tracker() ack.Ordering {
	switch o {
	case OrderByChannel:
		return ack.ByChannel
	case Unordered:
		return ack.Unordered
	}
	return ack.ByKey
}

// Config configures a Subscriber. Endpoint, Instance and credentials are
// required; every other zero field means its default.
type Config struct {
	// Endpoint is the URL of the instance, such as
	// "https://my-instance.cn-hangzhou.ots.aliyuncs.com". Plain http is only
	// taken for loopback addresses, unless AllowInsecure is set: requests are
	// signed, but what they carry is readable on the way.
	Endpoint string

	// Instance is the name of the Tablestore instance.
	Instance string

	// AccessKeyID and AccessKeySecret sign the requests; SecurityToken goes
	// with the temporary ones of STS. Ignored when Credentials is set.
	AccessKeyID, AccessKeySecret, SecurityToken string

	// Credentials gives credentials that change over time (STS, RAM role). It
	// is asked again shortly before they expire.
	Credentials CredentialsProvider

	// AllowInsecure permits http:// endpoints outside loopback.
	AllowInsecure bool

	// Transport carries the HTTP requests. Default: a pooled transport of the
	// Subscriber's own, with a connection for each channel and real timeouts.
	Transport http.RoundTripper

	// WorkerSize is how many tunnel clients each Subscribe connects. The
	// service spreads the channels evenly over all clients of a tunnel. One is
	// enough unless fairness between processes asks for more. Default 1.
	WorkerSize int

	// HeartbeatInterval is the time between two heartbeats that carry no
	// news; news travel at once. Default 30 s.
	HeartbeatInterval time.Duration

	// HeartbeatTimeout is how long after the last heartbeat the service gives
	// the client's channels away. It travels in whole seconds and must exceed
	// HeartbeatInterval by more than 200 ms. Shorter means that the channels of a dead process come
	// back sooner. Default 300 s.
	HeartbeatTimeout time.Duration

	// Ordering is what is promised about the order of delivery. Default OrderByKey.
	Ordering Ordering

	// MaxInFlight bounds the records of a Subscribe that are read and not yet
	// settled; it may be exceeded by one page a channel. Every channel keeps a
	// fair share. Default 4096.
	MaxInFlight int

	// MaxInFlightBytes bounds the pages that these records belong to, in
	// bytes of the service's answers. Default 64 MiB.
	MaxInFlightBytes int64

	// Unmarshaler makes messages of records. Default JSON{}.
	Unmarshaler Unmarshaler

	// CheckpointInterval is the longest time between two commits of a channel
	// while there is something to commit. Default 5 s.
	CheckpointInterval time.Duration

	// MaxPollInterval is the longest pause between two reads of an idle
	// channel. Full pages are read without any pause. Default 1 s.
	MaxPollInterval time.Duration

	// CloseTimeout bounds how long a drain waits for handlers: at Close, when
	// Subscribe's context is cancelled, and when the service moves a channel
	// to another client. Default 10 s.
	CloseTimeout time.Duration

	// NackBackoff makes the pauses before a nacked message comes again, a new
	// one for each message that fails. Default: 100 ms doubling up to 30 s.
	// backoff.Stop is taken as "the longest pause so far".
	NackBackoff func() backoff.BackOff

	// ReadBackoff makes the pauses after failed reads and checkpoints. Default: 50 ms doubling up to 5 s.
	ReadBackoff func() backoff.BackOff

	// ReconnectBackoff makes the pauses between two sessions of a tunnel
	// client. Default: 200 ms doubling up to 10 s.
	ReconnectBackoff func() backoff.BackOff

	// StuckAfter is how long a message may be with its handler, or wait to be
	// taken from the output, until an alarm is raised. Default 5 minutes.
	StuckAfter time.Duration

	// OnPhase, when set, is told of turns in the life of a subscription: base
	// data done, channels opened and finished. It is called by the channel's own
	// goroutine, which goes on when it returns; several channels may call at once.
	OnPhase func(Phase)

	// OnAlarm, when set, is told of what a person should look at: handlers that
	// are stuck, records that soon get older than the log. Each alarm is also
	// logged as an error. Called like OnPhase.
	OnAlarm func(Alarm)

	// OnAck, when set, is told of each ack that counts, by the goroutine that
	// saw it. Several call at once, and records wait: it must be quick and must not block.
	// It is made for histograms; see package metrics.
	OnAck func(Acked)

	// Tunnel is what SubscribeInitialize creates when the tunnel is missing.
	Tunnel TunnelSpec
}

// TunnelType is what a tunnel delivers.
type TunnelType string

// The tunnel types of the service.
const (
	BaseAndStream TunnelType = "BaseAndStream" // all rows, then all changes since the tunnel was created
	Stream        TunnelType = "Stream"        // changes only
	BaseData      TunnelType = "BaseData"      // all rows once; the channels end
)

// TunnelSpec says what tunnel SubscribeInitialize creates.
type TunnelSpec struct {
	// Type is the tunnel's type. Default BaseAndStream.
	Type TunnelType

	// Start is from when on changes are delivered: not before what the
	// stream still keeps. Zero: from the tunnel's creation on.
	Start time.Time

	// Earliest starts at the oldest change that the stream keeps. Not together with Start.
	Earliest bool

	// End, when set, ends the stream channels at this time (a backfill). It
	// must be after Start.
	End time.Time
}

// withDefaults returns a copy with every zero field set to its default.
func (c Config) withDefaults() Config {
	c.WorkerSize = cmp.Or(c.WorkerSize, DefaultWorkerSize)
	c.HeartbeatInterval = cmp.Or(c.HeartbeatInterval, DefaultHeartbeatInterval)
	c.HeartbeatTimeout = cmp.Or(c.HeartbeatTimeout, DefaultHeartbeatTimeout)
	c.MaxInFlight = cmp.Or(c.MaxInFlight, DefaultMaxInFlight)
	c.MaxInFlightBytes = cmp.Or(c.MaxInFlightBytes, DefaultMaxInFlightBytes)
	c.CheckpointInterval = cmp.Or(c.CheckpointInterval, DefaultCheckpointInterval)
	c.MaxPollInterval = cmp.Or(c.MaxPollInterval, DefaultMaxPollInterval)
	c.CloseTimeout = cmp.Or(c.CloseTimeout, DefaultCloseTimeout)
	c.StuckAfter = cmp.Or(c.StuckAfter, DefaultStuckAfter)
	c.Tunnel.Type = cmp.Or(c.Tunnel.Type, BaseAndStream)
	if c.Unmarshaler == nil {
		c.Unmarshaler = JSON{}
	}
	if c.NackBackoff == nil {
		c.NackBackoff = exponential(100*time.Millisecond, 30*time.Second)
	}
	if c.ReadBackoff == nil {
		c.ReadBackoff = exponential(50*time.Millisecond, 5*time.Second)
	}
	if c.ReconnectBackoff == nil {
		c.ReconnectBackoff = exponential(200*time.Millisecond, 10*time.Second)
	}
	if c.Credentials == nil {
		c.Credentials = staticCredentials{AccessKeyID: c.AccessKeyID, AccessKeySecret: c.AccessKeySecret, SecurityToken: c.SecurityToken}
	}
	return c
}

// exponential never stops: a subscriber retries for as long as it lives.
func exponential(first, longest time.Duration) func() backoff.BackOff {
	return func() backoff.BackOff {
		return backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(first),
			backoff.WithMaxInterval(longest),
			backoff.WithMultiplier(2),
			backoff.WithRandomizationFactor(0.2),
			backoff.WithMaxElapsedTime(0),
		)
	}
}

// Validate reports every fault of the configuration in one error; each line
// names the field and what it takes. It changes nothing.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if err := c.validateEndpoint(); err != nil {
		faults = append(faults, err)
	}
	if c.Instance == "" {
		fault("Config.Instance is empty: set the name of the Tablestore instance")
	}
	if c.Credentials == nil {
		if c.AccessKeyID == "" {
			fault("Config.AccessKeyID is empty: set it, or Config.Credentials")
		}
		if c.AccessKeySecret == "" {
			fault("Config.AccessKeySecret is empty: set it, or Config.Credentials")
		}
	}
	if c.WorkerSize < 0 {
		fault("Config.WorkerSize is %d: it counts tunnel clients, 1 or more", c.WorkerSize)
	}
	if c.MaxInFlight < 0 {
		fault("Config.MaxInFlight is %d: it counts messages, 1 or more", c.MaxInFlight)
	}
	if c.MaxInFlightBytes < 0 {
		fault("Config.MaxInFlightBytes is %d: it counts bytes, 1 or more", c.MaxInFlightBytes)
	}
	if c.Ordering > Unordered {
		fault("Config.Ordering is %d: take OrderByKey, OrderByChannel or Unordered", c.Ordering)
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"HeartbeatInterval", c.HeartbeatInterval},
		{"HeartbeatTimeout", c.HeartbeatTimeout},
		{"CheckpointInterval", c.CheckpointInterval},
		{"MaxPollInterval", c.MaxPollInterval},
		{"CloseTimeout", c.CloseTimeout},
		{"StuckAfter", c.StuckAfter},
	} {
		if d.value < 0 {
			fault("Config.%s is %v: it must not be negative (zero means the default)", d.field, d.value)
		}
	}
	interval, timeout := cmp.Or(c.HeartbeatInterval, DefaultHeartbeatInterval), cmp.Or(c.HeartbeatTimeout, DefaultHeartbeatTimeout)
	if interval > 0 && timeout > 0 {
		if timeout < time.Second {
			fault("Config.HeartbeatTimeout is %v: the service counts whole seconds, 1s or more", timeout)
		} else if timeout.Truncate(time.Second)-tick <= interval {
			fault("Config.HeartbeatTimeout (%v, in whole seconds) must exceed Config.HeartbeatInterval (%v) by more than %v, or the service gives the channels away between two heartbeats", timeout, interval, tick)
		}
	}
	faults = append(faults, c.Tunnel.validate()...)
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("subscriber configuration: %w", errors.Join(faults...))
}

func (c Config) validateEndpoint() error {
	if c.Endpoint == "" {
		return errors.New(`Config.Endpoint is empty: set the instance's URL, such as "https://my-instance.cn-hangzhou.ots.aliyuncs.com"`)
	}
	// What is quoted is the part that holds no secret: keys are pasted into URLs.
	u, err := url.Parse(c.Endpoint)
	switch {
	case err != nil:
		return errors.New("Config.Endpoint is no URL: it must be http(s):// and a host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" && u.Host != "":
		return fmt.Errorf("Config.Endpoint has more than http(s):// and the host %q: it must have no path, query, fragment or user", u.Host)
	case u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("Config.Endpoint is %q: it must be a URL with http(s):// and a host", c.Endpoint)
	}
	if u.Scheme == "http" && !c.AllowInsecure && !isLoopback(u.Hostname()) {
		return fmt.Errorf("Config.Endpoint is %q: plain http is only taken for loopback addresses; use https, or set Config.AllowInsecure", c.Endpoint)
	}
	return nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (s TunnelSpec) validate() (faults []error) {
	switch s.Type {
	case "", BaseAndStream, Stream, BaseData:
	default:
		faults = append(faults, fmt.Errorf("Config.Tunnel.Type is %q: take BaseAndStream, Stream or BaseData", s.Type))
	}
	if s.Earliest && !s.Start.IsZero() {
		faults = append(faults, errors.New("Config.Tunnel.Earliest and Config.Tunnel.Start exclude each other"))
	}
	if !s.End.IsZero() && !s.End.After(s.Start) {
		faults = append(faults, fmt.Errorf("Config.Tunnel.End (%v) must be after Config.Tunnel.Start (%v)", s.End, s.Start))
	}
	return faults
}
