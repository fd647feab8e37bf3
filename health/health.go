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

// Source provides the status of a subscriber: *subscriber.Subscriber implements it.
// Status is called by many goroutines at once.
type Source interface {
	Status() subscriber.Status
}

// BatchSource provides the statistics of batchers: *batching.Batching implements it.
// Stats is called by many goroutines at once.
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

// Config configures a Health. The zero value is valid.
type Config struct {
	// Title names the program on the page. Default "watermill-ots".
	Title string

	// StuckAfter is how long /livez succeeds although no message of a subscription is
	// settled while some are with their handlers. It must be well above the time of
	// the slowest handler, including the Timeout of its batch. Default 15 minutes,
	// which is later than the subscriber's own alarm (subscriber.Config.StuckAfter).
	// NeverStuck: off.
	StuckAfter time.Duration

	// Remote says what requests from other machines may see. Default RemoteNone.
	Remote Remote

	// HideKeys replaces primary keys with "(hidden)". Error texts are not changed.
	HideKeys bool
}

// ErrInvalidConfig is wrapped by every error of New.
var ErrInvalidConfig = errors.New("health: invalid config")

// Health is an http.Handler. It has no goroutine: it takes a snapshot for each request.
// All methods may be called from any goroutine.
//
// It serves fixed paths. If it is mounted below a prefix (with http.StripPrefix), the
// page's URL must end with a slash.
type Health struct {
	cfg Config
	mux *http.ServeMux

	mu        sync.Mutex // guards the following
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

// New checks cfg and returns a Health without subscribers, which is therefore not ready.
// It starts no goroutine. The error wraps ErrInvalidConfig and lists all faults.
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

// AddSubscriber adds a subscriber to the status. It stays after it was closed.
func (h *Health) AddSubscriber(s Source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sources = append(h.sources, s)
}

// AddCheck makes /readyz fail, with the error as the reason, while check returns an
// error; /livez ignores it. router.Observed.Ready is such a check. It is called by many
// goroutines at once and must be quick; a panic in it counts as an error.
func (h *Health) AddCheck(name string, check func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = append(h.checks, namedCheck{name, check})
}

// call calls the check, which is user code and may panic.
func (c namedCheck) call() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = ack.NewPanicError("check", v)
		}
	}()
	return c.check()
}

// AddBatching adds batchers to the status, under that name. While one of them is down
// (batching.Batcher.Probe), /readyz fails.
func (h *Health) AddBatching(name string, b BatchSource) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.batchings = append(h.batchings, namedBatches{name, b})
}

// Snapshot is the status that /status.json serves.
type Snapshot struct {
	Time  time.Time `json:"time"`
	Title string    `json:"title"`

	Ready    bool     `json:"ready"`
	NotReady []string `json:"not_ready"` // the reasons
	Fault    bool     `json:"fault"`     // it is not ready because of a failure, not because it starts or ends
	Live     bool     `json:"live"`
	NotLive  []string `json:"not_live"` // the reasons

	Subscribers []subscriber.Status `json:"subscribers"`
	Batchings   []BatchingStatus    `json:"batchings"`
}

// BatchingStatus is the part of a Snapshot for one call of AddBatching.
type BatchingStatus struct {
	Name     string                  `json:"name"`
	Batchers []batching.BatcherStats `json:"batchers"`
}

// Snapshot returns the current status. It takes only short locks, and calls only the
// sources and checks that were added.
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

// hidden replaces a key.
const hidden = "(hidden)"

// hideKeys replaces the keys in st, which the caller must not share.
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
