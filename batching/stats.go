package batching

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/ack"
)

// BatcherStats is a snapshot of one batcher, in all scopes. The counters start with New and
// never go down. Durations are nanoseconds in JSON.
type BatcherStats struct {
	Batcher     string        `json:"batcher"`          // its name
	Size        int           `json:"size"`             // as configured
	Timeout     time.Duration `json:"timeout_ns"`       // as configured
	Concurrency int           `json:"concurrency"`      // as configured
	Scopes      int           `json:"scopes,omitempty"` // that have messages at this moment; 0 without Config.Scope

	Waiting  int `json:"waiting"`  // messages in batches that do not run yet
	Running  int `json:"running"`  // batches, at most Concurrency in each scope
	Handling int `json:"handling"` // messages in batches that run
	Ready    int `json:"ready"`    // batches that wait only for Concurrency, or for the end of an outage

	// DownSince is when the current outage was detected (Batcher.Probe); zero while
	// the handler works. DownError is its latest failure, Probes how many messages
	// have been tried since then.
	DownSince time.Time `json:"down_since,omitzero"`
	DownError string    `json:"down_error,omitempty"`
	Probes    int       `json:"probes,omitempty"`

	Batches       map[Trigger]uint64 `json:"batches"` // handled batches, by trigger; has every trigger
	FailedBatches uint64             `json:"failed_batches"`

	Succeeded  uint64 `json:"succeeded"`   // messages
	Failed     uint64 `json:"failed"`      // messages
	CalledBack uint64 `json:"called_back"` // messages whose outcome does not count: an earlier one of their key failed

	WaitTime     time.Duration `json:"wait_time_ns"`     // sum over all batches, from the first message to the handler
	HandlingTime time.Duration `json:"handling_time_ns"` // sum over all batches, in their handlers
}

// Stats returns a snapshot of the batchers, sorted by name. It takes a short
// lock and may be called at any time, also after Close.
func (b *Batching) Stats() []BatcherStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]BatcherStats, 0, len(b.batchers))
	for _, name := range slices.Sorted(maps.Keys(b.batchers)) {
		bt := b.batchers[name]
		st := bt.stats
		st.Batcher, st.Size, st.Timeout, st.Concurrency = name, bt.Size, bt.Timeout, bt.Concurrency
		st.Running = bt.partitions - len(bt.free)
		st.Ready = bt.readyBatches()
		if b.scope != nil {
			st.Scopes = len(bt.scopes)
		}
		if bt.down != nil {
			st.DownSince, st.Probes = bt.down.Since, bt.down.Probes
			if bt.down.Err != nil {
				st.DownError = bt.down.Err.Error()
			}
		}
		st.Batches = make(map[Trigger]uint64, len(triggers))
		for i, t := range triggers {
			st.Batches[t] = bt.batches[i]
		}
		all = append(all, st)
	}
	return all
}

var triggers = [...]Trigger{
	TriggerSize, TriggerBytes, TriggerTimeout, TriggerIdle, TriggerFlush, TriggerOrder, TriggerDrain, TriggerClose, TriggerProbe,
}

// Handled describes a batch that was handled, for Config.OnBatch.
type Handled struct {
	Batcher string
	Key     string // batch key
	Trigger Trigger

	Messages   int
	Failed     int // of these
	CalledBack int // of these; their outcome does not count

	Waited time.Duration // from the first message to the handler
	Took   time.Duration // in the handler; with Isolate, in all its calls
}

// result is the outcome of a batch. It belongs to the goroutine that runs the batch,
// until the batch is finished. It is kept in the batch, not on that goroutine's stack,
// which would otherwise have to grow.
type result struct {
	messages           int
	failed, calledBack int
	own                int // failed messages that failed alone or were given to Batch.Fail
	began              time.Time
	took               time.Duration

	before      uint64     // messages of the batcher that had succeeded when the batch began
	failures    []*Failure // the errors of its items
	outage      error      // the failure, if all messages that were tried failed; nil: no sign of an outage
	err         error      // of the first message that failed
	firstFailed string     // UUID of the first message that failed
	names       []string   // of the first messages that failed
	stack       string     // of a panic
}

// mostNames limits how many failed messages a log line names.
const mostNames = 3

// sum fills in the result of a batch whose items are all settled.
func (r *result) sum(b *Batching, ob *openBatch, items []*item) {
	r.took = time.Since(r.began)
	r.messages = len(items)
	for _, it := range items {
		switch {
		case it.calledBack(), it.turn != nil && errors.Is(it.err, errRevoked):
			r.calledBack++
		case it.err != nil:
			r.failed++
			if f := new(Failure); errors.As(it.err, &f) && f.Alone {
				r.own++
			}
			if r.err == nil {
				r.err, r.firstFailed = it.err, it.msg.UUID
			}
			if len(r.names) < mostNames {
				r.names = append(r.names, b.nameOf(it.msg))
			}
		}
	}
	after := ob.batcher.succeeded.Load()
	logged := r.logs()
	for _, f := range r.failures {
		f.After, f.logged = after, logged
	}
	if panicked := new(ack.PanicError); errors.As(r.err, &panicked) {
		r.stack = string(panicked.Stack)
	}
}

// logs reports whether to log the batch as an error: some messages failed, and not
// only because they were interrupted.
func (r *result) logs() bool { return r.failed > 0 && len(r.failures) > 0 }

// callOnBatch calls the user's OnBatch, which may panic.
func (b *Batching) callOnBatch(ob *openBatch) {
	r := &ob.result
	if b.onBatch == nil || r.messages == 0 { // all messages had left
		return
	}
	defer func() {
		if v := recover(); v != nil {
			err := ack.NewPanicError("Config.OnBatch", v)
			b.logger.Error("Config.OnBatch panicked", err, watermill.LogFields{"stack": string(err.Stack)})
		}
	}()
	b.onBatch(Handled{
		Batcher: ob.batcher.name, Key: ob.key, Trigger: ob.trigger,
		Messages: r.messages, Failed: r.failed, CalledBack: r.calledBack,
		Waited: r.began.Sub(ob.oldest), Took: r.took,
	})
}

// count adds the result of a batch to the counters. The caller holds mu.
func (bt *batcher) count(ob *openBatch) {
	s, r := &bt.stats, &ob.result
	if r.messages == 0 {
		return
	}
	s.Handling -= r.messages
	bt.batches[slices.Index(triggers[:], ob.trigger)]++
	if r.failed > 0 {
		s.FailedBatches++
	}
	s.Failed += uint64(r.failed)
	s.CalledBack += uint64(r.calledBack)
	s.Succeeded += uint64(r.messages - r.failed - r.calledBack)
	s.WaitTime += r.began.Sub(ob.oldest)
	s.HandlingTime += r.took
}
