package store

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/aging"
	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// maxTables is the service's limit for an instance.
const maxTables = 64

// Config configures a store.
type Config struct {
	Dir  string           // data directory; empty keeps everything in memory
	Sync bool             // flush every commit to the device (see Open)
	Now  func() time.Time // nil: time.Now
	// Aging is the clock by which logs expire; nil: one that follows Now.
	Aging *aging.Clock
}

// Store holds the tables of one instance, and the tunnel service's own state.
// It implements tunnels.Source. All methods are safe for concurrent use.
type Store struct {
	now     func() time.Time
	aging   *aging.Clock
	disk    *disk // nil in memory
	commits *committer

	transactions transactions

	mu       sync.RWMutex      // guards the following
	tables   map[string]*Table // by name
	byID     map[string]*Table
	state    map[string][]byte
	watchers []func(table string, gone bool)

	closeOnce sync.Once
	closeErr  error
}

var _ tunnels.Source = (*Store)(nil)

// Open opens a store. A data directory has a single file, which one process at
// a time may use.
//
// A write that has returned survives the death of the process in any case. It
// survives a power failure only with Sync, at the cost of flushing the device
// once for each group of concurrent writes.
func Open(cfg Config) (*Store, error) {
	s := &Store{now: cfg.Now, tables: make(map[string]*Table), byID: make(map[string]*Table), state: make(map[string][]byte)}
	if s.now == nil {
		s.now = time.Now
	}
	if s.aging = cfg.Aging; s.aging == nil {
		s.aging = aging.New(s.now)
	}
	if cfg.Dir == "" {
		s.commits = newCommitter(nil, false, nil, nil)
		return s, nil
	}
	d, err := openDisk(cfg.Dir, cfg.Sync)
	if err != nil {
		return nil, err
	}
	var all contents
	err = d.checkFormat()
	if err == nil {
		all, err = d.load(s)
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	s.disk, s.tables, s.byID, s.state = d, all.tables, byID(all.tables), all.state
	s.commits = newCommitter(d.db, cfg.Sync, s.reload, d.there)
	return s, nil
}

// Close commits what is queued and releases the data directory. Later writes
// fail.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.commits.close()
		if s.disk != nil {
			s.closeErr = s.disk.close()
		}
	})
	return s.closeErr
}

// Table returns the table of that name.
func (s *Store) Table(name string) (*Table, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := s.tables[name]
	if t == nil {
		return nil, errNoTable()
	}
	return t, nil
}

// byID returns the tables by their ids instead of their names.
func byID(tables map[string]*Table) map[string]*Table {
	ids := make(map[string]*Table, len(tables))
	for _, t := range tables {
		ids[t.id] = t
	}
	return ids
}

// table returns the table with that id.
func (s *Store) table(id string) (*Table, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := s.byID[id]
	if t == nil {
		return nil, fmt.Errorf("table with the id %s: %w", id, tunnels.ErrNoTable)
	}
	return t, nil
}

// TableOfStream returns the table whose stream has that id, or nil if there is
// none.
func (s *Store) TableOfStream(id string) *Table {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, t := range s.tables {
		if info := t.Stream(); info.Enabled && info.StreamID == id {
			return t
		}
	}
	return nil
}

// Tables returns the names of all tables in order, without indexes.
func (s *Store) Tables() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names := make([]string, 0, len(s.tables))
	for name, t := range s.tables {
		if t.indexOf == nil {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names
}

// StreamSpec describes the stream that a caller wants for a table.
type StreamSpec struct {
	Enabled    bool
	Expiration time.Duration
	Origin     []string
}

// Documented bounds of a stream's retention.
const (
	minExpiration     = time.Hour
	maxExpiration     = 7 * 24 * time.Hour
	defaultExpiration = 7 * 24 * time.Hour
)

func (s *StreamSpec) check() error {
	if !s.Enabled {
		return nil
	}
	if s.Expiration == 0 {
		s.Expiration = defaultExpiration
	}
	if s.Expiration < minExpiration || s.Expiration > maxExpiration {
		return wire.Invalid("The stream's expiration time must be in range: [%d, %d] hours, got %v.",
			int(minExpiration.Hours()), int(maxExpiration.Hours()), s.Expiration)
	}
	return nil
}

// CreateTable creates a table and its indexes. The table is divided at the
// given partition keys, which are in ascending order; each begins a partition.
func (s *Store) CreateTable(schema Schema, stream StreamSpec, splits []plainbuffer.Value, indexes ...IndexMeta) error {
	if err := schema.check(); err != nil {
		return err
	}
	if err := stream.check(); err != nil {
		return err
	}
	id := randomID()
	t := &Table{store: s, id: id, rowBucket: rowBucketPrefix + id, created: s.now(), schema: schema}
	t.partitions = []*partition{newPartition(nil)}
	for i := range splits {
		if splits[i].Kind() != schema.Key[0].Kind {
			return wire.Invalid("A partition begins at a value that is not of the partition key's type.")
		}
		if i > 0 && splits[i].Compare(splits[i-1]) <= 0 {
			return wire.Invalid("The partitions are not in ascending order.")
		}
		t.partitions = append(t.partitions, newPartition(&splits[i]))
	}
	if stream.Enabled {
		t.enableStream(stream)
	}
	for _, meta := range indexes {
		if _, err := t.addIndex(meta); err != nil {
			return err
		}
	}
	if err := s.commits.revive(); err != nil {
		return err
	}
	s.mu.Lock()
	if err := s.commits.refused(); err != nil {
		s.mu.Unlock()
		return err
	}
	if err := s.add(t); err != nil {
		s.mu.Unlock()
		return err
	}
	pending := []mutation{t.snapshot(true)}
	for _, ix := range t.indexes {
		pending = append(pending, ix.table.snapshot(true))
	}
	round := s.commits.enqueue(pending, nil)
	s.mu.Unlock()
	return s.commits.wait(round)
}

// DeleteTable deletes a table with its rows, its stream and its indexes.
func (s *Store) DeleteTable(name string) error {
	if err := s.commits.revive(); err != nil {
		return err
	}
	s.mu.Lock()
	t := s.tables[name]
	if t == nil {
		s.mu.Unlock()
		return errNoTable()
	}
	if err := s.commits.refused(); err != nil {
		s.mu.Unlock()
		return err
	}
	if t.indexOf != nil {
		s.mu.Unlock()
		return errIndexTable(t)
	}
	delete(s.tables, name)
	delete(s.byID, t.id)
	t.mu.Lock()
	t.dropped = true
	gone := []mutation{
		{kind: deleteKey, bucket: tableBucket, key: []byte(t.id)},
		{kind: dropBucket, bucket: t.rowBucket},
	}
	gone = append(gone, t.dropShards()...)
	gone = append(gone, t.dropAuto()...)
	for _, ix := range t.indexes {
		gone = append(gone, s.forget(ix)...)
	}
	round := s.commits.enqueue(gone, nil)
	t.mu.Unlock()
	s.mu.Unlock()
	if err := s.commits.wait(round); err != nil {
		return err // the table exists again
	}
	s.notify(t.id, true)
	return nil
}

// SaveState implements tunnels.Source.
func (s *Store) SaveState(pairs map[string][]byte) error {
	mutations := make([]mutation, 0, len(pairs))
	for key, value := range pairs {
		mutations = append(mutations, mutation{kind: putKey, bucket: stateBucket, key: []byte(key), value: slices.Clone(value)})
	}
	if err := s.commits.revive(); err != nil {
		return err
	}
	s.mu.Lock()
	if err := s.commits.refused(); err != nil {
		s.mu.Unlock()
		return err
	}
	for i := range mutations {
		m := &mutations[i]
		_, had := s.state[string(m.key)]
		m.isNew = !had
		s.state[string(m.key)] = m.value
	}
	round := s.commits.enqueue(mutations, nil)
	s.mu.Unlock()
	return s.commits.wait(round)
}

// DeleteState implements tunnels.Source.
func (s *Store) DeleteState(keys ...string) error {
	mutations := make([]mutation, 0, len(keys))
	if err := s.commits.revive(); err != nil {
		return err
	}
	s.mu.Lock()
	if err := s.commits.refused(); err != nil {
		s.mu.Unlock()
		return err
	}
	for _, key := range keys {
		if _, had := s.state[key]; had {
			mutations = append(mutations, mutation{kind: deleteKey, bucket: stateBucket, key: []byte(key)})
			delete(s.state, key)
		}
	}
	round := s.commits.enqueue(mutations, nil)
	s.mu.Unlock()
	return s.commits.wait(round)
}

// LoadState implements tunnels.Source. f is called without a lock held.
func (s *Store) LoadState(prefix string, f func(key string, value []byte) error) error {
	type pair struct {
		key   string
		value []byte
	}
	var pairs []pair
	err := s.Read(func() error {
		pairs = pairs[:0]
		s.mu.RLock()
		defer s.mu.RUnlock()
		for key, value := range s.state {
			if strings.HasPrefix(key, prefix) {
				pairs = append(pairs, pair{key, value})
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(pairs, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	for _, p := range pairs {
		if err := f(p.key, p.value); err != nil {
			return err
		}
	}
	return nil
}

// Watch implements tunnels.Source.
func (s *Store) Watch(f func(table string, gone bool)) {
	s.mu.Lock()
	s.watchers = append(s.watchers, f)
	s.mu.Unlock()
}

// notify calls the watchers after a table's shards changed, or after the table
// was deleted. No lock is held.
func (s *Store) notify(tableID string, gone bool) {
	s.mu.RLock()
	watchers := s.watchers
	s.mu.RUnlock()
	for _, f := range watchers {
		f(tableID, gone)
	}
}
