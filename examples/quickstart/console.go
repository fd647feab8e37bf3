package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/watermill-ots/watermill-ots/batching"
)

// console prints what happens, one line per batch, and a table with a verdict at the end.
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

// event prints a line with its time.
func (c *console) event(format string, args ...any) {
	c.printf("%s  %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// count returns a number with its noun.
func count(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "ch"):
		return fmt.Sprintf("%d %ses", n, noun)
	case strings.HasSuffix(noun, "ry"):
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(noun, "y"))
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// banner says what is about to happen, and what of it is made up.
func (c *console) banner(s *source, l *ledger, duration time.Duration) {
	if s.embedded() {
		c.printf(`A shop writes orders and payments to a table for %s. Each change comes back through
a tunnel of the table, as a message; a Watermill Router handles it, in batches: all
go to a ledger, and those of large orders also to another publisher.

Made up are the shop; Tablestore, which is an emulator inside this process; the payment
service, which fails about one message in 200 the first time; and a split of the table's
partition. The consumer is what you would write.

`, duration)
	}
	where := s.endpoint
	if s.embedded() {
		where += " (emulator inside this process)"
	}
	c.printf("Tablestore  %s\nTunnel      %s\n", where, s.topic())
	if handled, deliveries, _, _ := l.totals(); deliveries > 0 {
		c.printf("Resuming    the ledger has %s of earlier runs; the tunnel continues behind their last checkpoint\n", count(handled, "change"))
		c.printf("            after a kill -9 the service waits %s for the dead process before it gives its channels away\n", heartbeatTimeout)
	}
	c.printf(`
trigger says why a batch was handled: it was full (size), its time was up (timeout), a
later change of one of its orders waits for it (order), or waiting was pointless: its
channel ends, or all that may be in flight waits already (drain).

%-12s  %-7s %8s  %-8s %9s  %s
`, "time", "batcher", "messages", "trigger", "took", "outcome")
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
		case failed == 1:
			outcome = "1 failed (made up); only that one is redelivered"
		case failed > 1:
			outcome = fmt.Sprintf("%d failed (made up); only those are redelivered", failed)
		}
		c.mu.Lock()
		c.batches++
		c.mu.Unlock()
		c.printf("%s  %-7s %8d  %-8s %9s  %s\n", began.Format("15:04:05.000"), b.Batcher, len(b.Messages), b.Trigger, time.Since(began).Round(time.Microsecond), outcome)
		return err
	}
}

func (c *console) split() {
	c.event("a partition of the table is split (made up): its channel ends, two others continue")
}

// progress prints how far writing and handling are, every two seconds until ctx ends.
func (c *console) progress(ctx context.Context, began time.Time, duration time.Duration, l *ledger) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			handled, _, _, _ := l.totals()
			if left := duration - time.Since(began); left > 0 {
				c.event("-- %s handled; the shop writes for %s more", count(handled, "change"), left.Round(time.Second))
			} else {
				c.event("-- %s handled; the shop is closed, the rest follows", count(handled, "change"))
			}
		case <-ctx.Done():
			return
		}
	}
}

func (c *console) closing(interrupted bool) {
	if interrupted {
		c.printf("\nInterrupted: finishing what is in flight, committing, disconnecting.\n")
		return
	}
	c.printf("\nAll written, all handled: committing, disconnecting.\n")
}

// table prints the closing table and the verdict. Its figures come from the table, the
// tunnel and the ledger, not from the library's counters. The error is a broken promise.
func (c *console) table(s *source, l *ledger, alerted int, interrupted bool) error {
	handled, deliveries, before, failed := l.totals()
	pos, err := s.position()
	if err != nil {
		return err
	}
	row := func(name string, format string, args ...any) {
		c.printf("  %-22s %s\n", name, fmt.Sprintf(format, args...))
	}
	written := handled
	c.printf("\n")
	if s.embedded() {
		if written, err = s.countChanges(); err != nil {
			return err
		}
		row("changes written", "%d", written)
	}
	row("changes handled", "%d", handled)
	if before > 0 {
		row("  by earlier runs", "%s", count(before, "delivery"))
	}
	row("redelivered", "%d after a failure", failed)
	row("handled twice", "%d", deliveries-handled)
	row("forwarded", "%d to the gochannel topic large-orders", alerted)
	row("batches", "%d", c.batches)
	if pos.committed.IsZero() {
		row("committed position", "none, %s", count(pos.channels, "channel"))
	} else {
		row("committed position", "%s, %s", pos.committed.Format("15:04:05.000000"), count(pos.channels, "channel"))
		row("lag", "%s", s.lag(pos))
	}
	c.printf("\n")
	return c.verdict(s, written, handled, deliveries-handled, l.disorder(), interrupted)
}

// verdict says whether what was promised was kept.
func (c *console) verdict(s *source, written, handled, twice, disorder int, interrupted bool) error {
	switch {
	case disorder > 0:
		return fmt.Errorf("verdict: %s handled before an earlier one of the same order", count(disorder, "change"))
	case handled < written && !interrupted:
		return fmt.Errorf("verdict: %d of %s are not handled", written-handled, count(written, "change"))
	case handled < written:
		c.printf("Verdict: so far so good. %s not handled yet: they are in the tunnel, which continues there.\n", count(written-handled, "change"))
	case s.embedded():
		c.printf("Verdict: kept. Every change was handled, and those of an order in their order.\n")
	default:
		c.printf("Verdict: changes of a row were handled in their order; the tunnel continues at the committed position.\n")
	}
	if twice > 0 {
		c.printf("Handled twice: delivery is at least once. What a killed run had handled behind its last checkpoint is delivered again.\n")
	}
	if s.embedded() {
		c.printf(`
Next: kill it with kill -9 and start it again, nothing is lost:  go run ./examples/quickstart -data-dir /tmp/shop
      your own consumer of your own table, in five minutes:       docs/first-consumer.md
`)
	}
	return nil
}
