package subscriber

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/internal/closing"
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// Subscriber turns Tablestore tunnels into Watermill subscriptions. See the
// package documentation for what it promises. All methods may be called from
// any goroutine.
//
// Invariants:
//   - Once closed is set, no subscription is added.
//   - subscriptions holds every subscription until all of its goroutines but the
//     last have ended; then ended has what is kept of it, under its topic.
//   - all holds every series until its output is closed. recreations holds those that have no
//     subscription because their tunnel is being recreated.
type Subscriber struct {
	cfg      Config     // without its secrets: whatever prints a Subscriber shows none
	wantType TunnelType // as configured; empty: any
	logger   watermill.LoggerAdapter
	endpoint *tunnelapi.Client
	own      *http.Transport // nil when Config.Transport is used

	ctx    context.Context // cancelled by Close: ends the calls of Subscribe and SubscribeInitialize
	cancel context.CancelCauseFunc

	mu            sync.Mutex
	closed        bool
	subscriptions []*subscription
	ended         map[string]*endedSubscriptions
	watches       map[*func()]struct{} // of watchEnds
	starts        map[string]starting  // by topic: those that fail and are retried
	all           map[*series]struct{}
	recreations   map[*series]starting

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
		all:    make(map[*series]struct{}), recreations: make(map[*series]starting),
	}
	base := cfg.Transport
	if base == nil {
		s.own = service.NewTransport(maxIdle)
		base = pooled{s.own}
	}
	s.endpoint = &tunnelapi.Client{
		// A trailing slash would make the SDK request //tunnel/.. and sign /tunnel/.. [docs/protocol.md, Paths].
		URL:      strings.TrimRight(cfg.Endpoint, "/"),
		Instance: cfg.Instance,
		Region:   cfg.Region,
		Base:     base,
		Creds:    service.NewCredentialsCache(credentials, s.logger),
		Timeout:  min(max(cfg.HeartbeatTimeout, minCallTimeout), maxCallTimeout),
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	if _, rows := cfg.Unmarshaler.(interface{ showsRows() }); rows && cfg.Lookup == LookupNone && wantType != BaseData {
		s.logger.Info("Consumers of this payload format expect whole rows, and updates tell only what changed: set Config.Lookup (lookup: updates), unless rows are only put and deleted", watermill.LogFields{"unmarshaler": fmt.Sprintf("%T", cfg.Unmarshaler)})
	}
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
// CloseTimeout, what was acked is committed, the service learns
// that its clients end, and then the channel is closed. It is also closed when
// the tunnel is deleted or expires, or changes are lost, unless OnGapRecreate heals
// that, and Err tells; and when the tunnel was read to
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
// is, and all calls of h have returned. Calls that still run although their
// message's context has ended are waited for a second longer, and then no more.
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

// subscribe starts a series, with an output if h is nil.
func (s *Subscriber) subscribe(ctx context.Context, topic string, h message.NoPublishHandlerFunc) (sub *series, err error) {
	defer func() { s.refused(topic, err) }()
	table, name, err := splitTopic(topic)
	if err != nil {
		return nil, err
	}
	if s.isClosed() {
		return nil, fmt.Errorf("subscribing to %s: %w", topic, ErrClosed)
	}
	sub = s.newSeries(ctx, topic, table, name, h)
	if err := sub.start(); err != nil {
		return nil, fmt.Errorf("subscribing to %s: %w", topic, err)
	}
	return sub, nil
}
