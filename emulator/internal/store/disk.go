package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

const (
	// fileName is the only file in a data directory.
	fileName = "ots-emulator.db"
	// format identifies the file's layout; it changes with the layout.
	format = "ots-emulator 1"
	// lockTimeout is how long to wait for a file that another process has
	// locked.
	lockTimeout = time.Second
)

// Buckets of the file. There is one bucket of rows per table and one of log
// records per shard.
const (
	metaBucket      = "meta"
	tableBucket     = "tables"
	stateBucket     = "state"
	rowBucketPrefix = "rows/"
	logBucketPrefix = "log/"
)

// Errors about a data directory, for errors.Is.
var (
	ErrInUse   = errors.New("in use by another process")
	ErrForeign = errors.New("not a data directory of this emulator")
	ErrDamaged = errors.New("damaged")
)

// errFileGone says that writes would go to a file that a restart cannot find.
var errFileGone = errors.New("the file was removed or replaced")

// disk is the file of a data directory.
type disk struct {
	db   *bbolt.DB
	path string
	file os.FileInfo // of the open file
}

// there returns an error if the path no longer leads to the open file.
func (d *disk) there() error {
	now, err := os.Stat(d.path)
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && !os.SameFile(d.file, now):
		return errFileGone
	case err != nil:
		return fmt.Errorf("looking for the file: %w", err)
	}
	return nil
}

// openDisk opens or creates the file in dir.
func openDisk(dir string, sync bool) (d *disk, err error) {
	changed, err := makeDir(dir)
	if err != nil {
		return nil, err
	}
	d = &disk{path: filepath.Join(dir, fileName)}
	// bbolt can panic or fault on a damaged list of free pages. What it has
	// opened by then stays open.
	defer d.recoverDamage(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	if err := d.checkSize(); err != nil {
		return nil, err
	}
	err = d.open(&bbolt.Options{
		Timeout:      lockTimeout,
		NoSync:       !sync,
		NoGrowSync:   !sync,
		FreelistType: bbolt.FreelistMapType,
	})
	if err != nil {
		return d, err
	}
	if d.file, err = os.Stat(d.path); err != nil {
		return d, errors.Join(fmt.Errorf("reading %s: %w", d.path, err), d.close())
	}
	if sync {
		if err = d.syncDirs(changed); err != nil {
			err = errors.Join(err, d.close())
		}
	}
	return d, err
}

// checkSize refuses a file that is shorter than its pages, before bbolt maps
// the missing part into memory.
func (d *disk) checkSize() error {
	info, err := os.Stat(d.path)
	if errors.Is(err, os.ErrNotExist) {
		return d.create()
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", d.path, err)
	}
	if info.Size() == 0 {
		return d.damaged(errors.New("it is empty"))
	}
	if err := d.open(&bbolt.Options{Timeout: lockTimeout, ReadOnly: true}); err != nil {
		return err
	}
	err = d.db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return d.damaged(fmt.Errorf("it has %d of %d bytes", info.Size(), tx.Size()))
		}
		return nil
	})
	return errors.Join(err, d.db.Close())
}

// open opens the file. Its error says what is wrong with the file.
func (d *disk) open(options *bbolt.Options) (err error) {
	d.db, err = bbolt.Open(d.path, 0o600, options)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("opening %s: %w; stop that process or choose another data directory", d.path, ErrInUse)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch):
		return fmt.Errorf("opening %s: %w (%v); choose another data directory", d.path, ErrForeign, err)
	case errors.As(err, new(syscall.Errno)): // no permission, no space
		return fmt.Errorf("opening %s: %w", d.path, err)
	default:
		// Any other error that bbolt returns for an existing file is about its
		// pages.
		return d.damaged(err)
	}
}

// checkFormat reads the name of the format, or writes it into a new file.
func (d *disk) checkFormat() (err error) {
	defer d.recoverDamage(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	// Only a new file is written to, so that a file on a full disk can still be
	// served.
	prepared := false
	err = d.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte(metaBucket))
		if prepared = meta != nil; !prepared {
			if name, _ := tx.Cursor().First(); name != nil {
				return fmt.Errorf("opening %s: %w (another program's bbolt file); choose another data directory", d.path, ErrForeign)
			}
			return nil
		}
		if got := string(meta.Get([]byte("format"))); got != format {
			return fmt.Errorf("opening %s: %w (format %q, this program reads %q); use the version that wrote it, or choose another data directory",
				d.path, ErrForeign, got, format)
		}
		return nil
	})
	if err != nil || prepared {
		return err
	}
	return d.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range []string{metaBucket, tableBucket, stateBucket} {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return fmt.Errorf("preparing %s: %w", d.path, err)
			}
		}
		return tx.Bucket([]byte(metaBucket)).Put([]byte("format"), []byte(format))
	})
}

func (d *disk) damaged(cause error) error {
	return fmt.Errorf("reading %s: %w (%v); restore it from a copy, or delete it and start with an empty one", d.path, ErrDamaged, cause)
}

// recoverDamage turns bbolt's panics and memory faults on damaged pages into an
// error.
func (d *disk) recoverDamage(err *error) {
	if r := recover(); r != nil {
		*err = d.damaged(fmt.Errorf("%v", r))
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
	Lowered    bool      `json:",omitempty"`
	Adjusted   time.Time `json:",omitzero"`
	Partitions []partitionRecord
	Stream     tunnels.StreamInfo
	Shards     []shardRecord
	ShardCount int
	IndexOf    *indexRecord `json:",omitempty"`
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

// snapshot returns the mutation that saves the table's description; isNew says
// that it is the first one. t.mu is held, or the table is not shared yet.
func (t *Table) snapshot(isNew bool) mutation {
	rec := tableRecord{
		ID: t.id, Created: t.created, Schema: t.schema, Lowered: t.versionsLowered, Adjusted: t.adjusted,
		Stream: t.stream, ShardCount: t.shardCount, IndexOf: t.indexOf,
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
	return mutation{kind: putKey, isNew: isNew, bucket: tableBucket, key: []byte(t.id), value: value}
}

// bbolt has checksums only for its two meta pages, and a damaged page number
// can lead to an old page that is valid in itself. So each value is followed by
// the CRC-32C of key and value, and each bucket has a digest: the sum of one
// plus the CRC over its keys, kept as the bucket's sequence number.
const checksumSize = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// digestOf returns what a key with this sealed value adds to the digest.
func digestOf(sealed []byte) uint64 {
	if len(sealed) < checksumSize {
		return 0
	}
	return 1<<32 + uint64(binary.BigEndian.Uint32(sealed[len(sealed)-checksumSize:]))
}

// addDigest changes a bucket's digest, which wraps around.
func addDigest(b *bbolt.Bucket, d uint64) error { return b.SetSequence(b.Sequence() + d) }

// putSealed stores a value with its checksum. It appends both to sealed, which
// holds the memory, and returns the extended slice.
func putSealed(b *bbolt.Bucket, key, value, sealed []byte) ([]byte, error) {
	start := len(sealed)
	sealed = append(sealed, value...)
	sealed = binary.BigEndian.AppendUint32(sealed, checksum(key, value))
	value = sealed[start:len(sealed):len(sealed)]
	if err := b.Put(key, value); err != nil {
		return sealed, err
	}
	return sealed, addDigest(b, digestOf(value))
}

// forEachSealed calls f with each key and value of a bucket, if the bucket
// exists, and verifies that nothing was changed, lost or added. The slices are
// valid during the call only.
func forEachSealed(tx *bbolt.Tx, bucket string, f func(key, value []byte) error) error {
	b := tx.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	digest := uint64(0)
	err := b.ForEach(func(key, sealed []byte) error {
		n := len(sealed) - checksumSize
		if n < 0 || checksum(key, sealed[:n]) != binary.BigEndian.Uint32(sealed[n:]) {
			return fmt.Errorf("%s, key %.64x: checksum mismatch", bucket, key)
		}
		digest += digestOf(sealed)
		return f(key, sealed[:n])
	})
	if err == nil && digest != b.Sequence() {
		err = fmt.Errorf("%s: the digest of its keys is %#x instead of %#x", bucket, digest, b.Sequence())
	}
	return err
}

// checkBuckets finds buckets that do not belong to any table: if a bucket's
// name was damaged, it is missing under its correct name.
func checkBuckets(tx *bbolt.Tx, tables map[string]*Table) error {
	known := map[string]bool{metaBucket: true, tableBucket: true, stateBucket: true}
	for _, t := range tables {
		known[t.rowBucket] = true
		for _, sh := range t.shards {
			known[sh.bucket] = true
		}
	}
	for name := range known {
		if !strings.Contains(name, "/") && tx.Bucket([]byte(name)) == nil {
			return fmt.Errorf("bucket %s is missing", name)
		}
	}
	return tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
		if !known[string(name)] {
			return fmt.Errorf("bucket %q belongs to no table", name)
		}
		return nil
	})
}

// contents are what a data directory holds.
type contents struct {
	tables map[string]*Table
	state  map[string][]byte
}

// load reads everything; the tables will belong to s.
func (d *disk) load(s *Store) (c contents, err error) {
	c = contents{tables: make(map[string]*Table), state: make(map[string][]byte)}
	defer d.recoverDamage(&err)
	// A truncated file faults when its pages are touched.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	err = d.db.View(func(tx *bbolt.Tx) error {
		err := forEachSealed(tx, tableBucket, func(id, value []byte) error {
			t, err := loadTable(tx, s, value)
			if err != nil {
				return fmt.Errorf("table %s: %w", id, err)
			}
			c.tables[t.schema.Name] = t
			return nil
		})
		if err != nil {
			return err
		}
		err = forEachSealed(tx, stateBucket, func(key, value []byte) error {
			c.state[string(key)] = slices.Clone(value)
			return nil
		})
		if err != nil {
			return err
		}
		c.takeAutos()
		if err := linkIndexes(c.tables); err != nil {
			return err
		}
		return checkBuckets(tx, c.tables)
	})
	if err != nil {
		return contents{}, d.damaged(err)
	}
	return c, nil
}

func loadTable(tx *bbolt.Tx, s *Store, value []byte) (*Table, error) {
	var rec tableRecord
	if err := json.Unmarshal(value, &rec); err != nil {
		return nil, err
	}
	t := &Table{
		store: s, id: rec.ID, rowBucket: rowBucketPrefix + rec.ID, created: rec.Created, schema: rec.Schema,
		stream: rec.Stream, shardCount: rec.ShardCount, versionsLowered: rec.Lowered, adjusted: rec.Adjusted, indexOf: rec.IndexOf,
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
		sh.guessAges(s.aging.Now().UnixMicro())
		byID[sh.id] = sh
		t.shards = append(t.shards, sh)
	}
	for _, pr := range rec.Partitions {
		p := newPartition(nil)
		if pr.Low != nil {
			low, err := plainbuffer.DecodeVariant(pr.Low)
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
	auto := slices.IndexFunc(t.schema.Key, func(c KeyColumn) bool { return c.AutoIncrement })
	var row plainbuffer.Row
	return forEachSealed(tx, t.rowBucket, func(key, value []byte) error {
		if auto >= 0 {
			if _, err := plainbuffer.DecodeRow(value, &row); err != nil {
				return fmt.Errorf("row %.64x: %w", key, err)
			}
			t.lastAuto = max(t.lastAuto, row.PrimaryKey[auto].Value.Integer())
		}
		t.partitions[t.find(key)].rows.load(key, value)
		return nil
	})
}

// load reads the shard's log. Everything in the file was committed.
func (s *shard) load(tx *bbolt.Tx) error {
	first := true
	err := forEachSealed(tx, s.bucket, func(key, value []byte) error {
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
		s.agedAt = int64(binary.BigEndian.Uint64(key[8:]))
		s.append(value, s.agedAt)
		return nil
	})
	s.visible = s.next
	return err
}
