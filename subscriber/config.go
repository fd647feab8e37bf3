package subscriber

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

// Defaults of Config: the only place where these numbers stand.
const (
	DefaultWorkerSize          = 1
	DefaultHeartbeatInterval   = 30 * time.Second
	DefaultHeartbeatTimeout    = 300 * time.Second
	DefaultMaxInFlight         = 4096
	DefaultMaxInFlightBytes    = 64 << 20
	DefaultCheckpointInterval  = 5 * time.Second
	DefaultMinPollInterval     = 20 * time.Millisecond
	DefaultMaxPollInterval     = time.Second
	DefaultEmptyReadsPerSecond = 100
	DefaultCloseTimeout        = 10 * time.Second
	DefaultStuckAfter          = 5 * time.Minute
	DefaultTunnelViewInterval  = 15 * time.Second
)

// leastDuration is the shortest duration that a field of Config takes. What is shorter was
// meant to have another unit.
const leastDuration = time.Millisecond

const tooShort = "Config.%s is %v: it must be at least %v; a number alone counts nanoseconds, so give it a unit, such as %d*time.Second"

// NoTunnelView switches Config.TunnelViewInterval off.
const NoTunnelView time.Duration = -1

// Preset names settings that go together. Fields that are set themselves win.
type Preset string

// PresetFleet is for tunnels that several processes consume, as replicas in
// Kubernetes do: channels of a process that was killed come back within 20 s
// instead of 5 minutes, and a rolling update moves them within seconds. It sets
// HeartbeatInterval to 5 s and HeartbeatTimeout to 20 s, so that a client sends
// 0.2 heartbeats a second instead of 0.03.
const PresetFleet Preset = "fleet"

// What PresetFleet sets.
const (
	FleetHeartbeatInterval = 5 * time.Second
	FleetHeartbeatTimeout  = 20 * time.Second
)

// Heartbeats returns the HeartbeatInterval and the HeartbeatTimeout that c means, by its
// fields, its Preset and the defaults.
func (c Config) Heartbeats() (interval, timeout time.Duration) {
	if c.Preset == PresetFleet {
		return cmp.Or(c.HeartbeatInterval, FleetHeartbeatInterval), cmp.Or(c.HeartbeatTimeout, FleetHeartbeatTimeout)
	}
	return cmp.Or(c.HeartbeatInterval, DefaultHeartbeatInterval), cmp.Or(c.HeartbeatTimeout, DefaultHeartbeatTimeout)
}

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

func (o Ordering) tracker() ledger.Ordering {
	switch o {
	case OrderByChannel:
		return ledger.ByChannel
	case Unordered:
		return ledger.Unordered
	}
	return ledger.ByKey
}

// Config configures a Subscriber. Endpoint, Instance and credentials are
// required; every other zero field means its default. What shows a Config (fmt with any
// verb, JSON, slog) shows no secret.
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
	Credentials ots.CredentialsProvider

	// SignatureVersion is how requests are signed. SignatureV4 needs Region.
	// Default SignatureV2.
	SignatureVersion ots.SignatureVersion

	// Region is the region of the instance, such as "cn-hangzhou", for
	// SignatureV4; empty otherwise.
	Region string

	// AllowInsecure permits http:// endpoints outside loopback.
	AllowInsecure bool

	// Transport carries the HTTP requests. Default: a pooled transport of the
	// Subscriber's own, with a connection for each channel and real timeouts.
	Transport http.RoundTripper

	// WorkerSize is how many tunnel clients each Subscribe connects. The
	// service spreads the channels evenly over all clients of a tunnel. One is
	// enough unless fairness between processes asks for more. Default 1.
	WorkerSize int

	// Preset chooses the defaults of HeartbeatInterval and HeartbeatTimeout: PresetFleet
	// where several processes consume the tunnel. Empty: those below.
	Preset Preset

	// ClientTag names this process at the service: ids of its clients begin with it,
	// in a TunnelView and in the console. At most 128 printable ASCII characters. Default:
	// the host's name, which in Kubernetes is the Pod's.
	ClientTag string

	// ExpectedClients is how many tunnel clients all processes that consume the tunnel
	// have together, for an alert on fewer. It changes nothing else. Default 0: not known.
	ExpectedClients int

	// TunnelViewInterval is the time between two questions to the service how the
	// tunnel is, with the channels of other consumers: two small calls. A fleet's processes
	// each ask up to four times less often. Default 15 s; NoTunnelView: never.
	TunnelViewInterval time.Duration

	// HeartbeatInterval is the time between two heartbeats that carry no
	// news; news travel at once. Default 30 s.
	HeartbeatInterval time.Duration

	// HeartbeatTimeout is how long after the last heartbeat the service gives
	// the client's channels away. It travels in whole seconds. Shorter means that
	// the channels of a dead process come back sooner.
	//
	// What it leaves after HeartbeatInterval has to do for three heartbeats, so that one
	// that gets no answer does not cost the session: it must exceed HeartbeatInterval by a
	// third, and by 600 ms. Three times HeartbeatInterval or more is a good choice: then
	// each of the three may take as long as two thirds of an interval. Default 300 s.
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
	Unmarshaler ots.Unmarshaler

	// Lookup says for which records the whole row is read from the table, with BatchGetRow
	// and ahead of delivery: a change tells only the columns that it touched. The row is in Record.Row, and
	// in the payloads that show it. It is at least as new as the change, so it may have later
	// changes in it; each of those follows as a record of its own. A row that is gone by then
	// is RowGone, not an error. Rows count against MaxInFlightBytes. Default LookupNone.
	Lookup Lookup

	// LookupColumns are the columns to read, at most MaxLookupColumns. Default: all.
	LookupColumns []string

	// CheckpointInterval is the longest time between two commits of a channel
	// while there is something to commit. Default 5 s.
	CheckpointInterval time.Duration

	// MinPollInterval is the shortest pause between two reads of a channel that
	// has been read to its end. While there is more to read there is no pause.
	// Default 20 ms, or MaxPollInterval if that is shorter.
	MinPollInterval time.Duration

	// MaxPollInterval is the longest pause between two reads of an idle
	// channel, unless EmptyReadsPerSecond makes it longer. Default 1 s.
	MaxPollInterval time.Duration

	// EmptyReadsPerSecond bounds the reads that find nothing, of all channels of a
	// Subscribe together: beyond it the pauses of all of them grow. Reads that
	// find records do not count, so a Subscribe makes at most this number of reads a second, and
	// one for each change. Default 100.
	EmptyReadsPerSecond int

	// CloseTimeout bounds how long a drain waits for handlers: at Close, when
	// Subscribe's context is cancelled, and when the service moves a channel
	// to another client. Default 10 s.
	CloseTimeout time.Duration

	// NackBackoff returns the backoff between the deliveries of a nacked message. It is
	// called once for each message that fails. Default: 100 ms doubling up to 30 s.
	// backoff.Stop is taken as the longest pause so far of that message, or 30 s if it
	// comes first.
	NackBackoff func() backoff.BackOff

	// ReadBackoff returns the backoff after failed reads and checkpoints. Default: 50 ms doubling up to 5 s.
	ReadBackoff func() backoff.BackOff

	// ReconnectBackoff returns the backoff between two sessions of a tunnel
	// client. Default: 200 ms doubling up to 10 s.
	ReconnectBackoff func() backoff.BackOff

	// StuckAfter is how long a message may be with its handler, or wait to be
	// taken from the output, until an alarm is raised. Default 5 minutes.
	StuckAfter time.Duration

	// OnPhase, when set, is called at lifecycle events of a subscription: base
	// data done, channels opened and finished. It is called in a goroutine of its
	// own, one call at a time in each subscription. A channel is read only when it has
	// returned from that channel's opening; nothing else waits for it. It may call Close. A
	// panic is logged.
	OnPhase func(Phase)

	// OnAlarm, when set, is called for what a person should look at: handlers that
	// are stuck, records that will soon be older than the log, changes that are lost. Each alarm is also
	// logged as an error. Called like OnPhase, and beside it; nothing waits for it.
	OnAlarm func(Alarm)

	// OnAck, when set, is called for each ack that counts, in the goroutine that
	// saw it. Several call at once, and records wait: it must be quick and must not block.
	// It is made for histograms; see package metrics.
	OnAck func(Acked)

	// Tunnel is what SubscribeInitialize creates when the tunnel is missing. A
	// tunnel that exists must be of the type that it names, if it names one; that
	// it starts or ends at another time is logged. OnGapRecreate creates BaseAndStream
	// whatever it names.
	Tunnel TunnelSpec

	// OnGap is what happens when the tunnel cannot continue, because changes are lost or
	// because it was deleted: the subscription ends, or it recreates the tunnel. Default OnGapFail.
	OnGap OnGap
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
	// Type is the tunnel's type. Default BaseAndStream where a tunnel is created, and
	// any type where one exists.
	Type TunnelType

	// Start is the time of the first changes that are delivered, if the stream still
	// keeps them. Zero: the time of the tunnel's creation.
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
	c.HeartbeatInterval, c.HeartbeatTimeout = c.Heartbeats()
	c.TunnelViewInterval = cmp.Or(c.TunnelViewInterval, DefaultTunnelViewInterval)
	c.MaxInFlight = cmp.Or(c.MaxInFlight, DefaultMaxInFlight)
	c.MaxInFlightBytes = cmp.Or(c.MaxInFlightBytes, DefaultMaxInFlightBytes)
	c.CheckpointInterval = cmp.Or(c.CheckpointInterval, DefaultCheckpointInterval)
	c.MaxPollInterval = cmp.Or(c.MaxPollInterval, DefaultMaxPollInterval)
	c.MinPollInterval = cmp.Or(c.MinPollInterval, min(DefaultMinPollInterval, c.MaxPollInterval))
	c.EmptyReadsPerSecond = cmp.Or(c.EmptyReadsPerSecond, DefaultEmptyReadsPerSecond)
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
		c.Credentials = service.StaticCredentials{AccessKeyID: c.AccessKeyID, AccessKeySecret: c.AccessKeySecret, SecurityToken: c.SecurityToken}
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

	faults = append(faults, service.Connection{
		Endpoint: c.Endpoint, Instance: c.Instance, AllowInsecure: c.AllowInsecure,
		AccessKeyID: c.AccessKeyID, AccessKeySecret: c.AccessKeySecret, Credentials: c.Credentials,
		SignatureVersion: c.SignatureVersion, Region: c.Region,
	}.Faults()...)
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
		{"MinPollInterval", c.MinPollInterval},
		{"MaxPollInterval", c.MaxPollInterval},
		{"CloseTimeout", c.CloseTimeout},
		{"StuckAfter", c.StuckAfter},
	} {
		if d.value < 0 {
			fault("Config.%s is %v: it must not be negative (zero means the default)", d.field, d.value)
		} else if d.value > 0 && d.value < leastDuration {
			fault(tooShort, d.field, d.value, leastDuration, d.value)
		}
	}
	if longest := cmp.Or(c.MaxPollInterval, DefaultMaxPollInterval); longest > 0 && c.MinPollInterval > longest {
		fault("Config.MinPollInterval is %v: it must not exceed Config.MaxPollInterval (%v)", c.MinPollInterval, longest)
	}
	if c.EmptyReadsPerSecond < 0 {
		fault("Config.EmptyReadsPerSecond is %d: it counts reads, 1 or more", c.EmptyReadsPerSecond)
	}
	if c.TunnelViewInterval < 0 && c.TunnelViewInterval != NoTunnelView {
		fault("Config.TunnelViewInterval is %v: it must not be negative (zero means the default, NoTunnelView never)", c.TunnelViewInterval)
	} else if c.TunnelViewInterval > 0 && c.TunnelViewInterval < leastDuration {
		fault(tooShort, "TunnelViewInterval", c.TunnelViewInterval, leastDuration, c.TunnelViewInterval)
	}
	if c.ExpectedClients < 0 {
		fault("Config.ExpectedClients is %d: it counts tunnel clients, 0 means that it is not known", c.ExpectedClients)
	}
	if c.Preset != "" && c.Preset != PresetFleet {
		fault("Config.Preset is %q: leave it empty or take PresetFleet (%q)", c.Preset, PresetFleet)
	}
	if !service.ValidClientTag(c.ClientTag) {
		fault("Config.ClientTag is %q: take at most %d printable ASCII characters", c.ClientTag, service.MaxClientTag)
	}
	interval, timeout := c.Heartbeats()
	if interval > 0 && timeout > 0 {
		if timeout < time.Second {
			fault("Config.HeartbeatTimeout is %v: the service counts whole seconds, 1s or more", timeout)
		} else if least := service.MinHeartbeatTimeout(interval); timeout.Truncate(time.Second) < least {
			fault("Config.HeartbeatTimeout is %v and Config.HeartbeatInterval %v: the timeout, in whole seconds, must be at least %v, or one heartbeat that gets no answer costs the channels; three times the interval is a good choice", timeout, interval, least)
		}
	}
	faults = append(faults, c.Tunnel.validate()...)
	faults = append(faults, c.onGapFaults()...)
	faults = append(faults, c.lookupFaults()...)
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("subscriber configuration: %w", errors.Join(faults...))
}

// firstOffset and lastOffset bound the times that the service's offsets can tell: they are nanoseconds since
// 1970, of which 0 stands for none.
var firstOffset, lastOffset = time.Unix(0, 1), time.Unix(0, math.MaxInt64)

func (s TunnelSpec) validate() (faults []error) {
	switch s.Type {
	case "", BaseAndStream, Stream, BaseData:
	default:
		faults = append(faults, fmt.Errorf("Config.Tunnel.Type is %q: take BaseAndStream, Stream or BaseData", s.Type))
	}
	if s.Earliest && !s.Start.IsZero() {
		faults = append(faults, errors.New("Config.Tunnel.Earliest and Config.Tunnel.Start exclude each other"))
	}
	for _, at := range []struct {
		field string
		time  time.Time
	}{{"Start", s.Start}, {"End", s.End}} {
		if !at.time.IsZero() && (at.time.Before(firstOffset) || at.time.After(lastOffset)) {
			faults = append(faults, fmt.Errorf("Config.Tunnel.%s is %v: it must be after the beginning of 1970, from which the service counts, and before %d", at.field, at.time, lastOffset.Year()))
		}
	}
	if !s.End.IsZero() && !s.End.After(s.Start) {
		faults = append(faults, fmt.Errorf("Config.Tunnel.End (%v) must be after Config.Tunnel.Start (%v)", s.End, s.Start))
	}
	return faults
}
