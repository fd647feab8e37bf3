package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watermill-ots/watermill-ots/internal/oneline"
)

// maxLabel limits the bytes of a label's value. Names at the service have at most 255.
const maxLabel = 300

// label returns text as the value of a label. Names and codes come from outside, and the
// client library panics, and fails the whole scrape, for text that is not UTF-8. Series
// of texts with equal results are summed.
func label(text string) string { return oneline.Text(text, maxLabel) }

// newTunnel returns the tunnel with these names as labels.
func newTunnel(instance, table, name string) tunnel {
	return tunnel{label(instance), label(table), label(name)}
}

// send sends a series. The values of its labels come from label.
func send(series chan<- prometheus.Metric, desc *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
	series <- prometheus.MustNewConstMetric(desc, kind, v, labels...)
}

// maxKinds limits the kinds of failed calls that have their own series, for each tunnel.
// A subscription distinguishes 64.
const maxKinds = 100

// otherKind replaces the kinds beyond maxKinds.
const otherKind = "other"

// kinds records which kinds of failed calls have a series. A kind keeps its series,
// because a counter must not decrease.
type kinds struct {
	mu    sync.Mutex
	known map[tunnel]map[kind]bool
}

// kind is a kind of failed call, by its labels.
type kind struct{ operation, code string }

// of returns the kind under which a failed call of t is counted.
func (k *kinds) of(t tunnel, call kind) kind {
	k.mu.Lock()
	defer k.mu.Unlock()
	known := k.known[t]
	if known == nil {
		known = make(map[kind]bool)
		k.known[t] = known
	}
	switch {
	case known[call]:
		return call
	case len(known) < maxKinds:
		known[call] = true
		return call
	}
	for other := range known {
		if other.operation == call.operation {
			return kind{call.operation, otherKind}
		}
	}
	return kind{otherKind, otherKind}
}
