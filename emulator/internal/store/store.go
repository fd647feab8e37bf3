package store

import (
	"errors"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// maxTables is the service's limit for an instance.
const maxTables = 64

// Config says how a store is opened.
type Config struct {
	Dir  string           // data directory; empty keeps everything in memory
	Sync bool             // flush every commit to the device (see Open)
	Now  func() time.Time // nil: time.Now
}

// Store holds the tables of one instance, and the tunnel service's own state.
// It implements tunnels.Source. All methods are safe for concurrent use.
type Store struct {
	now     func() time.Time
	disk    *disk // nil in memory
	commits *committer

	mu       sync.RWMutex // guards the following
	tables   map[string]*Table
	state    map[string][]byte
	watchers []func(table string)

	closeOnce sync.Once
	closeErr  error
}

var _ tunnels.Source = (*Store)(nil)

// Open opens a store. In a data directory everything lies in one file, which
// one process at a time may use.
//
// A write that returned survives the death of the process in any case. It
// survives a power failure only with Sync, at the price of one flush of the
// device for each group of concurrent writes.
func Open(cfg Config) (*Store, error) {
	s := &Store{now: cfg.Now, tables: make(map[string]*Table), state: make(map[string][]byte)}
	if s.now == nil {
		s.now = time.Now
	}
	if cfg.Dir == "" {
		s.commits = newCommitter(nil)
		return s, nil
	}
	d, err := openDisk(cfg.Dir, cfg.Sync)
	if err != nil {
		return nil, err
	}
	err = d.checkFormat()
	if err == nil {
		err = d.load(s)
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	s.disk = d
	s.commits = newCommitter(d.db)
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
		return nil, errNoTable(name)
	}
	return t, nil
}

// Tables returns the names of all tables in order.
func (s *Store) Tables() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names := make([]string, 0, len(s.tables))
	for name := range s.tables {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// StreamSpec is what a caller wants of a table's stream.
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

// CreateTable creates a table that is divided at the given partition keys, in
// ascending order, each of which begins a partition.
func (s *Store) CreateTable(schema Schema, stream StreamSpec, splits []plainbuffer.Value) error {
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
	s.mu.Lock()
	if s.tables[schema.Name] != nil {
		s.mu.Unlock()
		return wire.Errorf(wire.CodeObjectAlreadyExist, "Requested table already exists: '%s'.", schema.Name)
	}
	if len(s.tables) >= maxTables {
		s.mu.Unlock()
		return wire.Errorf(wire.CodeQuotaExhausted, "Number of tables exceeded the quota of %d.", maxTables)
	}
	s.tables[schema.Name] = t
	round := s.commits.enqueue([]mutation{t.snapshot(true)}, nil)
	s.mu.Unlock()
	return s.commits.wait(round)
}

// DeleteTable deletes a table with its rows and its stream.
func (s *Store) DeleteTable(name string) error {
	s.mu.Lock()
	t := s.tables[name]
	if t == nil {
		s.mu.Unlock()
		return errNoTable(name)
	}
	delete(s.tables, name)
	t.mu.Lock()
	t.dropped = true
	gone := []mutation{
		{kind: deleteKey, bucket: tableBucket, key: []byte(t.id)},
		{kind: dropBucket, bucket: t.rowBucket},
	}
	gone = append(gone, t.dropShards()...)
	round := s.commits.enqueue(gone, nil)
	t.mu.Unlock()
	s.mu.Unlock()
	err := s.commits.wait(round)
	s.notify(name)
	return err
}

// SaveState implements tunnels.Source.
func (s *Store) SaveState(pairs map[string][]byte) error {
	mutations := make([]mutation, 0, len(pairs))
	for key, value := range pairs {
		mutations = append(mutations, mutation{kind: putKey, bucket: stateBucket, key: []byte(key), value: slices.Clone(value)})
	}
	s.mu.Lock()
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
	s.mu.Lock()
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
	s.mu.RLock()
	for key, value := range s.state {
		if strings.HasPrefix(key, prefix) {
			pairs = append(pairs, pair{key, value})
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(pairs, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	for _, p := range pairs {
		if err := f(p.key, p.value); err != nil {
			return err
		}
	}
	return nil
}

// Watch implements tunnels.Source.
func (s *Store) Watch(f func(table string)) {
	s.mu.Lock()
	s.watchers = append(s.watchers, f)
	s.mu.Unlock()
}

// notify tells the watchers that a table's shards changed. No lock is held.
func (s *Store) notify(table string) {
	s.mu.RLock()
	watchers := s.watchers
	s.mu.RUnlock()
	for _, f := range watchers {
		f(table)
	}
}
