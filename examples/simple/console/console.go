// Package console is the main function of an example, and prints what the example does:
// a line for each batch and a table at the end. It also counts what was handled.
package console

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/watermill-ots/watermill-ots/batching"
)

// BatchHandler is a handler in Handlers.Batches.
type BatchHandler = func(context.Context, *batching.Batch) error

// Console prints to a writer. Its methods may be called concurrently.
type Console struct {
	mu      sync.Mutex // guards what follows
	w       io.Writer
	batches int
	handled map[string]struct{} // UUIDs
	changed chan struct{}       // capacity 1: something was handled
}

// New returns a Console that prints to w.
func New(w io.Writer) *Console {
	return &Console{w: w, handled: make(map[string]struct{}), changed: make(chan struct{}, 1)}
}

// Printf prints.
func (c *Console) Printf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.w, format, args...)
}

// Banner prints the source and the sinks, and the column heads of the batches.
func (c *Console) Banner(source, sinks string) {
	c.Printf("from  %s\nto    %s\n\n%-12s  %-8s %8s  %-8s %9s  %s\n", source, sinks, "time", "batcher", "messages", "trigger", "took", "outcome")
}

// Event prints an event with its time.
func (c *Console) Event(format string, args ...any) {
	c.Printf("%s  %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// Row prints a row of the closing table.
func (c *Console) Row(name, format string, args ...any) {
	c.Printf("  %-20s %s\n", name, fmt.Sprintf(format, args...))
}

// Batch wraps a batch handler: it prints each batch and counts the messages
// that succeed.
func (c *Console) Batch(h BatchHandler) BatchHandler {
	return func(ctx context.Context, b *batching.Batch) error {
		began := time.Now()
		err := h(ctx, b)
		took := time.Since(began)
		failed, outcome := c.count(b, err), "ok"
		switch {
		case err != nil:
			outcome = "failed: " + err.Error()
		case failed > 0:
			outcome = fmt.Sprintf("%d failed, the others are done", failed)
		}
		c.Printf("%s  %-8s %8d  %-8s %9s  %s\n", began.Format("15:04:05.000"), b.Batcher, len(b.Messages), b.Trigger, took.Round(10*time.Microsecond), outcome)
		return err
	}
}

// Done counts a message that was handled outside a batch handler.
func (c *Console) Done(uuid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handled[uuid] = struct{}{}
	c.signal()
}

// signal reports a change. mu is held.
func (c *Console) signal() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// count counts the messages that succeeded and returns how many did not.
func (c *Console) count(b *batching.Batch, err error) (failed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batches++
	for _, msg := range b.Messages {
		if err != nil || b.Err(msg) != nil {
			failed++
			continue
		}
		c.handled[msg.UUID] = struct{}{}
	}
	c.signal()
	return failed
}

// Batches returns the number of batches that were handled.
func (c *Console) Batches() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.batches
}

// Handled returns the number of different messages that were handled
// successfully.
func (c *Console) Handled() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.handled)
}

// WaitHandled waits until n different messages were handled successfully. It
// returns early when ctx ends, without an error if that is an interrupt.
func (c *Console) WaitHandled(ctx context.Context, n int, limit time.Duration) error {
	late := time.NewTimer(limit)
	defer late.Stop()
	for c.Handled() < n {
		select {
		case <-c.changed:
		case <-ctx.Done():
			return nil
		case <-late.C:
			return fmt.Errorf("only %d of %d changes were handled within %v", c.Handled(), n, limit)
		}
	}
	return nil
}
