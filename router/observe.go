package router

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Observers are callbacks for metrics and health checks. All are optional. A panic
// of one does not affect messages: it is logged with its stack, at most once a minute.
// With package metrics:
//
//	err := r.Observe(router.Observers{OnAck: m.OnAck(), OnBatch: m.OnBatch, Start: func(pipelines []router.Observed) error {
//		for _, p := range pipelines {
//			m.AddSubscriber(p.Subscriber)
//			m.AddCheck(p.Name, p.Ready)
//			if p.Batching != nil {
//				m.AddBatching(p.Name, p.Batching)
//			}
//		}
//		return nil
//	}})
type Observers struct {
	// Start is called by Run once, with all pipelines that run, sorted by name, before
	// anything is connected. An error ends Run with it, and so does a panic, as an
	// *ack.PanicError.
	Start func(pipelines []Observed) error

	// OnAck is subscriber.Config.OnAck of all pipelines.
	OnAck func(subscriber.Acked)

	// OnBatch is called by Observe for each pipeline that has batchers, and returns
	// its batching.Config.OnBatch. A panic is the error of Observe, an *ack.PanicError.
	OnBatch func(pipeline string) func(batching.Handled)
}

// Observed is a pipeline for observers: they may call Status and Stats at any time,
// and must not close anything.
type Observed struct {
	Name       string
	Subscriber *subscriber.Subscriber
	Batching   *batching.Batching // nil without batchers

	pipeline  *pipeline
	recreates bool // on_gap: recreate
}

// Ready returns nil while the pipeline works, and otherwise why it does not: it is
// not subscribed yet, or its tunnel is being recreated; nothing succeeds in Process (the
// error is a *batching.Outage); or the pipeline has ended alone. Batchers that are down
// show in Batching.Stats. Pass it to health.AddCheck and metrics.AddCheck.
func (o Observed) Ready() error {
	if o.pipeline == nil {
		return nil
	}
	if err := o.pipeline.ended(); err != nil {
		return err
	}
	if o.pipeline.waits.Load() {
		return errors.New("not subscribed to its tunnel yet; the log and the subscriber's Status say why")
	}
	if o.recreates {
		for _, sub := range o.Subscriber.Status().Subscriptions {
			for _, t := range sub.Trouble {
				if t.Op == "recreate" {
					return fmt.Errorf("%s: %s", sub.Topic, t)
				}
			}
		}
	}
	if outage := o.pipeline.gate.state(); outage != nil {
		return fmt.Errorf("process: %w", outage)
	}
	return nil
}

// Observe sets the observers. It may be called once, before Run. Messages of Test are
// not observed.
func (r *Router) Observe(o Observers) error {
	onBatch := make(map[string]func(batching.Handled))
	for _, name := range r.cfg.enabled() {
		if o.OnBatch == nil || len(r.cfg.Tunnels[name].Batchers) == 0 {
			continue
		}
		err := r.observer("Observers.OnBatch", func() error {
			onBatch[name] = o.OnBatch(name)
			return nil
		})
		if err != nil {
			return fmt.Errorf("observing the batches of %s: %w", keypath.Join("tunnels", name), err)
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

// Subscriber returns the subscriber of a tunnel's pipeline, for its Status or RPO; the
// Router closes it. It is available once Running is closed, also after the end of Run.
// Subscriber returns false before, for a disabled pipeline, and for a name that is not in
// the configuration. Observers.Start gets it earlier, before anything is connected.
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

// Batching returns the batches of a tunnel's pipeline, for their Stats; the Router
// closes them. It is available when Subscriber is. Batching also returns false for a
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

// startObservers calls Observers.Start.
func (r *Router) startObservers(subs []*subscription) error {
	r.mu.Lock()
	start := r.observers.Start
	pipelines := make([]Observed, len(subs))
	for i, s := range subs {
		pipelines[i] = Observed{Name: s.name, Subscriber: s.subscriber, Batching: s.pipeline.batches, pipeline: s.pipeline, recreates: r.cfg.Tunnels[s.name].recreates()}
	}
	r.mu.Unlock()
	if start == nil {
		return nil
	}
	if err := r.observer("Observers.Start", func() error { return start(pipelines) }); err != nil {
		return fmt.Errorf("starting the observers: %w", err)
	}
	return nil
}

// observer calls an observer that returns an error, and turns a panic into its error. It logs
// the panic for the stack, which the error does not show.
func (r *Router) observer(name string, call func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			panicked := ack.NewPanicError(name, v)
			logPanic(r.logger, panicked, nil)
			err = panicked
		}
	}()
	return call()
}

// onAck returns Observers.OnAck for the subscribers, nil without one. The caller
// holds mu.
func (r *Router) onAck() func(subscriber.Acked) {
	f := r.observers.OnAck
	if f == nil {
		return nil
	}
	return func(a subscriber.Acked) {
		defer r.ackPanics.contain(r.logger, "Observers.OnAck")
		f(a)
	}
}

// panicLog logs the panics of a callback that is called for each message: at most one in
// each panicLogInterval, with the number of panics that were not logged before it.
type panicLog struct {
	mu     sync.Mutex
	last   time.Time // when a panic was last logged
	hidden int       // panics since then
}

const panicLogInterval = time.Minute

// contain recovers and logs a panic. It must be deferred.
func (l *panicLog) contain(logger watermill.LoggerAdapter, name string) {
	v := recover()
	if v == nil {
		return
	}
	l.mu.Lock()
	now := time.Now()
	due, hidden := l.last.IsZero() || now.Sub(l.last) >= panicLogInterval, l.hidden
	if due {
		l.last, l.hidden = now, 0
	} else {
		l.hidden++
	}
	l.mu.Unlock()
	if due {
		logPanic(logger, ack.NewPanicError(name, v), watermill.LogFields{"not_logged": hidden})
	}
}

// logPanic logs a panic of the user's code with its stack.
func logPanic(logger watermill.LoggerAdapter, panicked *ack.PanicError, fields watermill.LogFields) {
	logger.Error("Observer panicked", panicked, fields.Add(watermill.LogFields{"stack": string(panicked.Stack)}))
}
