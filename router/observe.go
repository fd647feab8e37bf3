package router

import (
	"fmt"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Observers watch the pipelines, for metrics and health checks. All are
// optional. With package metrics:
//
//	err := r.Observe(router.Observers{OnAck: m.OnAck(), OnBatch: m.OnBatch, Start: func(pipelines []router.Observed) error {
//		for _, p := range pipelines {
//			m.AddSubscriber(p.Subscriber)
//			if p.Batching != nil {
//				m.AddBatching(p.Name, p.Batching)
//			}
//		}
//		return nil
//	}})
type Observers struct {
	// Start is called by Run once, with all pipelines sorted by name, before
	// anything is connected. An error ends Run with it.
	Start func(pipelines []Observed) error

	// OnAck is subscriber.Config.OnAck of all pipelines.
	OnAck func(subscriber.Acked)

	// OnBatch is called by Observe for each pipeline that has batchers, and returns
	// its batching.Config.OnBatch.
	OnBatch func(pipeline string) func(batching.Handled)
}

// Observed is a pipeline as observers see it: they may ask for Status and Stats
// at any time, and must not close anything.
type Observed struct {
	Name       string
	Subscriber *subscriber.Subscriber
	Batching   *batching.Batching // nil without batchers
}

// Observe sets the observers. It may be called once, before Run. What Test sends
// through a pipeline is not observed.
func (r *Router) Observe(o Observers) error {
	onBatch := make(map[string]func(batching.Handled))
	for _, name := range names(r.cfg.Tunnels) {
		if o.OnBatch != nil && len(r.cfg.Tunnels[name].Batchers) > 0 {
			onBatch[name] = o.OnBatch(name)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.configurable("Observe"); err != nil {
		return err
	}
	if r.observed {
		return fmt.Errorf("%w: Observe is called twice", ErrInvalidConfig)
	}
	r.observed, r.observers, r.onBatch = true, o, onBatch
	return nil
}

// Subscriber returns the subscriber of a tunnel's pipeline, to ask it for Status or
// RPO; the Router closes it. It is there from when Running is closed on, after the end of
// Run too, and false before and for a name that the configuration does not have.
// Observe shows it earlier, before anything is connected.
func (r *Router) Subscriber(tunnel string) (*subscriber.Subscriber, bool) {
	select {
	case <-r.running:
	default:
		return nil, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	sub, ok := r.subscribers[tunnel]
	return sub, ok
}

// Batching returns the batches of a tunnel's pipeline, to ask for their Stats; the
// Router closes them. It is there as long as Subscriber is, and false also for a
// pipeline without batchers.
func (r *Router) Batching(tunnel string) (*batching.Batching, bool) {
	if _, ok := r.Subscriber(tunnel); !ok {
		return nil, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	batches := r.pipelines[tunnel].batches
	return batches, batches != nil
}

// tellStart calls Observers.Start.
func (r *Router) tellStart(subs []*subscription) error {
	r.mu.Lock()
	start := r.observers.Start
	pipelines := make([]Observed, len(subs))
	for i, s := range subs {
		pipelines[i] = Observed{Name: s.name, Subscriber: s.subscriber, Batching: r.pipelines[s.name].batches}
	}
	r.mu.Unlock()
	if start == nil {
		return nil
	}
	if err := start(pipelines); err != nil {
		return fmt.Errorf("starting the observers: %w", err)
	}
	return nil
}
