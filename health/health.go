package health

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// Source is what a subscriber shows: a *subscriber.Subscriber is one. Status is
// called by many goroutines at once.
type Source interface {
	Status() subscriber.Status
}

// BatchSource is what batches show: a *batching.Batching is one. Stats is called
// by many goroutines at once.
type BatchSource interface {
	Stats() []batching.BatcherStats
}

// Defaults of Config.
const (
	DefaultTitle      = "watermill-ots"
	DefaultStuckAfter = 15 * time.Minute
)

// NeverStuck switches Config.StuckAfter off.
const NeverStuck time.Duration = -1

// Config configures a Health. The zero value is fine.
type Config struct {
	// Title names the program on the page. Default "watermill-ots".
	Title string

	// StuckAfter is how long no message of a subscription may be settled, while
	// some are with their handlers, until /livez fails. It must be well above what
	// the slowest handler takes, the Timeout of its batch included. Default
	// 15 minutes, that is after the subscriber's own alarm
	// (subscriber.Config.StuckAfter). NeverStuck: off.
	StuckAfter time.Duration

	// Remote says what requests from other machines may see. Default RemoteNone.
	Remote Remote

	// HideKeys replaces primary keys by "(hidden)". Error texts are shown as they are.
	HideKeys bool
}

// ErrInvalidConfig is wrapped by every error of New.
var ErrInvalidConfig = errors.New("health: invalid config")

// Health is an http.Handler. It has no goroutine of its own: it looks when it is
// asked. All methods may be called from any goroutine.
//
// It serves fixed paths below wherever it is mounted (with http.StripPrefix);
// the page then has to be asked for with a slash at the end.
type Health struct {
	cfg Config
	mux *http.ServeMux

	mu        sync.Mutex // guards what follows
	sources   []Source
	batchings []namedBatches
	checks    []namedCheck
	progress  map[subscriptionID]progress
}

type namedBatches struct {
	name   string
	source BatchSource
}

type namedCheck struct {
	name  string
	check func() error
}

var _ http.Handler = (*Health)(nil)

// New checks cfg and returns a Health that watches nothing yet, and is not ready
// therefore. It starts nothing. The error wraps ErrInvalidConfig and lists every fault.
func New(cfg Config) (*Health, error) {
	var faults []error
	if cfg.StuckAfter < 0 && cfg.StuckAfter != NeverStuck {
		faults = append(faults, fmt.Errorf("%w: Config.StuckAfter is %v: must be positive, 0 or NeverStuck", ErrInvalidConfig, cfg.StuckAfter))
	}
	if cfg.Remote > RemoteAll {
		faults = append(faults, fmt.Errorf("%w: Config.Remote is %d: must be RemoteNone, RemoteProbes or RemoteAll", ErrInvalidConfig, cfg.Remote))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	cfg.Title = cmp.Or(cfg.Title, DefaultTitle)
	cfg.StuckAfter = cmp.Or(cfg.StuckAfter, DefaultStuckAfter)
	h := &Health{cfg: cfg, mux: http.NewServeMux()}
	h.mux.HandleFunc("/livez", func(w http.ResponseWriter, r *http.Request) { probe(w, r, "live", h.Snapshot().NotLive) })
	h.mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) { probe(w, r, "ready", h.Snapshot().NotReady) })
	h.mux.HandleFunc("/status.json", func(w http.ResponseWriter, r *http.Request) { writeJSON(w, http.StatusOK, h.Snapshot()) })
	h.mux.HandleFunc("/{$}", servePage)
	return h, nil
}

// AddSubscriber watches a subscriber from here on, also after it was closed.
func (h *Health) AddSubscriber(s Source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sources = append(h.sources, s)
}

// AddCheck has /readyz fail, and say why, while check returns an error; /livez
// does not look at it. router.Observed.Ready is one. It is called by many
// goroutines at once and must be quick; a panic in it counts as an error.
func (h *Health) AddCheck(name string, check func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = append(h.checks, namedCheck{name, check})
}

// call calls the check, which is the user's.
func (c namedCheck) call() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = ack.NewPanicError("check", v)
		}
	}()
	return c.check()
}

// AddBatching shows batches from here on, under that name. While one of its
// batchers is down (batching.Batcher.Probe), /readyz fails.
func (h *Health) AddBatching(name string, b BatchSource) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.batchings = append(h.batchings, namedBatches{name, b})
}

// Snapshot is what /status.json serves.
type Snapshot struct {
	Time  time.Time `json:"time"`
	Title string    `json:"title"`

	Ready    bool     `json:"ready"`
	NotReady []string `json:"not_ready"` // why it is not
	Fault    bool     `json:"fault"`     // it is not ready because something fails, not because it starts or ends
	Live     bool     `json:"live"`
	NotLive  []string `json:"not_live"` // why it is not

	Subscribers []subscriber.Status `json:"subscribers"`
	Batchings   []BatchingStatus    `json:"batchings"`
}

// BatchingStatus is the part of a Snapshot about what one AddBatching added.
type BatchingStatus struct {
	Name     string                  `json:"name"`
	Batchers []batching.BatcherStats `json:"batchers"`
}

// Snapshot looks at everything. It takes short locks only and calls nobody but
// what was added.
func (h *Health) Snapshot() Snapshot {
	h.mu.Lock()
	sources, batchings, checks := slices.Clone(h.sources), slices.Clone(h.batchings), slices.Clone(h.checks)
	h.mu.Unlock()
	s := Snapshot{Time: time.Now(), Title: h.cfg.Title, Subscribers: []subscriber.Status{}, Batchings: []BatchingStatus{}}
	for _, source := range sources {
		st := source.Status()
		if h.cfg.HideKeys {
			hideKeys(&st)
		}
		s.Subscribers = append(s.Subscribers, st)
	}
	for _, b := range batchings {
		s.Batchings = append(s.Batchings, BatchingStatus{b.name, b.source.Stats()})
	}
	s.NotReady, s.Fault = notReady(s.Time, s.Subscribers)
	starts := len(s.NotReady)
	s.NotReady = append(s.NotReady, down(s.Batchings)...)
	for _, c := range checks {
		if err := c.call(); err != nil {
			s.NotReady = append(s.NotReady, c.name+": "+err.Error())
		}
	}
	s.Fault = s.Fault || len(s.NotReady) > starts
	s.NotLive = h.notLive(s.Time, s.Subscribers)
	s.Ready, s.Live = len(s.NotReady) == 0, len(s.NotLive) == 0
	return s
}

// hidden stands where a key was.
const hidden = "(hidden)"

// hideKeys replaces the keys in st, which is the caller's own.
func hideKeys(st *subscriber.Status) {
	for _, sub := range st.Subscriptions {
		for i := range sub.Failing {
			sub.Failing[i].Key = hidden
		}
		for i := range sub.Channels {
			if o := sub.Channels[i].Oldest; o != nil {
				o.Key = hidden
			}
		}
	}
}
