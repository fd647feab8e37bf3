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

	"github.com/watermill-ots/watermill-ots/ack"
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
	cfg      Config
	logger   watermill.LoggerAdapter
	endpoint *endpoint
	own      *http.Transport // nil when Config.Transport is used

	ctx    context.Context // cancelled by Close: ends the calls of Subscribe and SubscribeInitialize
	cancel context.CancelCauseFunc

	mu            sync.Mutex
	closed        bool
	subscriptions []*subscription
	ended         map[string]*endedSubscriptions

	closeOnce sync.Once
	closeErr  error
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
	cfg = cfg.withDefaults()
	s := &Subscriber{
		cfg:    cfg,
		logger: logger.With(watermill.LogFields{"provider": "tablestore", "instance": cfg.Instance}),
		ended:  make(map[string]*endedSubscriptions),
	}
	base := cfg.Transport
	if base == nil {
		s.own = newTransport()
		base = s.own
	}
	s.endpoint = &endpoint{
		// A trailing slash would make the SDK request //tunnel/.. and sign /tunnel/.. [facts 1.3].
		url:      strings.TrimRight(cfg.Endpoint, "/"),
		instance: cfg.Instance,
		base:     base,
		creds:    newCredentialsCache(cfg.Credentials, s.logger),
		timeout:  min(max(cfg.HeartbeatTimeout, minCallTimeout), maxCallTimeout),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s, nil
}

// Subscribe connects to the tunnel that topic ("table/tunnel") names and
// returns its messages. It fails at once, with one error that says why, when the
// service cannot be reached, refuses the credentials (ErrAuth), or does not
// know the table or the tunnel (ErrTunnelGone).
//
// When ctx is cancelled or Close is called the subscription drains: nothing
// more is read or delivered, messages that are out may still be acked for up to
// CloseTimeout, what was acked is committed, the service is told
// that its clients end, and then the channel is closed. It is also closed when
// the tunnel is deleted or expires; Err tells.
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
func (s *Subscriber) subscribe(ctx context.Context, topic string, h message.NoPublishHandlerFunc) (*subscription, error) {
	table, name, err := splitTopic(topic)
	if err != nil {
		return nil, err
	}
	if s.isClosed() {
		return nil, fmt.Errorf("subscribing to %s: %w", topic, ErrClosed)
	}
	callCtx, cancel := s.callContext(ctx)
	defer cancel()
	info, err := s.describe(callCtx, table, name)
	if err != nil {
		return nil, fmt.Errorf("subscribing to %s: %w", topic, s.advise(err))
	}
	if info.Expired {
		return nil, fmt.Errorf("subscribing to %s: %w", topic, ErrTunnelExpired)
	}
	sub := &subscription{
		cfg: s.cfg, endpoint: s.endpoint,
		logger: s.logger.With(watermill.LogFields{"topic": topic, "tunnel_id": info.TunnelId}),
		topic:  topic, table: table, tunnel: name, tunnelID: info.TunnelId,
		tunnelType: TunnelType(info.TunnelType), started: time.Now(),
		ctx: ctx, values: context.WithoutCancel(ctx),
		window: ack.NewWindow(s.cfg.MaxInFlight, s.cfg.MaxInFlightBytes),
		copies: copies(s.cfg.Unmarshaler),
		output: make(chan *message.Message), handler: h,
		done: make(chan struct{}),
	}
	sub.ended = func() { s.subscriptionEnded(sub) }
	sub.stopping, sub.stop = context.WithCancel(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("subscribing to %s: %w", topic, ErrClosed)
	}
	s.subscriptions = append(s.subscriptions, sub)
	sub.start()
	return sub, nil
}

// SubscribeInitialize creates the tunnel that topic names, as Config.Tunnel
// says, unless it exists. The table must exist.
func (s *Subscriber) SubscribeInitialize(topic string) error {
	table, name, err := splitTopic(topic)
	if err != nil {
		return err
	}
	if s.isClosed() {
		return fmt.Errorf("initializing %s: %w", topic, ErrClosed)
	}
	ctx, cancel := s.callContext(context.Background())
	defer cancel()
	_, err = s.describe(ctx, table, name)
	if err == nil {
		return nil
	}
	if !errors.Is(err, ErrTunnelGone) {
		return fmt.Errorf("initializing %s: %w", topic, s.advise(err))
	}
	err = s.endpoint.call(ctx, "create", func(api *tunnel.TunnelApi) error {
		_, err := api.CreateTunnel(&tunnel.CreateTunnelRequest{
			TableName: table, TunnelName: name,
			Type: tunnel.TunnelType(s.cfg.Tunnel.Type), StreamTunnelConfig: s.cfg.Tunnel.stream(),
		})
		return err
	})
	var se *ServiceError
	if errors.As(err, &se) && se.Code == tunnel.ErrCodeTunnelExist { // somebody was faster
		return nil
	}
	if err != nil {
		return fmt.Errorf("initializing %s: %w", topic, s.advise(err))
	}
	return nil
}

// stream returns the SDK's form of start and end; nil where the service's default is meant.
func (t TunnelSpec) stream() *tunnel.StreamTunnelConfig {
	if t.Start.IsZero() && t.End.IsZero() && !t.Earliest {
		return nil
	}
	c := &tunnel.StreamTunnelConfig{Flag: protocol.StartOffsetFlag_LATEST}
	if t.Earliest {
		c.Flag = protocol.StartOffsetFlag_EARLIEST
	}
	// Offsets are nanoseconds on the wire, and the Go SDK passes them as they are [facts 4.7].
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
// all is well.
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
// takes at most CloseTimeout and the few seconds of the last calls to the
// service. Messages that were unsettled then give an error that wraps
// ErrDrainTimeout; they are redelivered to the tunnel's next consumer. Further
// calls wait for the first one and return the same.
func (s *Subscriber) Close() error {
	s.closeOnce.Do(func() {
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
		if s.own != nil {
			s.own.CloseIdleConnections()
		}
		s.closeErr = s.unsettled()
	})
	return s.closeErr
}

// unsettled tells of the messages that drains gave up.
func (s *Subscriber) unsettled() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, topic := range slices.Sorted(maps.Keys(s.ended)) {
		if n := s.ended[topic].held; n > 0 {
			errs = append(errs, fmt.Errorf("%s: %d %w", topic, n, ErrDrainTimeout))
		}
	}
	return errors.Join(errs...)
}

// subscriptionEnded keeps what is to be known of a subscription that has ended.
func (s *Subscriber) subscriptionEnded(sub *subscription) {
	last := sub.status(time.Now())
	last.Ended, last.Connected, last.Draining = true, false, false
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscriptions = slices.DeleteFunc(s.subscriptions, func(o *subscription) bool { return o == sub })
	e := s.ended[sub.topic]
	if e == nil {
		e = new(endedSubscriptions)
		s.ended[sub.topic] = e
	}
	e.add(sub, last)
}

func (s *Subscriber) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

const (
	// metaTimeout bounds what Subscribe and SubscribeInitialize do at the service.
	metaTimeout = 20 * time.Second
	// metaTries is how often a call of theirs is tried when it fails in a way that passes.
	metaTries = 3
)

// callContext bounds the calls of a method: by ctx, by Close and in time.
func (s *Subscriber) callContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, metaTimeout)
	ctx, end := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(s.ctx, func() { end(ErrClosed) })
	return ctx, func() { unlink(); end(nil); cancel() }
}

// describe looks a tunnel up.
func (s *Subscriber) describe(ctx context.Context, table, name string) (*tunnel.TunnelInfo, error) {
	pauses := s.cfg.ReadBackoff()
	for try := 1; ; try++ {
		var info *tunnel.TunnelInfo
		err := s.endpoint.call(ctx, "describe", func(api *tunnel.TunnelApi) error {
			resp, err := api.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: table, TunnelName: name})
			if err == nil {
				info = resp.Tunnel
			}
			return err
		})
		if c := classify(err); err == nil || c != retry && c != throttled || try == metaTries {
			return info, err
		}
		timer := time.NewTimer(nextPause(pauses))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
	}
}

// advise adds to an error what can be done about it.
func (s *Subscriber) advise(err error) error {
	switch classify(err) {
	case auth:
		return fmt.Errorf("%w; check Config.AccessKeyID, AccessKeySecret and SecurityToken (or Config.Credentials), and that the key may use instance %q", err, s.cfg.Instance)
	case fatal:
		if errors.Is(err, ErrTunnelGone) {
			return fmt.Errorf("%w; check the topic (table/tunnel) and Config.Instance, or create the tunnel with SubscribeInitialize", err)
		}
	case retry:
		return fmt.Errorf("%w; check Config.Endpoint (%s) and that it can be reached from here", err, s.cfg.Endpoint)
	}
	return err
}
