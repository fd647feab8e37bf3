package main

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/examples/simple/pxytest"
	"github.com/watermill-ots/watermill-ots/ots"
)

// alertFrom is the smallest value of a change that is an alert.
const alertFrom = 950

// batcherOf returns the batcher for a change. The batchers sqs and s3 write to
// the sinks.
func batcherOf(row pxytest.Row) string {
	switch {
	case row.Value >= alertFrom:
		return "alerts"
	case row.Value%2 == 0:
		return "sqs"
	}
	return "s3"
}

// sinkOf is batcherOf in the form that the check at the end needs.
func sinkOf(row pxytest.Row) string {
	if b := batcherOf(row); b != "alerts" {
		return b
	}
	return ""
}

// processor is the processing step. It has a bug, and fails for some values
// until it is fixed.
type processor struct {
	fixed atomic.Bool
}

// process is called for each message and chooses the batcher.
func (p *processor) process(msg *message.Message) error {
	row, err := pxytest.RowOf(msg)
	if err != nil {
		return err
	}
	if row.Value%100 == 7 && !p.fixed.Load() {
		return fmt.Errorf("value %d: sevens are not implemented (a simulated bug, to show dead letters)", row.Value)
	}
	batching.SetBatcher(msg, batcherOf(row))
	return nil
}

// ages is a middleware that measures the time from the write of a change until
// it is done, batch and sink included. Its methods may be called concurrently.
type ages struct {
	mu   sync.Mutex
	took []time.Duration
}

// Middleware is outside of the batches: h returns when the message's batch is
// done.
func (a *ages) Middleware(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		produced, err := h(msg)
		if r, ok := ots.RecordFromMessage(msg); ok && err == nil {
			took := time.Since(time.UnixMicro(r.Sequence.Timestamp))
			a.mu.Lock()
			a.took = append(a.took, took)
			a.mu.Unlock()
		}
		return produced, err
	}
}

// median returns the median so far, or 0 if nothing was measured.
func (a *ages) median() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.took) == 0 {
		return 0
	}
	slices.Sort(a.took)
	return a.took[len(a.took)/2]
}

// failures counts failed attempts.
type failures struct{ n atomic.Int64 }

// failed is Handlers.Failed.
func (f *failures) failed(*message.Message, error) { f.n.Add(1) }
