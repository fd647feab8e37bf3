package router

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/router/internal/strictyaml"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Config is a whole configuration: the instances, and how their tunnels are handled.
// Load and Parse read it from YAML; it may also be made in code. A zero field means its
// default.
//
// The field tags define the file format: yaml is the key, alias another key with the
// same meaning, required, min and enum bound the value, default is what an absent key
// means, unit tells byte counts from other integers, and a secret value is never
// shown in an error. The JSON schema and the tables of docs/config.md are generated
// from them.
type Config struct {
	// Tablestore instances by a name of your choice.
	Instances map[string]Instance `yaml:"instances" required:"true"`

	// Pipelines by a name of your choice: it names the pipeline in code (Handle), logs and dead letters.
	Tunnels map[string]Tunnel `yaml:"tunnels" required:"true"`

	// source is the file, so that faults that are found later, when handlers and
	// publishers are registered, have lines too; nil for a configuration made in code.
	source *strictyaml.Document
}

// Instance is a Tablestore instance and how to reach it.
type Instance struct {
	// The instance's name at the service.
	Name string `yaml:"name" required:"true"`

	// URL of the instance, such as https://my-instance.cn-hangzhou.ots.aliyuncs.com.
	Endpoint string `yaml:"endpoint" required:"true"`

	// Access key id that signs the requests.
	AccessKeyID string `yaml:"access_key_id" secret:"true"`

	// Secret of the access key.
	AccessKeySecret string `yaml:"access_key_secret" secret:"true"`

	// STS token that belongs to a temporary access key.
	SecurityToken string `yaml:"security_token" secret:"true"`

	// Name of a credentials provider registered with RegisterCredentials; it replaces the three keys above.
	Credentials string `yaml:"credentials"`

	// Signature of the requests; v4 needs region.
	SignatureVersion string `yaml:"signature_version" enum:"v2,v4" default:"v2"`

	// Region of the instance, for signature_version: v4.
	Region string `yaml:"region"`

	// Accepts http:// endpoints that are not on this machine.
	AllowInsecure bool `yaml:"allow_insecure" default:"false"`

	// HTTP connections kept open for all tunnels of the instance. Each channel needs one while it reads, each worker one for heartbeats.
	PoolSize int `yaml:"pool_size" min:"1" default:"no limit"`

	// Further connections opened when pool_size are busy, and closed after use; requests beyond them wait.
	PoolMaxOverflow int `yaml:"pool_max_overflow" min:"0" default:"0"`

	// Logs every HTTP request, with credentials and signatures redacted.
	Debug bool `yaml:"debug" default:"false"`
}

// Tunnel is one pipeline: a tunnel of a table and what happens to its records.
type Tunnel struct {
	// Name of the table's instance, in instances.
	Instance string `yaml:"instance" required:"true"`

	// Table whose changes are handled.
	TableName string `yaml:"table_name" required:"true"`

	// The tunnel's name at the service.
	TunnelName string `yaml:"tunnel_name" required:"true"`

	// With false the pipeline does not run, but is checked all the same; in code Config.Only chooses.
	Enabled bool `yaml:"enabled" zero:"Disabled" default:"true"`

	// Disabled is what enabled: false is in code.
	Disabled bool `yaml:"-"`

	// Tunnel clients that this pipeline connects; the service spreads channels over all clients.
	WorkerSize int `yaml:"worker_size" min:"1" default:"1"`

	// Settings that go together: fleet, where several processes consume the tunnel, has heartbeat_interval 5s and heartbeat_timeout 20s unless they are given.
	Preset string `yaml:"preset" enum:"fleet" default:"none"`

	// Time without a heartbeat after which the service gives a client's channels to others; whole seconds, at least a third more than heartbeat_interval; three times is good.
	HeartbeatTimeout time.Duration `yaml:"heartbeat_timeout" min:"1s" default:"300s"`

	// Time between two heartbeats that report no changes.
	HeartbeatInterval time.Duration `yaml:"heartbeat_interval" min:"1ms" default:"30s"`

	// Names this process at the service: ids of its clients begin with it. In Kubernetes the host's name is the Pod's.
	ClientTag string `yaml:"client_tag" default:"the host's name"`

	// Tunnel clients of all processes together, for an alert on fewer; it changes nothing else.
	ExpectedClients int `yaml:"expected_clients" min:"1" default:"not known"`

	// Time between two calls that ask the service which client reads which channel of the tunnel; 0: no calls.
	TunnelViewInterval time.Duration `yaml:"tunnel_view_interval" min:"1s" zero:"never" default:"15s"`

	// Order of delivery: per primary key, of the whole channel, or none.
	Ordering string `yaml:"ordering" enum:"key,channel,none" default:"key"`

	// Records that are read but not yet settled, over all channels of this pipeline.
	MaxInFlight int `yaml:"max_in_flight" min:"1" default:"4096"`

	// Bytes of the pages that these records belong to.
	MaxInFlightBytes int64 `yaml:"max_in_flight_bytes" unit:"bytes" min:"1" default:"64MiB"`

	// Longest time between two commits of a channel while there is something to commit.
	CheckpointInterval time.Duration `yaml:"checkpoint_interval" min:"1ms" default:"5s"`

	// Shortest pause between two reads of a channel that was read to its end.
	MinPollInterval time.Duration `yaml:"min_poll_interval" min:"1ms" default:"20ms"`

	// Longest pause between two reads of an idle channel.
	MaxPollInterval time.Duration `yaml:"max_poll_interval" min:"1ms" default:"1s"`

	// Reads per second that may find nothing, over all channels of this pipeline; beyond that, pauses grow.
	EmptyReadsPerSecond int `yaml:"empty_reads_per_second" min:"1" default:"100"`

	// How long a drain waits for handlers.
	CloseTimeout time.Duration `yaml:"close_timeout" min:"1ms" default:"10s"`

	// Properties of the tunnel, and whether to create it.
	Tunnel TunnelSpec `yaml:"tunnel"`

	// What the other pipelines do if this one ends alone (its tunnel is gone or expired, or failure.stop_after is exceeded): continue; or stop, and Run returns the error.
	OnEnd string `yaml:"on_end" enum:"continue,stop" default:"continue"`

	// What happens when changes are lost, or the tunnel has expired or was deleted: fail ends the pipeline; recreate replaces the tunnel by a BaseAndStream tunnel of the same name, creates a missing one, and delivers all rows again (see docs/gaps.md).
	OnGap string `yaml:"on_gap" enum:"fail,recreate" default:"fail"`

	// Rows that are read whole, ahead of delivery, because a change tells only the columns that it touched: none, those of updates, or those of all records (see docs/payload.md, Whole rows).
	Lookup string `yaml:"lookup" enum:"none,updates,always" default:"none"`

	// Columns that lookup reads, separated by commas.
	LookupColumns string `yaml:"lookup_columns" default:"all"`

	// Payload format: json, cloudevents, cloudevents-binary, debezium, canal, function-compute, function-compute-json, raw, none, or a name registered with RegisterPayload.
	Payload string `yaml:"payload" default:"json"`

	// What has its own processors.concurrency and batchers: the whole tunnel in this process, each of its worker_size workers, or each channel. A batch has messages of one scope only.
	Scope string `yaml:"scope" enum:"tunnel,worker,channel" default:"tunnel"`

	// The processing step.
	Processors Processors `yaml:"processors"`

	// Batchers by name. Process chooses one for each message (batching.SetBatcher); "default" gets messages without a choice. Without batchers a message is done when Process returns.
	Batchers map[string]Batcher `yaml:"batchers"`

	// Where processed messages are published. Only without batchers, which have a forward of their own.
	Forward *Target `yaml:"forward"`

	// What happens to a message that fails.
	Failure Failure `yaml:"failure"`
}

// TunnelSpec says whether a tunnel is created when it is missing, and how.
type TunnelSpec struct {
	// Creates the tunnel if it is missing, at the start or because it was deleted later; the other keys here are for that.
	Create bool `yaml:"create" default:"false"`

	// All rows and then all changes, only changes, or all rows once.
	Type string `yaml:"type" enum:"BaseAndStream,Stream,BaseData" default:"BaseAndStream"`

	// Where the changes begin: latest, earliest (all that the stream keeps), or a time such as 2026-01-31T00:00:00Z.
	Start string `yaml:"start" default:"latest"`

	// If set, changes after this time are not delivered and the tunnel ends; a time as for start.
	End time.Time `yaml:"end" default:"never"`
}

// The values of Tunnel.OnEnd.
const (
	onEndContinue = "continue"
	onEndStop     = "stop"
)

// recreates reports whether the subscriber recreates the tunnel (on_gap: recreate).
func (t Tunnel) recreates() bool { return t.OnGap == subscriber.OnGapRecreate.String() }

// onGap returns OnGap, which has been checked, as the subscriber's type.
func (t Tunnel) onGap() subscriber.OnGap {
	if t.recreates() {
		return subscriber.OnGapRecreate
	}
	return subscriber.OnGapFail
}

// lookup returns Lookup, which has been checked, as the subscriber's type.
func (t Tunnel) lookup() subscriber.Lookup {
	for l := subscriber.LookupAlways; l > subscriber.LookupNone; l-- {
		if t.Lookup == l.String() {
			return l
		}
	}
	return subscriber.LookupNone
}

// lookupColumns returns the names in LookupColumns.
func (t Tunnel) lookupColumns() (names []string) {
	if t.LookupColumns == "" {
		return nil
	}
	for name := range strings.SplitSeq(t.LookupColumns, ",") {
		names = append(names, strings.TrimSpace(name))
	}
	return names
}

// Processors bounds the processing step.
type Processors struct {
	// Process calls at once, in each scope; 0: as many as messages are in flight.
	Concurrency int `yaml:"concurrency" alias:"stages" min:"0" default:"0"`
}

// Batcher says how messages become batches.
type Batcher struct {
	// Batches of this batcher handled at once, in each scope; those that share a primary key run one at a time.
	Concurrency int `yaml:"concurrency" alias:"stages" min:"1" default:"1"`

	// Messages that make a batch full.
	BatchSize int `yaml:"batch_size" min:"1" default:"100"`

	// How long a batch waits for more messages, from its first one.
	BatchTimeout time.Duration `yaml:"batch_timeout" min:"1ms" default:"1s"`

	// How long a batch waits after its newest message; must be below batch_timeout.
	BatchIdle time.Duration `yaml:"batch_idle" min:"1ms" default:"off"`

	// Bytes of payload that make a batch full.
	MaxBytes int64 `yaml:"max_bytes" unit:"bytes" min:"1" default:"no limit"`

	// Splits a batch that failed as a whole, to find the messages that make it fail.
	Isolate bool `yaml:"isolate" zero:"NoIsolate" default:"true with failure.dead_letter, else false"`

	// NoIsolate is isolate: false in code: no batch is split, although there is a
	// dead-letter target.
	NoIsolate bool `yaml:"-"`

	// Publishes the batches, instead of a handler in code.
	Forward *Target `yaml:"forward"`
}

// Target is a topic of a publisher.
type Target struct {
	// Name of a publisher registered with RegisterPublisher.
	Publisher string `yaml:"publisher" default:"default"`

	// Topic to publish to.
	Topic string `yaml:"topic" required:"true"`
}

// Failure is the failure policy of a pipeline. By default a message that fails
// is retried without limit; it holds back later changes of its own key.
type Failure struct {
	// Failed attempts after which a message becomes a dead letter, if others succeeded meanwhile. Failures of an outage do not count. Only with dead_letter.
	Attempts int `yaml:"attempts" min:"1" default:"5"`

	// How long a message may fail before it becomes a dead letter although no other succeeds; 0: without limit. Only with dead_letter.
	GiveUpAfter time.Duration `yaml:"give_up_after" min:"1ms" zero:"never" default:"10m"`

	// A brake: stops the pipeline if more messages than this become dead letters. Only with dead_letter.
	StopAfter *StopAfter `yaml:"stop_after" default:"off"`

	// Pause after the first failure of a message; it doubles with each further one.
	BackoffInitial time.Duration `yaml:"backoff_initial" min:"1ms" default:"100ms"`

	// Longest pause between two attempts.
	BackoffMax time.Duration `yaml:"backoff_max" min:"1ms" default:"30s"`

	// Where a message goes after its last attempt; it is acked then. Absent: nowhere, it is retried without limit.
	DeadLetter *DeadLetterTarget `yaml:"dead_letter" default:"retry without limit"`
}

// StopAfter is the limit of dead letters beyond which a pipeline is stopped.
type StopAfter struct {
	// Allowed dead letters among the last messages.
	Letters int `yaml:"letters" min:"1" required:"true"`

	// Number of the last messages that are counted; more than letters.
	Of int `yaml:"of" min:"2" required:"true"`
}

// NeverGiveUp is a Failure.GiveUpAfter without limit, as 0 is in a file.
const NeverGiveUp time.Duration = -1

// DeadLetterTarget is where dead letters go: either Topic or Table is set.
type DeadLetterTarget struct {
	// Name of a publisher registered with RegisterPublisher; with topic.
	Publisher string `yaml:"publisher" default:"default"`

	// Topic to publish dead letters to.
	Topic string `yaml:"topic"`

	// Tablestore table to write dead letters to; created if missing.
	Table string `yaml:"table"`

	// Name of that table's instance, in instances; with table.
	Instance string `yaml:"instance" default:"the tunnel's"`
}

// The defaults of this package; all others are those of packages subscriber and
// batching.
const (
	DefaultAttempts       = 5
	DefaultGiveUpAfter    = 10 * time.Minute
	DefaultBackoffInitial = 100 * time.Millisecond
	DefaultBackoffMax     = 30 * time.Second
	DefaultPublisher      = "default"
	DefaultPayload        = "json"
)

// topic returns the tunnel's name for the subscriber.
func (t Tunnel) topic() string { return t.TableName + "/" + t.TunnelName }

// start returns the time of Start, or whether it is the earliest. If both are zero, the
// changes begin with the tunnel's creation.
func (s TunnelSpec) start() (at time.Time, earliest bool, err error) {
	switch s.Start {
	case "", "latest":
		return time.Time{}, false, nil
	case "earliest":
		return time.Time{}, true, nil
	}
	at, err = time.Parse(time.RFC3339, s.Start)
	return at, false, err
}

// ordering returns Ordering, which has been checked, as the subscriber's type.
func (t Tunnel) ordering() subscriber.Ordering {
	switch t.Ordering {
	case "channel":
		return subscriber.OrderByChannel
	case "none":
		return subscriber.Unordered
	}
	return subscriber.OrderByKey
}

// settings returns b as package batching's type, without a handler. isolate is the
// meaning of an absent isolate.
func (b Batcher) settings(isolate bool) batching.Batcher {
	return batching.Batcher{
		Size:        b.BatchSize,
		MaxBytes:    b.MaxBytes,
		Timeout:     b.BatchTimeout,
		Idle:        b.BatchIdle,
		Concurrency: b.Concurrency,
		Isolate:     b.Isolate || isolate && !b.NoIsolate,
	}
}

// names returns the keys of m, sorted.
func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func (t Target) publisher() string { return cmp.Or(t.Publisher, DefaultPublisher) }

// targetRef is a place in a tunnel's configuration where a publisher is named.
type targetRef struct {
	keys      []string // of the place, from the tunnel
	publisher string
}

// targets returns all places where a publisher is named.
func (t Tunnel) targets() []targetRef {
	var refs []targetRef
	if t.Forward != nil {
		refs = append(refs, targetRef{[]string{"forward"}, t.Forward.publisher()})
	}
	for _, b := range names(t.Batchers) {
		if to := t.Batchers[b].Forward; to != nil {
			refs = append(refs, targetRef{[]string{"batchers", b, "forward"}, to.publisher()})
		}
	}
	if dl := t.Failure.DeadLetter; dl != nil && dl.Topic != "" {
		refs = append(refs, targetRef{[]string{"failure", "dead_letter"}, cmp.Or(dl.Publisher, DefaultPublisher)})
	}
	return refs
}
