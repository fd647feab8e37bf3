package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

const (
	// fileName is the one file in a data directory.
	fileName = "ots-emulator.db"
	// format is what a file must say to be read; it changes with the layout.
	format = "ots-emulator 1"
	// lockTimeout is how long a file that another process holds is waited for.
	lockTimeout = time.Second
)

// Buckets of the file. Rows and log records have one bucket a table and one a
// shard.
const (
	metaBucket      = "meta"
	tableBucket     = "tables"
	stateBucket     = "state"
	rowBucketPrefix = "rows/"
	logBucketPrefix = "log/"
)

// Errors that tell what is wrong with a data directory, for errors.Is.
var (
	ErrInUse   = errors.New("in use by another process")
	ErrForeign = errors.New("not a data directory of this emulator")
	ErrDamaged = errors.New("damaged")
)

// disk is the file of a data directory.
type disk struct {
	db   *bbolt.DB
	path string
}

// openDisk opens or creates the file in dir.
func openDisk(dir string, sync bool) (d *disk, err error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	d = &disk{path: filepath.Join(dir, fileName)}
	defer d.recoverDamage(&err)
	d.db, err = bbolt.Open(d.path, 0o600, &bbolt.Options{
		Timeout:      lockTimeout,
		NoSync:       !sync,
		NoGrowSync:   !sync,
		FreelistType: bbolt.FreelistMapType,
	})
	switch {
	case err == nil:
	case errors.Is(err, bbolt.ErrTimeout):
		return nil, fmt.Errorf("opening %s: %w; stop that process or choose another data directory", d.path, ErrInUse)
	case errors.Is(err, bbolt.ErrInvalid), errors.Is(err, bbolt.ErrVersionMismatch):
		return nil, fmt.Errorf("opening %s: %w (%v); choose another data directory", d.path, ErrForeign, err)
	case errors.Is(err, bbolt.ErrChecksum):
		return nil, d.damaged(err)
	default:
		return nil, fmt.Errorf("opening %s: %w", d.path, err)
	}
	if err := d.checkFormat(); err != nil {
		d.db.Close()
		return nil, err
	}
	return d, nil
}

// checkDir makes the directory, or refuses one that holds other things only.
func checkDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("creating data directory %s: %w", dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("reading data directory %s: %w", dir, err)
	}
	other := ""
	for _, e := range entries {
		if e.Name() == fileName {
			return nil
		}
		if !strings.HasPrefix(e.Name(), ".") {
			other = e.Name()
		}
	}
	if other != "" {
		return fmt.Errorf("data directory %s holds %s but no %s: %w; choose an empty one", dir, other, fileName, ErrForeign)
	}
	return nil
}

// checkFormat reads the format's name, or writes it into a new file.
func (d *disk) checkFormat() error {
	return d.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte(metaBucket))
		if meta == nil {
			if name, _ := tx.Cursor().First(); name != nil {
				return fmt.Errorf("opening %s: %w (another program's bbolt file); choose another data directory", d.path, ErrForeign)
			}
			for _, name := range []string{metaBucket, tableBucket, stateBucket} {
				if _, err := tx.CreateBucket([]byte(name)); err != nil {
					return fmt.Errorf("preparing %s: %w", d.path, err)
				}
			}
			return tx.Bucket([]byte(metaBucket)).Put([]byte("format"), []byte(format))
		}
		if got := string(meta.Get([]byte("format"))); got != format {
			return fmt.Errorf("opening %s: %w (format %q, this program reads %q); use the version that wrote it, or choose another data directory",
				d.path, ErrForeign, got, format)
		}
		return nil
	})
}

func (d *disk) damaged(cause error) error {
	return fmt.Errorf("reading %s: %w (%v); restore it from a copy, or delete it and start afresh", d.path, ErrDamaged, cause)
}

// recoverDamage turns the panics and memory faults that bbolt ends in when it
// meets a damaged page into an error, and closes the file.
func (d *disk) recoverDamage(err *error) {
	if r := recover(); r != nil {
		*err = d.damaged(fmt.Errorf("%v", r))
		// The file stays open: closing could wait for the transaction that
		// panicked. The process ends with this error.
	}
}

func (d *disk) close() error {
	err := d.db.Sync()
	if cerr := d.db.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("closing %s: %w", d.path, err)
	}
	return nil
}

// tableRecord is a table's description on disk.
type tableRecord struct {
	ID         string
	Created    time.Time
	Schema     Schema
	Lowered    bool `json:",omitempty"`
	Partitions []partitionRecord
	Stream     tunnels.StreamInfo
	Shards     []shardRecord
	ShardCount int
}

type partitionRecord struct {
	Low   []byte `json:",omitempty"` // PlainBuffer variant
	Shard string `json:",omitempty"`
}

type shardRecord struct {
	ID       string
	Parents  []string `json:",omitempty"`
	Epoch    int32
	Created  time.Time
	LastTime int64
	Closed   bool  `json:",omitempty"`
	ClosedAt int64 `json:",omitempty"`
}

// snapshot returns what saves the table's description. t.mu is held, or the
// table is not shared yet.
func (t *Table) snapshot() mutation {
	rec := tableRecord{
		ID: t.id, Created: t.created, Schema: t.schema, Lowered: t.versionsLowered,
		Stream: t.stream, ShardCount: t.shardCount,
	}
	for _, p := range t.partitions {
		var pr partitionRecord
		if p.low != nil {
			pr.Low = plainbuffer.AppendVariant(nil, *p.low)
		}
		if p.shard != nil {
			pr.Shard = p.shard.id
		}
		rec.Partitions = append(rec.Partitions, pr)
	}
	for _, s := range t.shards {
		s.mu.RLock()
		rec.Shards = append(rec.Shards, shardRecord{
			ID: s.id, Parents: s.parents, Epoch: s.epoch, Created: s.created,
			LastTime: s.lastTime, Closed: s.closed, ClosedAt: s.closedAt,
		})
		s.mu.RUnlock()
	}
	value, err := json.Marshal(&rec)
	if err != nil {
		panic(fmt.Sprintf("store: encoding table %s: %v", t.schema.Name, err)) // plain data always encodes
	}
	return mutation{kind: putKey, bucket: tableBucket, key: []byte(t.id), value: value}
}

// load reads everything into s, which is not shared yet. Every row and record
// is decoded once, which checks its checksums.
func (d *disk) load(s *Store) (err error) {
	defer d.recoverDamage(&err)
	// A truncated file faults when its pages are touched.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return d.db.View(func(tx *bbolt.Tx) error {
		err := tx.Bucket([]byte(tableBucket)).ForEach(func(id, value []byte) error {
			t, err := d.loadTable(tx, s, value)
			if err != nil {
				return d.damaged(fmt.Errorf("table %s: %w", id, err))
			}
			s.tables[t.schema.Name] = t
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Bucket([]byte(stateBucket)).ForEach(func(key, value []byte) error {
			s.state[string(key)] = append([]byte(nil), value...)
			return nil
		})
	})
}

func (d *disk) loadTable(tx *bbolt.Tx, s *Store, value []byte) (*Table, error) {
	var rec tableRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return nil, err
	}
	t := &Table{
		store: s, id: rec.ID, rowBucket: rowBucketPrefix + rec.ID, created: rec.Created, schema: rec.Schema,
		stream: rec.Stream, shardCount: rec.ShardCount, versionsLowered: rec.Lowered,
	}
	byID := make(map[string]*shard)
	for _, sr := range rec.Shards {
		sh := &shard{
			id: sr.ID, parents: sr.Parents, epoch: sr.Epoch, created: sr.Created, bucket: logBucketPrefix + sr.ID,
			lastTime: sr.LastTime, closed: sr.Closed, closedAt: sr.ClosedAt,
		}
		if err := sh.load(tx); err != nil {
			return nil, fmt.Errorf("shard %s: %w", sh.id, err)
		}
		byID[sh.id] = sh
		t.shards = append(t.shards, sh)
	}
	for _, pr := range rec.Partitions {
		p := newPartition(nil)
		if pr.Low != nil {
			low, err := plainbuffer.DecodeVariant(append([]byte(nil), pr.Low...))
			if err != nil {
				return nil, fmt.Errorf("partition bound: %w", err)
			}
			p = newPartition(&low)
		}
		if pr.Shard != "" {
			if p.shard = byID[pr.Shard]; p.shard == nil {
				return nil, fmt.Errorf("shard %s of a partition is missing", pr.Shard)
			}
		}
		t.partitions = append(t.partitions, p)
	}
	if len(t.partitions) == 0 {
		return nil, errors.New("no partition")
	}
	return t, t.loadRows(tx)
}

func (t *Table) loadRows(tx *bbolt.Tx) error {
	b := tx.Bucket([]byte(t.rowBucket))
	if b == nil {
		return nil
	}
	auto := -1
	for i, c := range t.schema.Key {
		if c.AutoIncrement {
			auto = i
		}
	}
	var row plainbuffer.Row
	return b.ForEach(func(key, value []byte) error {
		if n, err := plainbuffer.DecodeRow(value, &row); err != nil || n != len(value) {
			return fmt.Errorf("row %x: %w", key, errors.Join(err, errLength(n, len(value))))
		}
		if err := t.schema.CheckKey(row.PrimaryKey, false, false); err != nil {
			return fmt.Errorf("row %x: %w", key, err)
		}
		if auto >= 0 {
			t.lastAuto = max(t.lastAuto, row.PrimaryKey[auto].Value.Integer())
		}
		t.partitions[t.find(key)].rows.load(key, value)
		return nil
	})
}

func errLength(got, want int) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("%d bytes of %d used", got, want)
}

// load reads the shard's log. What is in the file was committed.
func (s *shard) load(tx *bbolt.Tx) error {
	b := tx.Bucket([]byte(s.bucket))
	if b == nil {
		return nil
	}
	first := true
	err := b.ForEach(func(key, value []byte) error {
		if len(key) != 16 {
			return fmt.Errorf("log key %x has %d bytes", key, len(key))
		}
		offset := recordOffset(key)
		if first {
			s.next, s.trimmed, first = offset, offset, false
		}
		if offset != s.next {
			return fmt.Errorf("log record %d is missing", s.next)
		}
		s.append(value, int64(binary.BigEndian.Uint64(key[8:])))
		return nil
	})
	s.visible = s.next
	return err
}
