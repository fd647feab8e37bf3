package metrics

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Namespace is the prefix of the names of all series.
const Namespace = "watermill_ots"

// DefaultRPOTimeout is the default of Config.RPOTimeout.
const DefaultRPOTimeout = 2 * time.Second

// ErrInvalidConfig is wrapped by every error of New.
var ErrInvalidConfig = errors.New("metrics: invalid config")

// Config configures a Metrics. The zero value is valid.
type Config struct {
	// DelayBuckets are the upper bounds, in seconds, of the histogram of the time
	// between a change and its ack. Default 5 ms to 1 h.
	DelayBuckets []float64

	// HandlingBuckets are the upper bounds of the histograms of handling times of
	// messages and batches, and of waiting times of batches. Default 1 ms to 2 min.
	HandlingBuckets []float64

	// SizeBuckets are the upper bounds of the histogram of messages in a batch. Default
	// 1 to 1000.
	SizeBuckets []float64

	// RPOInterval is the minimum time between requests to the service for each
	// tunnel's progress (two calls a tunnel), which are made during a scrape.
	// Default 0: no requests.
	RPOInterval time.Duration

	// RPOTimeout is how long a scrape waits for these answers at most; later answers
	// are discarded. Default 2 s.
	RPOTimeout time.Duration

	// Channels exports a series for each channel of the tunnels, with its client, from
	// the service's view (subscriber.TunnelView). The ids, and so the series, change with
	// each split, merge and restart. Each tunnel has at most 1000, orphans first.
	// Default false: counts only.
	Channels bool
}

// Source provides the status of a subscriber: *subscriber.Subscriber implements it. If a
// Source also has the subscriber's method RPO, the service's view is exported when
// Config.RPOInterval is set.
type Source interface {
	Status() subscriber.Status
}

// Metrics is a prometheus.Collector over subscribers and batchings. All methods
// may be called from any goroutine.
type Metrics struct {
	acks    *acks
	batches *batches
	rpo     *rpo
	kinds   *kinds

	channels bool // Config.Channels

	mu        sync.Mutex // guards the following
	sources   []Source
	batchings []pipeline
	checks    []check
}

// check holds the arguments of AddCheck.
type check struct {
	pipeline string
	failing  func() error
}

var notReadyDesc = newDesc("pipelines_not_ready", "1 while the pipeline's check fails: Process is down, or the pipeline has ended.", []string{"pipeline"})

type pipeline struct {
	name string
	b    *batching.Batching
}

var _ prometheus.Collector = (*Metrics)(nil)

// New returns a Metrics without subscribers and batchings. The error wraps
// ErrInvalidConfig and lists all faults of cfg: bounds that do not grow, negative times.
func New(cfg Config) (*Metrics, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	buckets := func(field string, given, fallback []float64) []float64 {
		for i := 1; i < len(given); i++ {
			if given[i] <= given[i-1] {
				fault("Config.%s has %v after %v: bounds must grow", field, given[i], given[i-1])
			}
		}
		if len(given) == 0 {
			return fallback
		}
		return slices.Clone(given)
	}
	delay := buckets("DelayBuckets", cfg.DelayBuckets, []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600})
	handling := buckets("HandlingBuckets", cfg.HandlingBuckets, []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120})
	size := buckets("SizeBuckets", cfg.SizeBuckets, []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000})
	if cfg.RPOInterval < 0 {
		fault("Config.RPOInterval is %v: it must not be negative (zero means no requests)", cfg.RPOInterval)
	}
	if cfg.RPOTimeout < 0 {
		fault("Config.RPOTimeout is %v: it must not be negative (zero means the default)", cfg.RPOTimeout)
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("%w: %w", ErrInvalidConfig, errors.Join(faults...))
	}
	return &Metrics{
		channels: cfg.Channels,
		acks:     newAcks(delay, handling),
		batches:  newBatches(size, handling),
		rpo:      &rpo{interval: cfg.RPOInterval, timeout: cmp.Or(cfg.RPOTimeout, DefaultRPOTimeout), known: make(map[tunnel]*points)},
		kinds:    &kinds{known: make(map[tunnel]map[kind]bool)},
	}, nil
}

// AddSubscriber adds a subscriber. It stays after it was closed.
func (m *Metrics) AddSubscriber(s Source) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sources = append(m.sources, s)
}

// AddBatching adds a batching. It stays after it was closed. The name is the value of the
// label pipeline; batchings with the same name are summed up.
func (m *Metrics) AddBatching(name string, b *batching.Batching) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.batchings = append(m.batchings, pipeline{label(name), b})
}

// AddCheck adds a gauge for the pipeline with that name, which is 1 while the check fails.
// router.Observed.Ready is such a check. It must be quick, and is called by many
// goroutines at once. A panic in it counts as an error.
func (m *Metrics) AddCheck(name string, failing func() error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.checks = append(m.checks, check{label(name), failing})
}

// value is 1 while the check fails.
func (c check) value() (v float64) {
	defer func() {
		if recover() != nil { // the check is user code, and Metrics has no logger
			v = 1
		}
	}()
	if c.failing() != nil {
		return 1
	}
	return 0
}

// OnAck returns the function for subscriber.Config.OnAck, for the histograms of delays and
// handling times. Several subscribers may share one function.
func (m *Metrics) OnAck() func(subscriber.Acked) {
	m.acks.enabled.Store(true)
	return m.acks.observe
}

// OnBatch returns the function for batching.Config.OnBatch, for the histograms of the
// batches of the pipeline with that name.
func (m *Metrics) OnBatch(name string) func(batching.Handled) {
	name = label(name)
	m.batches.enable(name)
	return func(h batching.Handled) { m.batches.observe(name, h) }
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(descs chan<- *prometheus.Desc) {
	for _, f := range tunnelFamilies {
		descs <- f.desc
	}
	for _, f := range batcherFamilies {
		descs <- f.desc
	}
	for _, f := range viewFamilies {
		descs <- f.desc
	}
	descs <- viewChannelDesc
	descs <- failedCallsDesc
	descs <- notReadyDesc
	m.acks.describe(descs)
	m.batches.describe(descs)
	m.rpo.describe(descs)
}

// Collect implements prometheus.Collector. Only with Config.RPOInterval does it wait for
// the service, at most for RPOTimeout.
func (m *Metrics) Collect(series chan<- prometheus.Metric) {
	m.mu.Lock()
	sources, batchings, checks := slices.Clone(m.sources), slices.Clone(m.batchings), slices.Clone(m.checks)
	m.mu.Unlock()

	notReady := make(map[string]float64)
	for _, c := range checks {
		notReady[c.pipeline] = max(notReady[c.pipeline], c.value())
	}
	for name, v := range notReady {
		series <- prometheus.MustNewConstMetric(notReadyDesc, prometheus.GaugeValue, v, name)
	}

	m.rpo.refresh(sources)
	m.rpo.collect(series)

	tunnels := make(map[tunnel][]*subscriber.SubscriptionStatus)
	now := time.Time{}
	for _, s := range sources {
		st := s.Status()
		now = st.Time
		for i := range st.Subscriptions {
			sub := &st.Subscriptions[i]
			t := newTunnel(st.Instance, sub.Table, sub.Tunnel)
			tunnels[t] = append(tunnels[t], sub)
		}
	}
	for t, subs := range tunnels {
		collect(tunnelFamilies, series, subs, now, t.instance, t.table, t.tunnel)
		if view := newestView(subs); view != nil {
			collect(viewFamilies, series, []*subscriber.TunnelView{view}, now, t.instance, t.table, t.tunnel)
			if m.channels {
				viewChannels(series, t, view)
			}
		}
		m.failedCalls(series, t, subs)
		m.acks.begin(t)
	}
	m.acks.collect(series)

	batchers := make(map[[2]string][]*batching.BatcherStats)
	for _, p := range batchings {
		stats := p.b.Stats()
		for i := range stats {
			key := [2]string{p.name, label(stats[i].Batcher)}
			batchers[key] = append(batchers[key], &stats[i])
		}
	}
	for key, stats := range batchers {
		collect(batcherFamilies, series, stats, now, key[0], key[1])
		m.batches.begin(key[0], key[1])
	}
	m.batches.collect(series)
}

// tunnel identifies a tunnel; its parts are the labels tunnelLabels.
type tunnel struct{ instance, table, tunnel string }

// tunnelLabels are the labels of a tunnel. The first one is not called "instance", because
// Prometheus uses that name for the target.
var tunnelLabels = []string{"ots_instance", "table", "tunnel"}

// family is one metric over snapshots of type S.
type family[S any] struct {
	desc    *prometheus.Desc
	kind    prometheus.ValueType
	largest bool // of several snapshots, instead of the sum
	values  func(s *S, now time.Time, add func(v float64, labels ...string))
}

// moreLabels are the values of a family's own labels, as a map key.
type moreLabels struct {
	values [2]string
	count  int
}

// collect sends the series of all families. The snapshots belong to one tunnel or batcher,
// which the first labels name.
func collect[S any](families []family[S], series chan<- prometheus.Metric, snapshots []*S, now time.Time, first ...string) {
	for _, f := range families {
		sums := make(map[moreLabels]float64)
		for _, s := range snapshots {
			f.values(s, now, func(v float64, labels ...string) {
				key := moreLabels{count: len(labels)}
				for i, l := range labels {
					key.values[i] = label(l)
				}
				if f.largest {
					sums[key] = max(sums[key], v)
				} else {
					sums[key] += v
				}
			})
		}
		for key, v := range sums {
			send(series, f.desc, f.kind, v, append(slices.Clip(first), key.values[:key.count]...)...)
		}
	}
}

// newDesc describes a metric with the given labels.
func newDesc(name, help string, first []string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(Namespace+"_"+name, help, append(slices.Clip(first), labels...), nil)
}
