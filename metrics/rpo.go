package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

var (
	serviceLagDesc     = newDesc("service_lag_seconds", "Age of the point up to which the service saw the tunnel's channels read or committed, by all of its consumers; none while base data are read.", tunnelLabels, "point")
	serviceRecordsDesc = newDesc("service_records_total", "Records that the service saw read or committed over the tunnel's life.", tunnelLabels, "point")
	rpoRequestsDesc    = newDesc("rpo_requests_total", "Questions to the service how far a tunnel is, by result: ok, error.", tunnelLabels, "result")
)

// rpo asks the service how far the tunnels are, when a scrape comes and it is
// time. No goroutine outlives the scrape.
type rpo struct {
	interval, timeout time.Duration // interval 0: it never asks

	mu    sync.Mutex // guards what follows; held over no call
	asked time.Time
	known map[tunnel]*points
}

// points is what is known of a tunnel.
type points struct {
	subscriber.RPO // the last answer
	ok, failed     uint64
}

// asker is a Source that can ask the service.
type asker interface {
	RPO(ctx context.Context, topic string) (subscriber.RPO, error)
}

var _ asker = (*subscriber.Subscriber)(nil)

// refresh asks again if it is time. It returns when all answers are there or the
// timeout is over, which ends the calls. A scrape that comes meanwhile gets what is known.
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

// forget drops the answers about tunnels that are not consumed here any more.
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
