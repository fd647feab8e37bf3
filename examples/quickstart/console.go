package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/watermill-ots/watermill-ots/batching"
)

// console prints what happens, one line per batch, and a table at the end.
type console struct {
	mu      sync.Mutex
	w       io.Writer
	batches int
}

func newConsole(w io.Writer) *console { return &console{w: w} }

func (c *console) printf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.w, format, args...)
}

func (c *console) banner(s *source) {
	where := s.endpoint
	if s.embedded() {
		where += " (emulator inside this process)"
	}
	c.printf("Tablestore  %s\nTunnel      %s\n\n%-12s  %-7s %8s  %-8s %9s  %s\n", where, s.topic(), "time", "batcher", "messages", "trigger", "took", "outcome")
}

// batch wraps a batch handler: it prints a line for each batch.
func (c *console) batch(h func(context.Context, *batching.Batch) error) func(context.Context, *batching.Batch) error {
	return func(ctx context.Context, b *batching.Batch) error {
		began := time.Now()
		err := h(ctx, b)
		outcome := "ok"
		failed := 0
		for _, msg := range b.Messages {
			if b.Err(msg) != nil {
				failed++
			}
		}
		switch {
		case err != nil:
			outcome = "failed, will be redelivered: " + err.Error()
		case failed > 0:
			outcome = fmt.Sprintf("%d failed; only those are redelivered", failed)
		}
		c.mu.Lock()
		c.batches++
		c.mu.Unlock()
		c.printf("%s  %-7s %8d  %-8s %9s  %s\n", began.Format("15:04:05.000"), b.Batcher, len(b.Messages), b.Trigger, time.Since(began).Round(time.Microsecond), outcome)
		return err
	}
}

func (c *console) split() {
	c.printf("%s  a partition of the table is split: its channel ends, two others continue\n", time.Now().Format("15:04:05.000"))
}

func (c *console) closing(interrupted bool) {
	if interrupted {
		c.printf("\nInterrupted: finishing what is in flight, committing, disconnecting.\n")
		return
	}
	c.printf("\nAll written, all handled: committing, disconnecting.\n")
}

// table prints the closing table. Its figures come from the table, the tunnel
// and the ledger, not from the library's counters.
func (c *console) table(s *source, l *ledger, alerted int) error {
	handled, deliveries, before, failed := l.totals()
	pos, err := s.position()
	if err != nil {
		return err
	}
	row := func(name string, format string, args ...any) {
		c.printf("  %-22s %s\n", name, fmt.Sprintf(format, args...))
	}
	c.printf("\n")
	if s.embedded() {
		written, err := s.countChanges()
		if err != nil {
			return err
		}
		row("records written", "%d", written)
		defer func() {
			if handled < written {
				c.printf("\n%d records are not handled yet: start again to continue.\n", written-handled)
			}
		}()
	}
	row("records handled", "%d", handled)
	if before > 0 {
		row("  by earlier runs", "%d deliveries", before)
	}
	row("redelivered", "%d after a failure, %d handled twice", failed, deliveries-handled)
	row("forwarded", "%d to the gochannel topic large-orders", alerted)
	row("batches", "%d", c.batches)
	if pos.committed.IsZero() {
		row("committed position", "none, %d channels", pos.channels)
		return nil
	}
	row("committed position", "%s, %d channels", pos.committed.Format("15:04:05.000000"), pos.channels)
	row("lag", "%s", s.lag(pos))
	return nil
}
