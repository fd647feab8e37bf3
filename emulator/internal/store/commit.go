package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"
)

type mutationKind uint8

const (
	putKey      mutationKind = iota
	deleteKey                // the key exists
	putRecord                // of a log, at offset and micros
	trimRecords              // all log records before offset
	dropBucket
)

// mutation is one change on disk. Its slices must not be modified.
type mutation struct {
	kind           mutationKind
	isNew          bool // putKey only: the key does not exist yet
	bucket         string
	key, value     []byte
	offset, micros int64
}

// round is a group of mutations that are committed in one transaction.
type round struct {
	mutations []mutation
	published []publication
	probe     int           // if set, no mutations: check whether the disk accepts this many bytes
	txid      int           // of the transaction that commits the round
	done      chan struct{} // closed when committed, or failed and rolled back
	err       error         // set before done is closed
}

// publication makes a shard's records readable up to an offset.
type publication struct {
	shard *shard
	upTo  int64
}

// committer writes mutations to disk in the order in which they are queued.
// While one round is being written, the next one fills, so many writers share a
// transaction. refusal.go handles a disk that refuses a write.
//
// Invariants:
//   - a round is on disk with all rounds before it, or it failed;
//   - when a round fails, so does every round after it until memory has been
//     brought back to what is on disk, and the disk has taken a probe;
//   - the waiters of a failed round continue once memory is restored.
type committer struct {
	db     *bbolt.DB // nil: everything is in memory, nothing to wait for
	reload func() error
	there  func() error                      // returns why the open file is no longer the data directory's
	update func(func(*bbolt.Tx) error) error // db.Update, or a test's
	synced bool                              // commits are flushed to the device

	mu      sync.Mutex // guards the following
	filling *round     // nil when nothing is queued
	writing *round     // nil when nothing is being written
	closed  bool
	refusal refusal

	wake     chan struct{} // holds one token: there is a round, or closed is set
	finished chan struct{}
}

var errClosed = errors.New("the store is closed")

// newCommitter starts a goroutine, for which close waits. reload restores
// memory to what is on disk; there reports whether the open file is still the
// data directory's. That goroutine calls both, without holding a lock.
func newCommitter(db *bbolt.DB, synced bool, reload, there func() error) *committer {
	c := &committer{db: db, reload: reload, there: there, synced: synced, wake: make(chan struct{}, 1), finished: make(chan struct{})}
	if db == nil {
		close(c.finished)
		return c
	}
	c.update = db.Update
	go c.run()
	return c
}

// enqueue queues mutations and the publication of the records that s holds by
// then. The caller holds the lock that orders them among other mutations of the
// same rows. The round is nil if there is nothing to wait for.
func (c *committer) enqueue(mutations []mutation, s *shard) *round {
	if len(mutations) == 0 {
		return nil
	}
	if c.db == nil {
		if s != nil {
			s.publish(s.tail())
		}
		return nil
	}
	var upTo int64
	if s != nil {
		upTo = s.tail()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.refusing(); err != nil {
		r := &round{done: make(chan struct{}), err: err}
		close(r.done)
		return r
	}
	if c.filling == nil {
		c.filling = &round{done: make(chan struct{})}
		c.signal()
	}
	r := c.filling
	r.mutations = append(r.mutations, mutations...)
	if s != nil {
		r.published = append(r.published, publication{s, upTo})
	}
	return r
}

func (c *committer) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// newest returns the round with the latest change in memory, or nil if all
// changes are durable.
func (c *committer) newest() *round {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.filling != nil && c.filling.probe == 0:
		return c.filling
	case c.writing != nil && c.writing.probe == 0:
		return c.writing
	}
	return nil
}

// wait returns when the round is durable. It cannot be cancelled: the caller
// must not answer before, and a round takes at most one transaction.
func (c *committer) wait(r *round) error {
	if r == nil {
		return nil
	}
	<-r.done
	return r.err
}

// run commits rounds until the committer is closed and drained.
func (c *committer) run() {
	defer close(c.finished)
	for range c.wake {
		c.mu.Lock()
		r, closed := c.filling, c.closed
		c.filling, c.writing = nil, r
		c.mu.Unlock()
		if r != nil {
			c.handle(r)
		}
		if closed {
			return
		}
	}
}

// handle commits a round, or probes the disk for it.
func (c *committer) handle(r *round) {
	var err error
	if r.probe > 0 {
		err = c.probe(r.probe)
	} else {
		err = c.commit(r)
	}
	failed := []*round{r}
	if err != nil {
		failed, r.err = c.refuse(r, err)
	}
	c.mu.Lock()
	c.writing = nil
	c.mu.Unlock()
	for _, f := range failed {
		f.err = r.err
		close(f.done)
	}
}

func (c *committer) commit(r *round) error {
	sealed := make([]byte, 0, r.size()) // all values of the round; bbolt refers to them until the commit
	err := c.update(func(tx *bbolt.Tx) error {
		r.txid = tx.ID()
		for i := range r.mutations {
			var err error
			if sealed, err = r.mutations[i].apply(tx, sealed); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = c.there()
	}
	if err != nil {
		return fmt.Errorf("committing %d changes to %s: %w", len(r.mutations), c.db.Path(), err)
	}
	for _, p := range r.published {
		p.shard.publish(p.upTo)
	}
	return nil
}

// size is the number of bytes that the round's values take on disk.
func (r *round) size() int {
	size := 0
	for i := range r.mutations {
		size += len(r.mutations[i].value) + checksumSize
	}
	return size
}

// close commits what is queued and stops the goroutine. A second call waits
// too.
func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.signal()
	<-c.finished
}

// apply makes the change in tx. It appends the value to sealed and returns the
// extended slice.
func (m *mutation) apply(tx *bbolt.Tx, sealed []byte) ([]byte, error) {
	name := []byte(m.bucket)
	if m.kind == dropBucket {
		if tx.Bucket(name) == nil {
			return sealed, nil
		}
		return sealed, tx.DeleteBucket(name)
	}
	b := tx.Bucket(name)
	if b == nil {
		if m.kind == trimRecords {
			return sealed, nil // dropped in the meantime
		}
		var err error
		if b, err = tx.CreateBucket(name); err != nil {
			return sealed, fmt.Errorf("creating bucket %s: %w", m.bucket, err)
		}
	}
	var err error
	switch m.kind {
	case putKey:
		if !m.isNew {
			err = addDigest(b, -digestOf(b.Get(m.key)))
		}
		if err != nil {
			break
		}
		sealed, err = putSealed(b, m.key, m.value, sealed)
	case deleteKey:
		if err = addDigest(b, -digestOf(b.Get(m.key))); err == nil {
			err = b.Delete(m.key)
		}
	case putRecord:
		b.FillPercent = 1 // only ever appended to
		sealed, err = putSealed(b, recordKey(m.offset, m.micros), m.value, sealed)
	case trimRecords:
		cursor := b.Cursor()
		for key, value := cursor.First(); key != nil && err == nil && recordOffset(key) < m.offset; key, value = cursor.First() {
			if err = addDigest(b, -digestOf(value)); err == nil {
				err = cursor.Delete()
			}
		}
	}
	return sealed, err
}

// recordKey is a log record's key on disk: its offset, for order, and its time.
func recordKey(offset, micros int64) []byte {
	key := binary.BigEndian.AppendUint64(make([]byte, 0, 16), uint64(offset))
	return binary.BigEndian.AppendUint64(key, uint64(micros))
}

func recordOffset(key []byte) int64 { return int64(binary.BigEndian.Uint64(key)) }
