package metrics

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

// acks has the histograms of OnAck.
//
// observe is called for each ack by many goroutines at once. It finds the histograms of
// its topic without a lock or an allocation, in a map that is never changed, only
// replaced.
type acks struct {
	enabled         atomic.Bool
	delay, handling *prometheus.HistogramVec

	mu    sync.Mutex                           // held to replace known
	known atomic.Pointer[map[topic]*observers] // never nil
}

// topic identifies the tunnel of an ack.
type topic struct{ instance, topic string }

type observers struct{ delay, handling prometheus.Observer }

func newAcks(delay, handling []float64) *acks {
	a := &acks{
		delay: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: Namespace, Name: "ack_delay_seconds", Buckets: delay,
			Help: "Time from a change to its ack, by the service's and this machine's clocks; base data has none.",
		}, tunnelLabels),
		handling: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: Namespace, Name: "handling_seconds", Buckets: handling,
			Help: "Time from the offer of a message to its ack.",
		}, tunnelLabels),
	}
	a.known.Store(&map[topic]*observers{})
	return a
}

func (a *acks) observe(ack subscriber.Acked) {
	name := topic{ack.Instance, ack.Topic}
	o := (*a.known.Load())[name]
	if o == nil {
		table, tunnelName, _ := strings.Cut(ack.Topic, "/")
		o = a.add(name, newTunnel(ack.Instance, table, tunnelName))
	}
	o.handling.Observe(ack.Handling.Seconds())
	if !ack.Changed.IsZero() {
		o.delay.Observe(ack.Delay.Seconds())
	}
}

// begin creates the series of a tunnel, at 0.
func (a *acks) begin(t tunnel) {
	name := topic{t.instance, t.table + "/" + t.tunnel}
	if a.enabled.Load() && (*a.known.Load())[name] == nil {
		a.add(name, t)
	}
}

func (a *acks) add(name topic, t tunnel) *observers {
	a.mu.Lock()
	defer a.mu.Unlock()
	known := *a.known.Load()
	if o := known[name]; o != nil {
		return o
	}
	o := &observers{
		delay:    a.delay.WithLabelValues(t.instance, t.table, t.tunnel),
		handling: a.handling.WithLabelValues(t.instance, t.table, t.tunnel),
	}
	known = maps.Clone(known)
	known[name] = o
	a.known.Store(&known)
	return o
}

func (a *acks) describe(descs chan<- *prometheus.Desc) {
	a.delay.Describe(descs)
	a.handling.Describe(descs)
}

func (a *acks) collect(series chan<- prometheus.Metric) {
	a.delay.Collect(series)
	a.handling.Collect(series)
}
