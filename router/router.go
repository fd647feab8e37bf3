package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/internal/closing"
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

const (
	// closeGrace is how long batches may still run when no handler waits for them any longer.
	closeGrace = time.Second

	// lastCalls is the time that a drain needs beyond the handlers' close_timeout, for the
	// last checkpoints and for ending the clients at the service.
	lastCalls = 10 * time.Second
)

// Router runs the pipelines of a Config. Its lifecycle is
//
//	New ─▶ Handle, AddMiddleware, Register..., Observe ─▶ Run ─▶ (context ends, or Close) ─▶ drained
//
// All methods are safe for concurrent use; those of the second step must not be
// called after Run.
//
// Invariants:
//   - cfg has been checked and does not change.
//   - Once begun is set, handlers, middlewares, observers and registrations do not change.
//   - stopping is closed before any subscription begins to drain, so that failures
//     caused by the shutdown are recognized.
type Router struct {
	cfg        Config
	logger     watermill.LoggerAdapter
	watermill  *message.Router              // runs the pipelines if asked is set
	transports map[string]http.RoundTripper // by name of the instance

	closeTimeout time.Duration // the longest of all pipelines

	running  chan struct{}   // closed when all pipelines are subscribed, or have ended
	stopping <-chan struct{} // closed by stop
	stops    context.Context // ends by stop; the contexts of the pipelines derive from it
	stop     context.CancelFunc

	mu          sync.Mutex // guards what follows
	asked       bool       // Watermill was called
	begun       bool       // Run, Replay or Test was called
	ran         bool       // Run was called
	handlers    map[string]Handlers
	middlewares []message.HandlerMiddleware
	publishers  map[string]message.Publisher
	payloads    map[string]ots.Unmarshaler
	credentials map[string]ots.CredentialsProvider
	letterKeys  map[string]*service.CredentialsCache // for dead-letter tables, by instance; created when first needed
	observed    bool                                 // Observe was called
	observers   Observers
	onBatch     map[string]func(batching.Handled) // by tunnel
	ackPanics   panicLog                          // has a lock of its own
	pipelines   map[string]*pipeline
	subscribers map[string]*subscriber.Subscriber // of Run, by tunnel; once running is closed it does not change

	patience      time.Duration // startPatience
	recreatePause time.Duration // the constant

	connecting sync.WaitGroup // goroutines of subscribe; end waits
	ending     sync.WaitGroup // goroutines that drain pipelines whose brake tripped; end waits
	following  sync.WaitGroup // goroutines of follow; end waits

	uses  closing.Uses // Replay and Test; closed when Close is called or Run ends
	ended closing.Once // by Run, or by Close without it
}

// New checks cfg and returns a Router for it. It neither connects nor starts
// anything. The error is a *ConfigError with all faults; one is that all pipelines
// are disabled. A nil logger logs nothing.
func New(cfg Config, logger watermill.LoggerAdapter) (*Router, error) {
	if logger == nil {
		logger = watermill.NopLogger{}
	}
	faults := check(cfg)
	if len(cfg.Tunnels) > 0 && len(cfg.enabled()) == 0 {
		faults = append(faults, Fault{Path: "tunnels", Text: allDisabled})
	}
	for i, f := range faults {
		faults[i] = cfg.locate(f)
	}
	if err := configError(faults); err != nil {
		return nil, err
	}
	var closeTimeout time.Duration
	for _, name := range cfg.enabled() {
		closeTimeout = max(closeTimeout, cmp.Or(cfg.Tunnels[name].CloseTimeout, subscriber.DefaultCloseTimeout))
	}
	wm, err := message.NewRouter(message.RouterConfig{CloseTimeout: closeTimeout + lastCalls}, logger)
	if err != nil {
		return nil, fmt.Errorf("creating the watermill router: %w", err)
	}
	r := &Router{
		cfg: cfg, logger: logger, watermill: wm, closeTimeout: closeTimeout,
		transports:    make(map[string]http.RoundTripper, len(cfg.Instances)),
		running:       make(chan struct{}),
		handlers:      make(map[string]Handlers),
		publishers:    make(map[string]message.Publisher),
		payloads:      formats(),
		credentials:   make(map[string]ots.CredentialsProvider),
		pipelines:     make(map[string]*pipeline),
		patience:      startPatience,
		recreatePause: recreatePause,
	}
	r.stops, r.stop = context.WithCancel(context.Background())
	r.stopping = r.stops.Done()
	for name, in := range cfg.Instances {
		r.transports[name] = newTransport(in)
		if in.Debug {
			r.transports[name] = &requestLog{base: r.transports[name], logger: logger.With(watermill.LogFields{"instance": in.Name})}
		}
	}
	return r, nil
}

// Handle sets the code of a pipeline. Every pipeline needs it, once, except one whose
// messages all go to publishers. The error, a *ConfigError, lists the names of handlers
// and batchers that do not match. A disabled pipeline may have handlers too: Run does not
// use them, Test and Replay do.
func (r *Router) Handle(tunnel string, h Handlers) error {
	t, ok := r.cfg.Tunnels[tunnel]
	if !ok {
		return r.unknownTunnel("Handle", tunnel)
	}
	if err := r.faulty(h.check(tunnel, t)...); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.configurable("Handle"); err != nil {
		return err
	}
	if _, twice := r.handlers[tunnel]; twice {
		return r.faulty(Fault{Path: keypath.Join("tunnels", tunnel), Text: "Handle is called twice for this tunnel"})
	}
	r.handlers[tunnel] = h
	return nil
}

// AddMiddleware adds Watermill middlewares around all pipelines. The first one is the
// outermost. Only the failure policy is outside of them, so it sees the outcome after,
// for example, a Retry. AddMiddleware panics after Run, when a middleware would have no
// effect, and for a nil middleware.
func (r *Router) AddMiddleware(m ...message.HandlerMiddleware) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.configurable("AddMiddleware"); err != nil {
		panic(err)
	}
	if slices.ContainsFunc(m, func(m message.HandlerMiddleware) bool { return m == nil }) {
		panic(fmt.Errorf("AddMiddleware: %w: a middleware is nil", ErrInvalidConfig))
	}
	r.middlewares = append(r.middlewares, m...)
}

// RegisterPublisher gives a publisher the name by which forward and dead_letter
// know it. The Router does not close it.
//
// A publisher with a method MaxPayloadBytes() int that returns more than 0, such as
// package publisher's, takes messages up to that size only. Dead letters may be larger:
// Run and Replay refuse it as their target.
func (r *Router) RegisterPublisher(name string, pub message.Publisher) error {
	return register(r, "publisher", name, r.publishers, pub, pub == nil)
}

// formats returns the payload formats that have names from the start.
func formats() map[string]ots.Unmarshaler {
	return map[string]ots.Unmarshaler{
		DefaultPayload:          subscriber.JSON{},
		"cloudevents":           subscriber.CloudEvents{},
		"cloudevents-binary":    subscriber.CloudEvents{Binary: true},
		"debezium":              subscriber.Debezium{},
		"function-compute":      subscriber.FunctionCompute{},
		"function-compute-json": subscriber.FunctionCompute{JSON: true},
		"canal":                 subscriber.Canal{},
		"raw":                   subscriber.Raw{},
		"none":                  subscriber.None{},
	}
}

// RegisterPayload gives an Unmarshaler the name by which payload knows it. The
// names json, cloudevents, cloudevents-binary, debezium, canal, function-compute, function-compute-json, raw and none are taken.
func (r *Router) RegisterPayload(name string, u ots.Unmarshaler) error {
	return register(r, "payload format", name, r.payloads, u, u == nil)
}

// RegisterCredentials gives a provider the name by which an instance's
// credentials know it.
func (r *Router) RegisterCredentials(name string, p ots.CredentialsProvider) error {
	return register[ots.CredentialsProvider](r, "credentials provider", name, r.credentials, newSerialCredentials(p), p == nil)
}

func register[V any](r *Router, kind, name string, into map[string]V, v V, isNil bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.configurable("registering " + kind + " " + name); err != nil {
		return err
	}
	if isNil {
		return fmt.Errorf("%w: %s %q is nil", ErrInvalidConfig, kind, name)
	}
	if _, twice := into[name]; twice {
		return fmt.Errorf("%w: %s %q is registered already", ErrInvalidConfig, kind, name)
	}
	into[name] = v
	return nil
}

// configurable needs mu. It returns an error once the Router accepts no more handlers.
func (r *Router) configurable(what string) error {
	if r.uses.Closed() {
		return fmt.Errorf("%s: %w", what, ErrClosed)
	}
	if r.begun {
		return fmt.Errorf("%s: %w: the router runs already", what, ErrInvalidConfig)
	}
	return nil
}

// faulty returns an error with the faults and their lines.
func (r *Router) faulty(faults ...Fault) error {
	for i, f := range faults {
		faults[i] = r.cfg.locate(f)
	}
	return configError(faults)
}

// Running returns a channel that is closed when all pipelines are subscribed, except those
// that have ended already, and those that cannot reach the service for 10 seconds, which
// join later. It stays open if all have ended.
func (r *Router) Running() chan struct{} { return r.running }

// Watermill returns a message.Router that will run the pipelines, for plugins,
// decorators, metrics and further handlers. Middlewares added to it are around
// everything, including the failure policy. Call Watermill before Run.
//
// Without a call of Watermill the Router calls its pipelines directly, which costs about
// half as much per message. Only middlewares notice that ask Watermill for the names of
// handler, topic, subscriber or publisher (such as HandlerNameFromCtx): only a
// message.Router sets them.
func (r *Router) Watermill() *message.Router {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = true
	return r.watermill
}

// Run connects all enabled pipelines and handles their messages until ctx ends or Close
// is called. Then it drains: it stops reading, handles open batches at once, lets messages
// in flight finish for up to close_timeout, commits what was acked, and ends the clients at
// the service.
//
// A pipeline whose tunnel is gone or expired, at the start or later, ends alone, unless
// tunnel.create recreates the tunnel; so does one that exceeds failure.stop_after. The
// log, the subscriber's Status, Observed.Ready and the metrics show it at once. The others
// keep running, unless on_end says stop. A pipeline whose tunnel was read to its end, as a
// BaseData tunnel is, is done.
//
// Run returns when all pipelines have ended, and the further handlers of Watermill, if
// there are any. It returns nil after a clean drain, when all tunnels were read to their
// ends, and when it is stopped while it connects; otherwise the errors that ended pipelines
// and the messages that the drain left unsettled. Run fails at once, and nothing runs, if a
// tunnel has no handlers or a registered name is missing (*ConfigError), and if a tunnel
// cannot be subscribed to for another reason than that it is gone. A pipeline that is not
// subscribed within 10 seconds, because its service cannot be reached, does not hold up
// the others: it joins later, or ends alone. Run can be called once.
func (r *Router) Run(ctx context.Context) error {
	if err := r.beginRun(); err != nil {
		return err
	}
	return r.ended.Do(func() error { return r.run(ctx) })
}

func (r *Router) beginRun() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.uses.Closed() {
		return fmt.Errorf("run: %w", ErrClosed)
	}
	if r.ran {
		return errors.New("run: the router was run before; create another one")
	}
	r.begun, r.ran = true, true
	return nil
}

// run is Run, once.
func (r *Router) run(ctx context.Context) (err error) {
	// The end of ctx reaches the subscriptions only through stop, so that a drain never
	// begins before stopping is closed.
	unlink := context.AfterFunc(ctx, r.stop)
	defer unlink()
	ctx, cancel := r.bound(context.WithoutCancel(ctx))
	defer cancel()

	defer func() { err = errors.Join(err, r.release()) }()
	if off := r.cfg.disabled(); len(off) > 0 {
		r.logger.Info("Some pipelines are disabled; they do not run", watermill.LogFields{"tunnels": off})
	}
	if err := r.assemble(); err != nil {
		return err
	}
	if err := r.prepareLetters(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	loop := r.handleAll
	if r.asked {
		loop = r.runWatermill
	}
	r.mu.Unlock()
	return loop(ctx)
}

// bound returns a context that ends with ctx and when the Router stops.
func (r *Router) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() { // ends with the returned cancel, which waits for it
		defer close(ended)
		select {
		case <-r.stopping:
			cancel(ErrClosed)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled); <-ended }
}

// unlessStopping returns err, or nil if err only says that the Router stops.
func (r *Router) unlessStopping(err error) error {
	select {
	case <-r.stopping:
		if errors.Is(err, ErrClosed) || errors.Is(err, subscriber.ErrClosed) || errors.Is(err, context.Canceled) {
			return nil
		}
	default:
	}
	return err
}

// Close drains as the end of Run's context does, waits for the end of Run and returns
// its error. It takes at most the longest close_timeout and some seconds for the last
// calls to the service. Without Run it releases what Replay or Test used. Close may be
// called several times, from any goroutine but a handler's.
func (r *Router) Close() error {
	r.uses.Close()
	r.stop()
	return r.ended.Do(r.release) // which Run has called, if there was a Run
}

// use begins a use of the Router outside of Run. The Router is not released
// before the returned function is called.
func (r *Router) use(what string) (done func(), err error) {
	if !r.uses.Begin() {
		return nil, fmt.Errorf("%s: %w", what, ErrClosed)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun = true
	return r.uses.End, nil
}

// release closes what the pipelines and the Router hold.
func (r *Router) release() error {
	unused := r.uses.Close()
	r.stop()
	var errs []error
	if !closing.Within(r.closeTimeout, unused) {
		errs = append(errs, fmt.Errorf("closing the router: a Replay or Test is still busy after %v", r.closeTimeout))
	}
	r.mu.Lock()
	pipelines := r.pipelines
	r.mu.Unlock()
	for _, name := range names(pipelines) {
		errs = append(errs, pipelines[name].close())
	}
	r.mu.Lock()
	keys := slices.Collect(maps.Values(r.letterKeys))
	r.mu.Unlock()
	for _, k := range keys {
		k.Close(service.CredentialsGrace)
	}
	for _, t := range r.transports {
		if c, ok := t.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
		}
	}
	return errors.Join(errs...)
}
