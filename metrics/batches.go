package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watermill-ots/watermill-ots/batching"
)

type batcher = batching.BatcherStats

var batcherLabels = []string{"pipeline", "batcher"}

// batcherNumber is a metric with one number for each batcher.
func batcherNumber(name, help string, kind prometheus.ValueType, value func(s *batcher) float64) family[batcher] {
	return family[batcher]{
		desc: newDesc(name, help, batcherLabels), kind: kind,
		values: func(s *batcher, _ time.Time, add func(float64, ...string)) { add(value(s)) },
	}
}

var batcherFamilies = []family[batcher]{
	{
		desc: newDesc("batches_total", "Batches handled, by what triggered them.", batcherLabels, "trigger"), kind: prometheus.CounterValue,
		values: func(s *batcher, _ time.Time, add func(float64, ...string)) {
			for trigger, n := range s.Batches {
				add(float64(n), string(trigger))
			}
		},
	},
	batcherNumber("batches_failed_total", "Batches handled in which a message failed.", prometheus.CounterValue, func(s *batcher) float64 { return float64(s.FailedBatches) }),
	{
		desc: newDesc("batch_messages_total", "Messages of batches handled, by outcome: succeeded, failed, called_back.", batcherLabels, "outcome"), kind: prometheus.CounterValue,
		values: func(s *batcher, _ time.Time, add func(float64, ...string)) {
			add(float64(s.Succeeded), "succeeded")
			add(float64(s.Failed), "failed")
			add(float64(s.CalledBack), "called_back")
		},
	},
	batcherNumber("batch_messages_waiting", "Messages in batches that do not run yet.", prometheus.GaugeValue, func(s *batcher) float64 { return float64(s.Waiting) }),
	batcherNumber("batch_messages_handling", "Messages in batches that run.", prometheus.GaugeValue, func(s *batcher) float64 { return float64(s.Handling) }),
	batcherNumber("batches_running", "Batches that run.", prometheus.GaugeValue, func(s *batcher) float64 { return float64(s.Running) }),
	batcherNumber("batches_running_limit", "Concurrency, times the scopes that have messages.", prometheus.GaugeValue, func(s *batcher) float64 { return float64(s.Concurrency * max(1, s.Scopes)) }),
	batcherNumber("batches_ready", "Batches that wait only for others to end (Concurrency), or for the end of an outage.", prometheus.GaugeValue, func(s *batcher) float64 { return float64(s.Ready) }),
	batcherNumber("batchers_down", "1 while the batcher's handler is down and only single messages probe it.", prometheus.GaugeValue, func(s *batcher) float64 {
		if s.DownSince.IsZero() {
			return 0
		}
		return 1
	}),
}

// batches has the histograms of OnBatch.
type batches struct {
	size, wait, handling *prometheus.HistogramVec

	mu      sync.Mutex
	enabled map[string]bool // by pipeline
}

func newBatches(size, handling []float64) *batches {
	return &batches{
		size: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: Namespace, Name: "batch_size_messages", Buckets: size,
			Help: "Messages in a batch.",
		}, batcherLabels),
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: Namespace, Name: "batch_wait_seconds", Buckets: handling,
			Help: "Time from the first message of a batch to its handler.",
		}, batcherLabels),
		handling: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: Namespace, Name: "batch_handling_seconds", Buckets: handling,
			Help: "Time of a batch with its handler.",
		}, batcherLabels),
		enabled: make(map[string]bool),
	}
}

func (b *batches) enable(pipeline string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.enabled[pipeline] = true
}

// begin creates the series of a batcher, at 0.
func (b *batches) begin(pipeline, batcher string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.enabled[pipeline] {
		b.size.WithLabelValues(pipeline, batcher)
		b.wait.WithLabelValues(pipeline, batcher)
		b.handling.WithLabelValues(pipeline, batcher)
	}
}

func (b *batches) observe(pipeline string, h batching.Handled) {
	batcher := label(h.Batcher)
	b.size.WithLabelValues(pipeline, batcher).Observe(float64(h.Messages))
	b.wait.WithLabelValues(pipeline, batcher).Observe(h.Waited.Seconds())
	b.handling.WithLabelValues(pipeline, batcher).Observe(h.Took.Seconds())
}

func (b *batches) describe(descs chan<- *prometheus.Desc) {
	b.size.Describe(descs)
	b.wait.Describe(descs)
	b.handling.Describe(descs)
}

func (b *batches) collect(series chan<- prometheus.Metric) {
	b.size.Collect(series)
	b.wait.Collect(series)
	b.handling.Collect(series)
}
