package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

var (
	serviceLagDesc     = newDesc("service_lag_seconds", "Age of the point up to which the tunnel's channels were read or committed, by all of its consumers, in the service's view; none while base data are read.", tunnelLabels, "point")
	serviceRecordsDesc = newDesc("service_records_total", "Records that were read or committed over the tunnel's life, in the service's view.", tunnelLabels, "point")
	rpoRequestsDesc    = newDesc("rpo_requests_total", "Requests to the service for a tunnel's progress, by result: ok, error.", tunnelLabels, "result")
)

// rpo requests the tunnels' progress from the service, during a scrape, when interval has
// passed. No goroutine outlives the scrape.
type rpo struct {
	interval, timeout time.Duration // interval 0: no requests

	mu    sync.Mutex // guards the following; not held during calls
	asked time.Time
	known map[tunnel]*points
}

// points holds the answers for a tunnel.
type points struct {
	subscriber.RPO // the last answer
	ok, failed     uint64
}

// asker is a Source that can request the progress from the service.
type asker interface {
	RPO(ctx context.Context, topic string) (subscriber.RPO, error)
}

var _ asker = (*subscriber.Subscriber)(nil)

// refresh sends the requests if they are due. It returns when all are answered or the
// timeout has passed, which cancels them. A concurrent scrape gets the earlier answers.
func (r *rpo) refresh(sources []Source) {
	if !r.due() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.timeout)
	defer cancel()
	var calls sync.WaitGroup
	live := make(map[tunnel]bool)
	for _, s := range sources {
		a, ok := s.(asker)
		if !ok {
			continue
		}
		st := s.Status()
		for _, sub := range st.Subscriptions {
			t := newTunnel(st.Instance, sub.Table, sub.Tunnel)
			if sub.Ended || live[t] {
				continue
			}
			live[t] = true
			calls.Go(func() { // ends with ctx
				rpo, err := a.RPO(ctx, sub.Topic)
				r.note(t, rpo, err)
			})
		}
	}
	calls.Wait()
	r.forget(live)
}

func (r *rpo) due() bool {
	if r.interval == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.asked) >= r.interval {
		r.asked = now
		return true
	}
	return false
}

func (r *rpo) note(t tunnel, answer subscriber.RPO, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.known[t]
	if p == nil {
		p = new(points)
		r.known[t] = p
	}
	if err != nil {
		p.failed++
		return
	}
	p.ok++
	p.RPO = answer
}

// forget drops the answers for tunnels that this process no longer consumes.
func (r *rpo) forget(live map[tunnel]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for t := range r.known {
		if !live[t] {
			delete(r.known, t)
		}
	}
}

func (r *rpo) describe(descs chan<- *prometheus.Desc) {
	descs <- serviceLagDesc
	descs <- serviceRecordsDesc
	descs <- rpoRequestsDesc
}

func (r *rpo) collect(series chan<- prometheus.Metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for t, p := range r.known {
		send := func(desc *prometheus.Desc, kind prometheus.ValueType, v float64, label string) {
			send(series, desc, kind, v, t.instance, t.table, t.tunnel, label)
		}
		send(rpoRequestsDesc, prometheus.CounterValue, float64(p.ok), "ok")
		send(rpoRequestsDesc, prometheus.CounterValue, float64(p.failed), "error")
		for point, at := range map[string]time.Time{"read": p.Read, "committed": p.Committed} {
			if !at.IsZero() {
				send(serviceLagDesc, prometheus.GaugeValue, max(0, now.Sub(at).Seconds()), point)
			}
		}
		if p.ok > 0 {
			send(serviceRecordsDesc, prometheus.CounterValue, float64(p.ReadRecords), "read")
			send(serviceRecordsDesc, prometheus.CounterValue, float64(p.CommittedRecords), "committed")
		}
	}
}
