package tunnels

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/aging"
	"github.com/watermill-ots/watermill-ots/emulator/internal/assume"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// Defaults of Config. A page of 1 MiB is what the SDKs' own thresholds for a
// "full" response (over 500 records or 900 KiB) suggest for the real service.
const (
	DefaultMaxRows  = 5000
	DefaultMaxBytes = 1 << 20
	largePage       = 8 << 20 // of assume.LargePages
)

// Config configures a Service. The zero value is usable.
type Config struct {
	// Instance is the instance name in descriptions of tunnels.
	Instance string

	// Logger logs tunnels and clients that come and go (Info), tunnels that
	// expire (Warn), state that cannot be saved (Error), and every channel that
	// changes its owner (Debug). Nil: nothing is logged.
	Logger *slog.Logger

	// MaxRows is the maximum number of records in one readrecords response;
	// zero: DefaultMaxRows.
	MaxRows int

	// MaxBytes is the maximum size of the records in one readrecords response,
	// exceeded by at most one record; zero: DefaultMaxBytes.
	MaxBytes int

	// Now is the service's clock; nil: time.Now. It should be the clock that
	// the Source stamps its log with. It may jump.
	Now func() time.Time

	// Assume are the behaviours that differ from the default ones.
	Assume assume.Set

	// Aging is the clock by which clients' timeouts are counted; nil: one that
	// follows Now.
	Aging *aging.Clock
}

// Service is the tunnel service of one instance. All methods are safe for
// concurrent use; channels of one tunnel are read in parallel.
//
// Invariants:
//   - a tunnel is in tunnels exactly when its name is in names;
//   - no response reveals a state that is not saved (Source.SaveState);
//   - locks are taken in the order Service.mu, tunnel.mu, journal.mu, and none
//     is held during a call of the Source.
type Service struct {
	src     Source
	cfg     Config
	log     *slog.Logger
	journal journal
	closed  atomic.Bool

	// changes counts the calls of Source.Watch's callback. A tunnel that has
	// seen a lower count asks the Source for its shards again.
	changes atomic.Int64

	mu      sync.RWMutex // guards the following
	tunnels map[string]*tunnel
	names   map[name]*tunnel
}

// name identifies a tunnel to people.
type name struct{ table, tunnel string }

// New loads the tunnels that src has saved. The clients' timeouts start again.
// The error names the saved entry that is damaged.
func New(src Source, cfg Config) (*Service, error) {
	if cfg.MaxRows < 0 || cfg.MaxBytes < 0 {
		return nil, fmt.Errorf("tunnels: MaxRows (%d) and MaxBytes (%d) must not be negative", cfg.MaxRows, cfg.MaxBytes)
	}
	cfg.MaxRows = cmp.Or(cfg.MaxRows, DefaultMaxRows)
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, DefaultMaxBytes)
	if cfg.Assume[assume.LargePages] {
		cfg.MaxBytes = largePage
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Aging == nil {
		cfg.Aging = aging.New(cfg.Now)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		src:     src,
		cfg:     cfg,
		log:     cfg.Logger,
		tunnels: make(map[string]*tunnel),
		names:   make(map[name]*tunnel),
	}
	s.journal = journal{src: src, restore: s.restore}
	if err := s.load(); err != nil {
		return nil, err
	}
	s.changes.Store(1) // a loaded tunnel has seen 0, so it checks its shards at once
	src.Watch(s.tableChanged)
	return s, s.dropOrphans()
}

// tableChanged handles a change of a table: its tunnels check its shards again,
// or are deleted with it. If the deletion cannot be saved, or the process is
// killed before, the next start finds tunnels without a table and drops them.
func (s *Service) tableChanged(tableID string, gone bool) {
	s.changes.Add(1)
	if !gone {
		return
	}
	for _, t := range s.sorted() {
		if t.TableID == tableID {
			s.drop(t) // save has logged an error
		}
	}
}

// dropOrphans drops the tunnels whose tables do not exist any more.
func (s *Service) dropOrphans() error {
	for _, t := range s.sorted() {
		if _, err := s.src.Stream(t.TableID, false); noTable(err) {
			s.forget(t)
		} else if err != nil {
			return fmt.Errorf("tunnels: table %q of tunnel %q: %w", t.Table, t.Name, err)
		}
	}
	if err := s.journal.flush(); err != nil {
		return fmt.Errorf("tunnels: drop the tunnels of deleted tables: %w", err)
	}
	return nil
}

// Handle executes one operation. op is the last element of the request's path
// ("create", "readrecords", ...), body its protobuf message. The response's
// message is appended to dst, which may be nil; body is not kept.
//
// Every error is a *wire.Error, ready to be sent.
func (s *Service) Handle(op string, body, dst []byte) ([]byte, error) {
	if s.closed.Load() {
		return nil, wire.Errorf(wire.CodeTunnelServerUnavailable, "the service is closed")
	}
	before := s.journal.lost()
	out, err := s.handle(op, body, dst)
	if err != nil {
		// An error also reveals the state.
		if lost := s.save(); lost != nil {
			return nil, lost
		}
	}
	var e *wire.Error
	if s.journal.lost() != before && !(errors.As(err, &e) && e.Code == wire.CodeTunnelServerUnavailable) {
		return nil, errLost
	}
	return out, err
}

func (s *Service) handle(op string, body, dst []byte) ([]byte, error) {
	if op == "readrecords" { // the hot path decodes and encodes by hand
		return s.readRecords(body, dst)
	}
	h, ok := operations[op]
	switch {
	case ok:
	case slices.Contains(missing, op):
		return nil, wire.Errorf(wire.CodeUnsupportOperation, "Unsupported operation: 'tunnel/%s': this emulator does not switch tunnels.", op)
	default:
		return nil, wire.Invalid("Unsupported operation: 'tunnel/%.64s'.", op)
	}
	return h(s, body, dst)
}

// Operations lists the operations that Handle supports, sorted.
func Operations() []string {
	ops := []string{"readrecords"}
	for op := range operations {
		ops = append(ops, op)
	}
	slices.Sort(ops)
	return ops
}

// Missing lists the operations of the service that are answered with
// OTSUnsupportOperation, sorted.
func Missing() []string { return slices.Clone(missing) }

// Close makes every later Handle fail. It returns once all state is saved.
func (s *Service) Close() error {
	s.closed.Store(true)
	if err := s.journal.flush(); err != nil {
		return fmt.Errorf("tunnels: save state: %w", err)
	}
	return nil
}

// tunnel returns the tunnel with that id.
func (s *Service) tunnel(id string) (*tunnel, error) {
	s.mu.RLock()
	t := s.tunnels[id]
	s.mu.RUnlock()
	if t == nil {
		return nil, unknownTunnel(s.cfg.Assume, id)
	}
	return t, nil
}

func unknownTunnel(a assume.Set, id string) error {
	if a[assume.GoneIsUnavailable] {
		return wire.TunnelErrorf(wire.CodeTunnelServerUnavailable, id, "tunnel %q does not exist", id)
	}
	return wire.TunnelErrorf(wire.CodeParameterInvalid, id, "tunnel %q does not exist", id)
}

// named returns a tunnel by its table and name. If id is not empty, it must
// match.
func (s *Service) named(table, tunnelName, id string) (*tunnel, error) {
	s.mu.RLock()
	t := s.names[name{table, tunnelName}]
	s.mu.RUnlock()
	if t == nil {
		if s.cfg.Assume[assume.GoneIsUnavailable] {
			return nil, wire.Errorf(wire.CodeTunnelServerUnavailable, "table %q has no tunnel %q", table, tunnelName)
		}
		return nil, wire.Invalid("table %q has no tunnel %q", table, tunnelName)
	}
	if id != "" && id != t.ID {
		return nil, wire.TunnelErrorf(wire.CodeParameterInvalid, id, "tunnel %q of table %q does not have the id %q", tunnelName, table, id)
	}
	return t, nil
}

// update locks the tunnel, drops silent clients and calls f with the time. It
// returns once all changes so far, including those of others that f has seen,
// are saved. f must not call the Source.
func (s *Service) update(t *tunnel, f func(now time.Time) error) error {
	_, err := s.locked(t, f)
	if err := s.save(); err != nil {
		return err
	}
	return err
}

// peek is update for requests whose responses reveal nothing of the state: it
// waits for a save only if f itself has changed something.
func (s *Service) peek(t *tunnel, f func(now time.Time) error) error {
	changed, err := s.locked(t, f)
	if changed {
		if err := s.save(); err != nil {
			return err
		}
	}
	return err
}

// locked runs f as update describes, and adds what has changed to the journal.
// It fails if the tunnel was deleted meanwhile.
func (s *Service) locked(t *tunnel, f func(now time.Time) error) (changed bool, err error) {
	now := s.cfg.Now()
	t.mu.Lock()
	if err := t.gone(); err != nil {
		t.mu.Unlock()
		return false, err
	}
	t.dropSilent(s.cfg.Aging.Now())
	err = f(now)
	changes, news := t.takeChanges(), t.news
	t.news = nil
	changed = len(changes) > 0
	s.journal.add(changes)
	t.mu.Unlock()
	for _, e := range news {
		s.log.Log(context.Background(), e.level, e.message, append(e.args, "tunnel_id", t.ID)...)
	}
	return changed, err
}

// save waits until all changes so far are saved.
func (s *Service) save() error {
	if err := s.journal.flush(); err != nil {
		s.log.Error("tunnel state was not saved", "error", err)
		return wire.Errorf(wire.CodeTunnelServerUnavailable, "save state: %v", err)
	}
	return nil
}

// drop deletes a tunnel and everything that belongs to it.
func (s *Service) drop(t *tunnel) error {
	s.forget(t)
	return s.save()
}

// forget is drop without saving.
func (s *Service) forget(t *tunnel) {
	s.mu.Lock()
	known := s.tunnels[t.ID] == t
	if known {
		delete(s.tunnels, t.ID)
		delete(s.names, name{t.Table, t.Name})
	}
	s.mu.Unlock()
	if !known {
		return // another goroutine does it
	}
	t.mu.Lock()
	if t.lost {
		t.mu.Unlock()
		return // the deletion was lost too
	}
	t.delete()
	s.journal.add(t.takeChanges())
	t.mu.Unlock()
	s.log.Info("tunnel deleted", "tunnel_id", t.ID, "table", t.Table, "tunnel", t.Name)
}

// sourceError turns an error of the Source about a tunnel's table into the
// service's own. If the table does not exist any more, its tunnels are dropped.
func (s *Service) sourceError(t *tunnel, err error) error {
	if noTable(err) {
		if err := s.drop(t); err != nil {
			return err
		}
		return unknownTunnel(s.cfg.Assume, t.ID)
	}
	return sourceError(t.Table, err)
}

// sourceError is the answer to an error that the Source returned for a table.
func sourceError(table string, err error) error {
	var e *wire.Error
	if errors.As(err, &e) && e.Code != wire.CodeObjectNotExist {
		return e
	}
	if noTable(err) {
		return wire.Invalid("table %q does not exist", table)
	}
	return wire.Errorf(wire.CodeTunnelServerUnavailable, "table %q: %v", table, err)
}

// noTable reports whether the Source says that the table does not exist, for
// which the table API answers OTSObjectNotExist and the tunnel API
// OTSParameterInvalid.
func noTable(err error) bool {
	var e *wire.Error
	return errors.Is(err, ErrNoTable) || errors.As(err, &e) && e.Code == wire.CodeObjectNotExist
}
