package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watermill-ots/watermill-ots/internal/oneline"
)

// maxLabel bounds the bytes of a label's value. Names at the service have 255 at most.
const maxLabel = 300

// label returns text as the value of a label: names and codes come from outside, and a
// client library panics, and fails the whole scrape, for what is not UTF-8.
// Series are distinguished by its result: texts with equal results are summed.
func label(text string) string { return oneline.Text(text, maxLabel) }

// newTunnel returns the tunnel with these names as labels.
func newTunnel(instance, table, name string) tunnel {
	return tunnel{label(instance), label(table), label(name)}
}

// send sends a series. The values of its labels are clean.
func send(series chan<- prometheus.Metric, desc *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
	series <- prometheus.MustNewConstMetric(desc, kind, v, labels...)
}

// maxKinds bounds the kinds of failed calls that are told apart for a tunnel. A
// subscription tells 64 apart.
const maxKinds = 100

// otherKind stands for those beyond maxKinds.
const otherKind = "other"

// kinds says which kinds of failed calls have a series. Once a kind has one it keeps
// it, as a counter must not go back.
type kinds struct {
	mu    sync.Mutex
	known map[tunnel]map[kind]bool
}

// kind is a kind of failed call, by its labels.
type kind struct{ operation, code string }

// of returns the kind that a failed call of t is counted as.
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
