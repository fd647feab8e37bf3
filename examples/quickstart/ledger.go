package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// ledger is the sink: it notes each change that was handled, one line per
// delivery, in a file if there is a data directory. A line is a message's UUID:
// the same change has the same UUID on every delivery.
type ledger struct {
	mu      sync.Mutex
	file    *os.File // nil without a data directory
	seen    map[string]int
	lines   int
	before  int // lines written by an earlier process
	flaws   int
	last    map[string]int64 // by key: the newest change handled, by this process
	wrong   int              // changes first handled after a newer one of their key
	changes chan struct{}    // capacity 1: something was written
}

func openLedger(dir string) (*ledger, error) {
	l := &ledger{seen: make(map[string]int), last: make(map[string]int64), changes: make(chan struct{}, 1)}
	if dir == "" {
		return l, nil
	}
	f, err := os.OpenFile(filepath.Join(dir, "ledger.txt"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	l.file = f
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		l.seen[lines.Text()]++
		l.lines++
	}
	l.before = l.lines
	return l, lines.Err()
}

var errFlaky = errors.New("the payment service did not answer (simulated, to show a redelivery)")

// write is a batch handler. Occasionally it fails one message of a batch: only that one
// is redelivered, the others are done. Later changes of its order in the same batch are
// redelivered behind it, whatever becomes of them here, so that they are not written.
func (l *ledger) write(_ context.Context, b *batching.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []byte
	failed := make(map[string]bool) // by key
	for _, msg := range b.Messages {
		key := msg.Metadata.Get(subscriber.MetadataKey)
		if failed[key] {
			continue
		}
		if r, ok := ots.RecordFromMessage(msg); ok && r.Attempt == 1 && r.Sequence.Timestamp%211 == 0 {
			l.flaws++
			b.Fail(msg, errFlaky)
			failed[key] = true
			continue
		}
		if r, ok := ots.RecordFromMessage(msg); ok && l.seen[msg.UUID] == 0 {
			l.follow(key, r)
		}
		l.seen[msg.UUID]++
		l.lines++
		lines = append(append(lines, msg.UUID...), '\n')
	}
	select {
	case l.changes <- struct{}{}:
	default:
	}
	if l.file == nil {
		return nil
	}
	if _, err := l.file.Write(lines); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	return nil
}

// follow notes a change that is handled for the first time. mu is held.
func (l *ledger) follow(key string, r *ots.Record) {
	nth, ok := r.Column("changes") // counts the changes of the row; a table of others may not have it
	if !ok {
		return
	}
	if nth.Int64() < l.last[key] {
		l.wrong++
	}
	l.last[key] = max(l.last[key], nth.Int64())
}

// disorder counts the changes that were first handled after a newer one of their key.
func (l *ledger) disorder() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wrong
}

// changed has a value if something was written since it last had one.
func (l *ledger) changed() <-chan struct{} { return l.changes }

// distinct counts the changes that were handled at least once.
func (l *ledger) distinct() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.seen)
}

// totals returns the changes handled, the deliveries, those of them handled by
// an earlier process, and the simulated failures.
func (l *ledger) totals() (distinct, deliveries, before, failed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.seen), l.lines, l.before, l.flaws
}

// Close closes the file.
func (l *ledger) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
