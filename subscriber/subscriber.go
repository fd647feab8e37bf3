package subscriber

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/closing"
	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

// Subscriber turns Tablestore tunnels into Watermill subscriptions. See the
// package documentation for what it promises. All methods may be called from
// any goroutine.
//
// Invariants:
//   - Once closed is set, no subscription is added.
//   - subscriptions holds every subscription until all of its goroutines but the
//     last have ended; then ended has what is kept of it, under its topic.
type Subscriber struct {
	cfg      Config     // without its secrets: whatever prints a Subscriber shows none
	wantType TunnelType // as configured; empty: any
	logger   watermill.LoggerAdapter
	endpoint *endpoint
	own      *http.Transport // nil when Config.Transport is used

	ctx    context.Context // cancelled by Close: ends the calls of Subscribe and SubscribeInitialize
	cancel context.CancelCauseFunc

	mu            sync.Mutex
	closed        bool
	subscriptions []*subscription
	ended         map[string]*endedSubscriptions
	watches       map[*func()]struct{} // of watchEnds
	starts        map[string]starting  // by topic: those that fail and are tried again

	closing closing.Once // by Close
}

var (
	_ message.Subscriber           = (*Subscriber)(nil)
	_ message.SubscribeInitializer = (*Subscriber)(nil)
)

// New returns a Subscriber. It reports every fault of cfg in one error and does
// not connect yet. A nil logger logs nothing.
func New(cfg Config, logger watermill.LoggerAdapter) (*Subscriber, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if logger == nil {
		logger = watermill.NopLogger{}
	}
	wantType := cfg.Tunnel.Type
	cfg = cfg.withDefaults()
	credentials := cfg.Credentials
	cfg.Credentials, cfg.AccessKeySecret, cfg.SecurityToken = nil, "", ""
	s := &Subscriber{
		cfg: cfg, wantType: wantType,
		logger: logger.With(watermill.LogFields{"provider": "tablestore", "instance": cfg.Instance}),
		ended:  make(map[string]*endedSubscriptions),
	}
	base := cfg.Transport
	if base == nil {
		s.own = service.NewTransport(maxIdle)
		base = pooled{s.own}
	}
	s.endpoint = &endpoint{
		// A trailing slash would make the SDK request //tunnel/.. and sign /tunnel/.. [docs/protocol.md, Paths].
		url:      strings.TrimRight(cfg.Endpoint, "/"),
		instance: cfg.Instance,
		region:   cfg.Region,
		base:     base,
		creds:    service.NewCredentialsCache(credentials, s.logger),
		timeout:  min(max(cfg.HeartbeatTimeout, minCallTimeout), maxCallTimeout),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s, nil
}

// Subscribe connects to the tunnel that topic ("table/tunnel") names and
// returns its messages.
//
// At the start, what cannot succeed fails at once (credentials that are refused, no such
// table or tunnel, a tunnel that has expired or is of another type), and while the service
// is busy, throttles, cannot be reached or does not answer in time, Subscribe tries again
// with backoff, which it logs once, until it succeeds, its context ends or Close is called.
// The error says why, and is ErrAuth, ErrTunnelGone, ErrTunnelExpired or ErrTunnelType for
// errors.Is.
//
// When ctx is cancelled or Close is called the subscription drains: nothing
// more is read or delivered, messages that are out may still be acked for up to
// CloseTimeout, what was acked is committed, the service is told
// that its clients end, and then the channel is closed. It is also closed when
// the tunnel is deleted or expires, and Err tells; and when the tunnel was read to
// its end, as a BaseData tunnel or one with an end is, and Err is nil. RunRouter
// runs a message.Router that tells the difference.
//
// Each Subscribe is a set of tunnel clients of its own: the tunnel's channels
// are shared among all clients of a tunnel, in this process or others.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	sub, err := s.subscribe(ctx, topic, nil)
	if err != nil {
		return nil, err
	}
	return sub.output, nil
}

// Handle is Subscribe and the loop of a message.Router in one, at less than
// half of their cost: it calls h for each message, in a goroutine of its own, with as many
// at once as MaxInFlight and the Ordering allow. Nil acks the message and an
// error nacks it, as does a panic; both are logged. An Ack or Nack by h itself comes first, but
// counts only when h returns. It fails as Subscribe does.
//
// done is closed when the subscription has ended, as the channel of Subscribe
// is, and all calls of h have returned. Calls that go on although their
// message's context has ended are waited for a second longer and then left alone.
//
// That done is closed does not mean that all is well: it is when ctx has ended, and just as well
// when the tunnel was deleted or expired, or was read to its end. Err tells the second from the others,
// and Close whether all that was out could be settled; ask both.
func (s *Subscriber) Handle(ctx context.Context, topic string, h message.NoPublishHandlerFunc) (done <-chan struct{}, err error) {
	if h == nil {
		return nil, fmt.Errorf("handling %s: the handler is nil", topic)
	}
	sub, err := s.subscribe(ctx, topic, h)
	if err != nil {
		return nil, err
	}
	return sub.done, nil
}

// subscribe starts a subscription, with an output if h is nil.
func (s *Subscriber) subscribe(ctx context.Context, topic string, h message.NoPublishHandlerFunc) (sub *subscription, err error) {
	defer func() { s.refused(topic, err) }()
	table, name, err := splitTopic(topic)
	if err != nil {
		return nil, err
	}
	if s.isClosed() {
		return nil, fmt.Errorf("subscribing to %s: %w", topic, ErrClosed)
	}
	startCtx, cancel := s.startContext(ctx)
	defer cancel()
	info, err := s.describe(startCtx, table, name)
	if err != nil {
		return nil, fmt.Errorf("subscribing to %s: %w", topic, s.advise(ctx, err))
	}
	if info.Expired {
		return nil, fmt.Errorf("subscribing to %s: %w%s", topic, ots.ErrTunnelExpired, anewAdvice(ots.ErrTunnelExpired))
	}
	if err := s.checkType(info); err != nil {
		return nil, fmt.Errorf("subscribing to %s: %w", topic, err)
	}
	s.checkTimes(topic, info)
	sub = &subscription{
		cfg: s.cfg, endpoint: s.endpoint,
		logger: s.logger.With(watermill.LogFields{"topic": topic, "tunnel_id": info.TunnelId}),
		topic:  topic, table: table, tunnel: name, tunnelID: info.TunnelId,
		tunnelType: TunnelType(info.TunnelType), tunnelEnd: endOf(info), started: time.Now(),
		ctx: ctx, values: context.WithoutCancel(ctx),
		window: ledger.NewWindow(s.cfg.MaxInFlight, s.cfg.MaxInFlightBytes),
		copies: copies(s.cfg.Unmarshaler),
		output: make(chan *message.Message), handler: h,
		done: make(chan struct{}),
	}
	sub.ended = func() { s.subscriptionEnded(sub) }
	sub.stopping, sub.stop = context.WithCancel(context.Background())
	sub.closeOver, sub.endClose = context.WithCancelCause(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("subscribing to %s: %w", topic, ErrClosed)
	}
	s.begins(topic)
	s.subscriptions = append(s.subscriptions, sub)
	sub.start()
	return sub, nil
}

// SubscribeInitialize implements message.SubscribeInitializer. It is Initialize for at
// most a minute, as it has no context.
func (s *Subscriber) SubscribeInitialize(topic string) error {
	ctx, stop := context.WithTimeoutCause(context.Background(), initializeTimeout, errInitializeTimeout)
	defer stop()
	return s.Initialize(ctx, topic)
}

// Initialize creates the tunnel that topic names, as Config.Tunnel says, unless it
// exists. The table must exist. A tunnel that exists stays as it is; one of another type
// than Config.Tunnel names is an error (ErrTunnelType). It fails at once, and retries
// until ctx ends, as Subscribe does.
func (s *Subscriber) Initialize(ctx context.Context, topic string) (err error) {
	defer func() { s.refused(topic, err) }()
	table, name, err := splitTopic(topic)
	if err != nil {
		return err
	}
	if s.isClosed() {
		return fmt.Errorf("initializing %s: %w", topic, ErrClosed)
	}
	startCtx, cancel := s.startContext(ctx)
	defer cancel()
	info, err := s.describe(startCtx, table, name)
	switch {
	case err == nil:
		err = s.checkType(info)
	case errors.Is(err, ots.ErrTunnelGone):
		err = s.create(startCtx, table, name)
	}
	switch {
	case errors.Is(err, ots.ErrTunnelGone):
		return fmt.Errorf("initializing %s: %w; the table must exist, with a stream, in instance %q", topic, err, s.cfg.Instance)
	case err != nil:
		return fmt.Errorf("initializing %s: %w", topic, s.advise(ctx, err))
	}
	return nil
}

// errInitializeTimeout ends SubscribeInitialize.
var errInitializeTimeout = fmt.Errorf("not within %v: %w", initializeTimeout, context.DeadlineExceeded)

// stream returns the SDK's form of start and end; nil where the service's default is meant.
func (t TunnelSpec) stream() *tunnel.StreamTunnelConfig {
	if t.Start.IsZero() && t.End.IsZero() && !t.Earliest {
		return nil
	}
	c := &tunnel.StreamTunnelConfig{Flag: protocol.StartOffsetFlag_LATEST}
	if t.Earliest {
		c.Flag = protocol.StartOffsetFlag_EARLIEST
	}
	// Offsets are nanoseconds on the wire, and the Go SDK passes them as they are [docs/protocol.md, Start and end of a tunnel].
	if !t.Start.IsZero() {
		c.StartOffset = uint64(t.Start.UnixNano())
	}
	if !t.End.IsZero() {
		c.EndOffset = uint64(t.End.UnixNano())
	}
	return c
}

// Err returns the errors that ended subscriptions, one for each topic: their
// tunnels were deleted (ErrTunnelGone) or expired (ErrTunnelExpired). Nil while
// all is well, and when tunnels were read to their ends. A new subscription to a topic
// takes the error of the one before away.
func (s *Subscriber) Err() error {
	fatal := make(map[string]error)
	s.mu.Lock()
	for topic, e := range s.ended {
		fatal[topic] = e.fatal
	}
	for _, sub := range s.subscriptions {
		if err := sub.fatal(); err != nil {
			fatal[sub.topic] = err
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, topic := range slices.Sorted(maps.Keys(fatal)) {
		errs = append(errs, fatal[topic])
	}
	return errors.Join(errs...)
}

// Close drains all subscriptions, as the end of their contexts does, and
// returns when their output channels are closed and no goroutine is left. It
// takes at most CloseTimeout and five seconds for the last calls to the service,
// whatever does not answer; user code that does not return by then is left alone, and
// the log says so. Messages that were unsettled then give an error that wraps
// ErrDrainTimeout, and acked ones whose checkpoint could not be stored one that wraps
// ErrNotCommitted; both are redelivered to the tunnel's next consumer. Further
// calls wait for the first one and return the same.
func (s *Subscriber) Close() error {
	return s.closing.Do(func() error {
		s.mu.Lock()
		s.closed = true
		subs := slices.Clone(s.subscriptions)
		s.mu.Unlock()
		s.cancel(ErrClosed)
		for _, sub := range subs {
			sub.stop()
		}
		for _, sub := range subs {
			<-sub.done
		}
		s.endpoint.creds.Close(service.CredentialsGrace)
		if s.own != nil {
			s.own.CloseIdleConnections()
		}
		return s.unsettled()
	})
}

// unsettled tells of the messages that drains gave up, and of those that they could not commit.
func (s *Subscriber) unsettled() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, topic := range slices.Sorted(maps.Keys(s.ended)) {
		if n := s.ended[topic].held; n > 0 {
			errs = append(errs, fmt.Errorf("%s: %d %w", topic, n, ErrDrainTimeout))
		}
		if e := s.ended[topic]; e.uncommitted > 0 {
			errs = append(errs, fmt.Errorf("%s: %d %w: %w", topic, e.uncommitted, ErrNotCommitted, e.commitError))
		}
	}
	return errors.Join(errs...)
}

// subscriptionEnded keeps what is to be known of a subscription that has ended.
func (s *Subscriber) subscriptionEnded(sub *subscription) {
	last := sub.status(time.Now())
	last.Ended, last.Connected, last.Draining, last.Trouble, last.View = true, false, false, []Trouble{}, nil
	s.mu.Lock()
	s.subscriptions = slices.DeleteFunc(s.subscriptions, func(o *subscription) bool { return o == sub })
	e := s.ended[sub.topic]
	if e == nil {
		e = new(endedSubscriptions)
		s.ended[sub.topic] = e
	}
	e.add(sub, last)
	watches := slices.Collect(maps.Keys(s.watches))
	s.mu.Unlock()
	for _, f := range watches {
		(*f)()
	}
}

func (s *Subscriber) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// metaTimeout bounds what RPO does at the service.
const metaTimeout = 20 * time.Second

// callContext bounds the calls of a method: by ctx, by Close and in time.
func (s *Subscriber) callContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, metaTimeout)
	ctx, end := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(s.ctx, func() { end(ErrClosed) })
	return ctx, func() { unlink(); end(nil); cancel() }
}

// advise adds to an error what can be done about it. A call that ended because ctx,
// the caller's context, was cancelled or because of Close needs no advice.
func (s *Subscriber) advise(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) || s.ctx.Err() != nil || errors.Is(err, ErrTunnelType) {
		return err
	}
	switch classify(err) {
	case auth:
		return fmt.Errorf("%w; check Config.AccessKeyID, AccessKeySecret and SecurityToken (or Config.Credentials)%s, and that the key may use instance %q", err, s.regionAdvice(), s.cfg.Instance)
	case fatal:
		if errors.Is(err, ots.ErrTunnelGone) {
			return fmt.Errorf("%w; check the topic (table/tunnel) and Config.Instance, or create the tunnel with SubscribeInitialize", err)
		}
	case retry:
		return fmt.Errorf("%w; check Config.Endpoint (%s) and that it can be reached from here", err, s.cfg.Endpoint)
	}
	return err
}
