package store

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// When a commit fails, usually because the disk is full, the changes of its
// round are in memory and not on disk. The committer then
//
//  1. fails every later write at once, before it touches memory;
//  2. reads the data directory again and replaces memory with its contents;
//  3. ends the failed round, whose writers answer with the refusal.
//
// Reads continue meanwhile: Read repeats those that saw changes that were taken
// back. The next write probes the disk, at most once per probeInterval; when
// the disk accepts the probe, writes are accepted again.
const (
	probeInterval = 100 * time.Millisecond
	minProbe      = 1 << 20 // bytes
)

// refusal is why writes are refused. committer.mu guards it.
type refusal struct {
	err      error // nil: writes are accepted
	final    bool  // until a restart, and reads are refused too
	needed   int   // bytes that the disk must accept before writes are accepted again
	probing  *round
	probed   time.Time
	takeback int // how often memory was restored to what is on disk
}

// refusing returns why a round is refused. c.mu is held.
func (c *committer) refusing() error {
	if c.closed {
		return unavailable(errClosed)
	}
	return c.refusal.err
}

// refused returns why writes are refused. A write calls it after locking what
// it is about to change, so that memory that was restored stays as it is on
// disk.
func (c *committer) refused() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusing()
}

func unavailable(err error) error {
	return wire.Errorf(wire.CodeServerUnavailable, "The write was not made: %v.", err)
}

// refuse fails round r and the round that is filling, if any, and restores
// memory to what is on disk. The rounds' writers get err.
func (c *committer) refuse(r *round, cause error) (failed []*round, err error) {
	err = unavailable(fmt.Errorf("%w; free space on the disk that holds it: until then only what is durable is served; writes are accepted again automatically", cause))
	if r.probe > 0 {
		c.mu.Lock()
		c.refusal.err = err
		c.refusal.probing = nil
		c.mu.Unlock()
		return []*round{r}, err // memory is as on disk
	}
	final := false
	switch {
	case errors.Is(cause, errFileGone):
		err, final = unavailable(fmt.Errorf("%w; restart the emulator", cause)), true
	case c.synced && c.uncertain(r):
		err, final = unavailable(fmt.Errorf("%w; whether it is on disk is unknown until the next start: restart the emulator", cause)), true
	}
	c.mu.Lock()
	c.refusal.err, c.refusal.final = err, final
	c.refusal.needed = max(minProbe, 2*r.size())
	c.refusal.probed = time.Now()
	failed = []*round{r}
	if c.filling != nil {
		failed = append(failed, c.filling)
		c.filling = nil
	}
	c.mu.Unlock()
	lost := c.reload()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusal.takeback++
	if lost != nil {
		err = unavailable(fmt.Errorf("%w, and reading it again failed (%w): restart the emulator", cause, lost))
		c.refusal.err, c.refusal.final = err, true
	}
	return failed, err
}

// uncertain reports whether a failed commit got as far as the page that makes
// it valid. Then a flush failed, and it is unknown what is on the device.
func (c *committer) uncertain(r *round) bool {
	unknown := true
	err := c.db.View(func(tx *bbolt.Tx) error {
		unknown = tx.ID() >= r.txid
		return nil
	})
	return unknown || err != nil
}

// revive returns nil if writes are accepted. After a refusal it probes the disk
// first. No lock is held.
func (c *committer) revive() error {
	c.mu.Lock()
	f := &c.refusal
	if c.closed || f.err == nil || f.final || f.probing == nil && time.Since(f.probed) < probeInterval {
		defer c.mu.Unlock()
		return c.refusing()
	}
	if f.probing == nil {
		f.probing = &round{probe: f.needed, done: make(chan struct{})}
		c.filling = f.probing // empty, as no round is accepted
		c.signal()
	}
	r := f.probing
	c.mu.Unlock()
	return c.wait(r)
}

// probe checks that the disk accepts size bytes. They are freed inside the
// file, where the next rounds use them.
func (c *committer) probe(size int) error {
	key := []byte("probe")
	err := c.update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(metaBucket)).Put(key, make([]byte, size)) })
	if err == nil {
		err = c.update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(metaBucket)).Delete(key) })
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusal.probed = time.Now()
	if err != nil {
		return fmt.Errorf("writing to %s: %w", c.db.Path(), err)
	}
	c.refusal.err, c.refusal.probing = nil, nil
	return nil
}

// reload replaces memory with what is on disk. Operations that hold one of the
// old tables find it marked as taken back.
func (s *Store) reload() error {
	all, err := s.disk.load(s)
	if err != nil {
		return err
	}
	s.mu.Lock()
	old := s.tables
	for _, t := range old {
		t.mu.Lock()
		t.takenBack = true
		if now := all.tables[t.schema.Name]; now != nil && now.id == t.id {
			now.keepAges(t)
		}
		t.mu.Unlock()
	}
	known := s.byID // no other goroutine has the map any more
	s.tables, s.byID, s.state = all.tables, byID(all.tables), all.state
	s.mu.Unlock()
	for _, t := range all.tables {
		delete(known, t.id)
		s.notify(t.id, false)
	}
	// The creation of these tables was taken back. Watchers find out when they
	// next look. They are not notified here: they may save state, which waits
	// for this goroutine.
	for id := range known {
		s.notify(id, false)
	}
	return nil
}

// readAttempts bounds how often a read is repeated. Each repetition follows a
// write that the disk refused.
const readAttempts = 20

// Read calls f, which reads tables, and returns once everything that f can have
// seen is durable. If the disk refuses some of it, f is called again and sees
// what is durable.
func (s *Store) Read(f func() error) error {
	var lost error
	for range readAttempts {
		before := s.commits.takebacks()
		err := f()
		if lost = s.commits.settle(before); lost == nil {
			return err
		}
		if s.commits.final() {
			break
		}
	}
	return lost
}

// Write calls f, which changes tables, once. If settled is set or f fails, it
// waits as Read does, since the answer reveals what f has seen; then an error
// says that the disk refused some of it.
func (s *Store) Write(settled bool, f func() error) error {
	before := s.commits.takebacks()
	err := f()
	if err == nil && !settled {
		return nil
	}
	lost := s.commits.settle(before)
	if lost == nil || isUnavailable(err) { // its text says more
		return err
	}
	return lost
}

func isUnavailable(err error) bool {
	var e *wire.Error
	return errors.As(err, &e) && e.Code == wire.CodeServerUnavailable
}

func (c *committer) takebacks() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusal.takeback
}

// final reports whether nothing can be served until a restart.
func (c *committer) final() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusal.final
}

// settle waits until the contents of memory are durable. It fails if something
// was taken back since takebacks returned before.
func (c *committer) settle(before int) error {
	if c.db == nil {
		return nil
	}
	if err := c.wait(c.newest()); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.refusal.final:
		return c.refusal.err
	case c.refusal.takeback != before:
		return errTakenBack
	}
	return nil
}

// errTakenBack is the answer to a call that depends on a write which the disk
// refused.
var errTakenBack = wire.Errorf(wire.CodeServerUnavailable, "The disk refused a write that this call depends on, and the write was taken back; try again.")

// usable returns why the table cannot be used. t.mu is held.
func (t *Table) usable() error {
	switch {
	case t.takenBack:
		return errTakenBack
	case t.dropped:
		return errNoTable()
	}
	return nil
}

// writable returns why the table cannot be changed. t.mu is held.
func (t *Table) writable() error {
	if err := t.usable(); err != nil {
		return err
	}
	return t.store.commits.refused()
}
