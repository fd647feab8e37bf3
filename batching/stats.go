package batching

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/ack"
)

// BatcherStats is a snapshot of one batcher. The counters start with New and
// never go down. Durations are nanoseconds in JSON.
type BatcherStats struct {
	Batcher     string        `json:"batcher"`     // its name
	Size        int           `json:"size"`        // as configured
	Timeout     time.Duration `json:"timeout_ns"`  // as configured
	Concurrency int           `json:"concurrency"` // as configured

	Waiting  int `json:"waiting"`  // messages in batches that do not run yet
	Running  int `json:"running"`  // batches, at most Concurrency
	Handling int `json:"handling"` // messages in batches that run
	Ready    int `json:"ready"`    // batches that wait for nothing but Concurrency, or for the end of an outage

	// DownSince is when an outage was noticed that goes on (Batcher.Probe); zero
	// while the handler works. DownError is its latest failure, Probes how many
	// messages have been tried since.
	DownSince time.Time `json:"down_since,omitzero"`
	DownError string    `json:"down_error,omitempty"`
	Probes    int       `json:"probes,omitempty"`

	Batches       map[Trigger]uint64 `json:"batches"` // that were handled, by trigger; each trigger is there
	FailedBatches uint64             `json:"failed_batches"`

	Succeeded  uint64 `json:"succeeded"`   // messages
	Failed     uint64 `json:"failed"`      // messages
	CalledBack uint64 `json:"called_back"` // messages whose outcome does not count: an earlier one of their key failed

	WaitTime     time.Duration `json:"wait_time_ns"`     // of all batches, each from its first message to its handler
	HandlingTime time.Duration `json:"handling_time_ns"` // of all batches, in their handlers
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
		st.Running = bt.Concurrency - len(bt.free)
		for _, ob := range bt.ready {
			if ob.phase != done {
				st.Ready++
			}
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

// Handled is a batch that was handled, as told to Config.OnBatch.
type Handled struct {
	Batcher string
	Key     string // batch key
	Trigger Trigger

	Messages   int
	Failed     int // of these
	CalledBack int // of these; their outcome does not count

	Waited time.Duration // from the first message to the handler
	Took   time.Duration // in the handler, in all its calls with Isolate
}

// result is what became of a batch. It belongs to the goroutine that runs the
// batch, until that is finished. It lives in the batch, not in that goroutine's
// frames: they are deep enough already for the small stack of a goroutine that
// is new.
type result struct {
	messages           int
	failed, calledBack int
	own                int // of those that failed: alone, or named by Batch.Fail
	began              time.Time
	took               time.Duration

	before      uint64     // messages of the batcher that had succeeded when it began
	failures    []*Failure // that its items have
	outage      error      // what failed, when nothing succeeded that was tried; nil: no sign of that
	err         error      // of the first message that failed
	firstFailed string     // UUID of that
	names       []string   // of the first messages that failed
	stack       string     // of a panic
}

// mostNames bounds the failed messages that a log line names.
const mostNames = 3

// sum takes the result of a batch whose items are all settled.
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

// logs reports whether the batch is worth an error line: some of it failed,
// other than because of its end.
func (r *result) logs() bool { return r.failed > 0 && len(r.failures) > 0 }

// tell tells OnBatch of a batch. It is the user's: it may panic.
func (b *Batching) tell(ob *openBatch) {
	r := &ob.result
	if b.onBatch == nil || r.messages == 0 { // all had left
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

// count adds the result of a batch. The caller holds mu.
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
