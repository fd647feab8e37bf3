package tunnels

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/encoding/protowire"
)

// fakeSource is a Source in memory. Keys are plain strings, and a record's row
// is the text "key=value", so that tests can state what they expect.
type fakeSource struct {
	now func() time.Time

	mu      sync.Mutex
	tables  map[string]*fakeTable
	state   map[string][]byte
	watch   []func(string, bool)
	created int    // number of tables ever created
	saveErr error  // error of the next saves
	onSave  func() // runs in SaveState, outside the lock
	onRead  func() // runs in ReadShard, outside the lock
	saves   int
	streams int // number of streams ever enabled
}

type fakeTable struct {
	id       string
	ranges   []KeyRange
	rows     map[string]string
	stream   StreamInfo
	shards   []*fakeShard
	nextID   int
	trimmed  map[string]bool
	lastTime time.Time
}

type fakeShard struct {
	Shard
	start, end string // key range; end empty: unbounded
	first      int64  // offset of the oldest record kept
	log        []fakeRecord
}

type fakeRecord struct {
	at  time.Time
	row string
}

const fakeExpiration = 7 * 24 * time.Hour

func newFakeSource(now func() time.Time) *fakeSource {
	return &fakeSource{now: now, tables: make(map[string]*fakeTable), state: make(map[string][]byte)}
}

// createTable creates a table whose partitions begin at "" and at each split
// point.
func (f *fakeSource) createTable(name string, splitPoints ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.created++
	t := &fakeTable{id: fmt.Sprintf("%s#%d", name, f.created), rows: make(map[string]string), trimmed: make(map[string]bool)}
	start := ""
	for _, end := range append(splitPoints, "") {
		t.ranges = append(t.ranges, KeyRange{bytesOf(start), bytesOf(end)})
		t.addShard(f.now(), start, end)
		start = end
	}
	f.tables[name] = t
}

func bytesOf(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s)
}

func (t *fakeTable) addShard(now time.Time, start, end string, parents ...string) *fakeShard {
	s := &fakeShard{Shard: Shard{ID: fmt.Sprintf("shard-%d", t.nextID), Parents: parents, Created: now}, start: start, end: end}
	t.nextID++
	t.shards = append(t.shards, s)
	return s
}

func (f *fakeSource) dropTable(name string) {
	f.mu.Lock()
	id := f.tables[name].id
	delete(f.tables, name)
	f.mu.Unlock()
	f.notify(id, true)
}

func (f *fakeSource) notify(id string, gone bool) {
	f.mu.Lock()
	watch := slices.Clone(f.watch)
	f.mu.Unlock()
	for _, w := range watch {
		w(id, gone)
	}
}

// byID returns the table with that id, or nil if it was deleted. f.mu is held.
func (f *fakeSource) byID(id string) *fakeTable {
	for _, t := range f.tables {
		if t.id == id {
			return t
		}
	}
	return nil
}

func (f *fakeSource) TableID(name string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tables[name]
	if t == nil {
		return "", fmt.Errorf("table %q: %w", name, ErrNoTable)
	}
	return t.id, nil
}

// put writes a row and its log record.
func (f *fakeSource) put(table, key, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tables[table]
	t.rows[key] = value
	if !t.stream.Enabled {
		return
	}
	at := f.now().Truncate(time.Microsecond)
	if !at.After(t.lastTime) {
		at = t.lastTime.Add(time.Microsecond)
	}
	t.lastTime = at
	for _, s := range t.shards {
		if !s.Closed && s.start <= key && (s.end == "" || key < s.end) {
			s.log = append(s.log, fakeRecord{at, key + "=" + value})
			return
		}
	}
	panic("no shard for " + key)
}

// split closes an open shard and opens two that meet at the key.
func (f *fakeSource) split(table, shardID, at string) {
	f.mu.Lock()
	t := f.tables[table]
	i := slices.IndexFunc(t.shards, func(s *fakeShard) bool { return s.ID == shardID })
	s := t.shards[i]
	s.Closed = true
	t.addShard(f.now(), s.start, at, s.ID)
	t.addShard(f.now(), at, s.end, s.ID)
	f.mu.Unlock()
	f.notify(t.id, false)
}

// merge closes two neighbouring open shards and opens one.
func (f *fakeSource) merge(table, left, right string) {
	f.mu.Lock()
	t := f.tables[table]
	l, r := t.shard(left), t.shard(right)
	l.Closed, r.Closed = true, true
	t.addShard(f.now(), l.start, r.end, l.ID, r.ID)
	f.mu.Unlock()
	f.notify(t.id, false)
}

// open returns the shards that accept records, by key.
func (f *fakeSource) open(table string) []*fakeShard {
	f.mu.Lock()
	defer f.mu.Unlock()
	open := slices.DeleteFunc(slices.Clone(f.tables[table].shards), func(s *fakeShard) bool { return s.Closed })
	slices.SortFunc(open, func(a, b *fakeShard) int { return strings.Compare(a.start, b.start) })
	return open
}

func (t *fakeTable) shard(id string) *fakeShard {
	for _, s := range t.shards {
		if s.ID == id && !t.trimmed[id] {
			return s
		}
	}
	return nil
}

// trim drops the first n kept records of a shard.
func (f *fakeSource) trim(table, shard string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tables[table].shard(shard).first += int64(n)
}

// forget drops a whole shard.
func (f *fakeSource) forget(table, shard string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tables[table].trimmed[shard] = true
}

// disableStream turns the stream off: its log is deleted.
func (f *fakeSource) disableStream(table string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tables[table].stream = StreamInfo{}
}

var errFakeShard = errors.New("shard does not exist")

func (f *fakeSource) lookup(table, shard string) (*fakeShard, error) {
	t := f.byID(table)
	if t == nil {
		return nil, fmt.Errorf("table %q: %w", table, ErrNoTable)
	}
	s := t.shard(shard)
	if s == nil {
		return nil, errFakeShard
	}
	return s, nil
}

func (f *fakeSource) Stream(table string, enable bool) (StreamInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.byID(table)
	if t == nil {
		return StreamInfo{}, fmt.Errorf("table %q: %w", table, ErrNoTable)
	}
	if enable && !t.stream.Enabled {
		f.streams++
		t.stream = StreamInfo{Enabled: true, StreamID: fmt.Sprintf("stream-%d", f.streams), Expiration: fakeExpiration, EnabledAt: f.now()}
	}
	return t.stream, nil
}

func (f *fakeSource) Shards(table string) ([]Shard, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.byID(table)
	if t == nil {
		return nil, fmt.Errorf("table %q: %w", table, ErrNoTable)
	}
	var shards []Shard
	for _, s := range t.shards {
		if !t.trimmed[s.ID] {
			shards = append(shards, s.Shard)
		}
	}
	return shards, nil
}

func (f *fakeSource) SeekShard(table, shard string, t time.Time) (int64, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.lookup(table, shard)
	if err != nil {
		return 0, false, err
	}
	truncated := !t.IsZero() && s.first > 0 && !s.log[s.first-1].at.Before(t)
	for i := s.first; i < int64(len(s.log)); i++ {
		if t.IsZero() || !s.log[i].at.Before(t) {
			return i, truncated, nil
		}
	}
	return int64(len(s.log)), truncated, nil
}

func (f *fakeSource) ReadShard(dst []byte, table, shard string, offset int64, before time.Time, maxRows, maxBytes int) (ShardPage, error) {
	f.mu.Lock()
	onRead := f.onRead
	f.mu.Unlock()
	if onRead != nil {
		onRead()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.lookup(table, shard)
	if err != nil {
		return ShardPage{}, err
	}
	if offset > int64(len(s.log)) {
		return ShardPage{}, fmt.Errorf("offset %d is after the tail", offset)
	}
	p := ShardPage{Data: dst, Next: offset}
	if offset < s.first {
		p.Trimmed, p.Next = true, s.first
	}
	for size := 0; p.Next < int64(len(s.log)); p.Next++ {
		r := s.log[p.Next]
		if !before.IsZero() && !r.at.Before(before) {
			p.End, p.Known = true, f.now()
			return p, nil
		}
		if p.Records == maxRows || size >= maxBytes {
			p.More = true
			return p, nil
		}
		p.Data, p.LastTime, p.Known = appendFakeRecord(p.Data, r.row), r.at, r.at
		p.Records++
		size += len(r.row)
	}
	p.End = s.Closed || !before.IsZero() && !f.now().Before(before)
	p.Known = f.now()
	return p, nil
}

func appendFakeRecord(dst []byte, row string) []byte {
	var msg []byte
	msg = appendVarint(msg, 1, int64(protocol.ActionType_PUT_ROW))
	msg = appendBytes(msg, 2, []byte(row))
	dst = protowire.AppendTag(dst, 1, protowire.BytesType)
	return protowire.AppendBytes(dst, msg)
}

func (f *fakeSource) BaseRanges(table string) ([]KeyRange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.byID(table)
	if t == nil {
		return nil, fmt.Errorf("table %q: %w", table, ErrNoTable)
	}
	return t.ranges, nil
}

func (f *fakeSource) ReadBase(dst []byte, table string, start, end []byte, maxRows, maxBytes int) (BasePage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.byID(table)
	if t == nil {
		return BasePage{}, fmt.Errorf("table %q: %w", table, ErrNoTable)
	}
	p := BasePage{Data: dst}
	for _, key := range slices.Sorted(maps.Keys(t.rows)) {
		if bytes.Compare([]byte(key), start) < 0 || end != nil && bytes.Compare([]byte(key), end) >= 0 {
			continue
		}
		if p.Records == maxRows {
			p.Next = []byte(key)
			return p, nil
		}
		p.Data = appendFakeRecord(p.Data, key+"="+t.rows[key])
		p.Records++
	}
	return p, nil
}

func (f *fakeSource) SaveState(pairs map[string][]byte) error {
	f.mu.Lock()
	onSave := f.onSave
	f.mu.Unlock()
	if onSave != nil {
		onSave()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.saveErr != nil {
		return f.saveErr
	}
	f.saves++
	maps.Copy(f.state, pairs)
	return nil
}

func (f *fakeSource) DeleteState(keys ...string) error {
	f.mu.Lock()
	onSave := f.onSave
	f.mu.Unlock()
	if onSave != nil {
		onSave()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.saveErr != nil {
		return f.saveErr
	}
	for _, key := range keys {
		delete(f.state, key)
	}
	return nil
}

func (f *fakeSource) LoadState(prefix string, fn func(string, []byte) error) error {
	f.mu.Lock()
	state := maps.Clone(f.state)
	f.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(state)) {
		if strings.HasPrefix(key, prefix) {
			if err := fn(key, state[key]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fakeSource) Watch(fn func(string, bool)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watch = append(f.watch, fn)
}

func (f *fakeSource) setSaveErr(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.saveErr = err
}

func (f *fakeSource) setOnSave(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onSave = fn
}
