package batching

import (
	"maps"
	"slices"
	"time"
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
	Ready    int `json:"ready"`    // batches that wait for nothing but Concurrency

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
		st.Batches = make(map[Trigger]uint64, len(triggers))
		for i, t := range triggers {
			st.Batches[t] = bt.batches[i]
		}
		all = append(all, st)
	}
	return all
}

var triggers = [...]Trigger{
	TriggerSize, TriggerBytes, TriggerTimeout, TriggerIdle, TriggerFlush, TriggerOrder, TriggerDrain, TriggerClose,
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
// batch. It lives in the batch, not in that goroutine's frames: they are deep
// enough already for the small stack of a goroutine that is new.
type result struct {
	messages           int
	failed, calledBack int
	began              time.Time
	took               time.Duration
}

// sum takes the result of a batch whose items are all settled.
func (r *result) sum(items []*item) {
	r.took = time.Since(r.began)
	r.messages = len(items)
	for _, it := range items {
		switch {
		case it.calledBack():
			r.calledBack++
		case it.err != nil:
			r.failed++
		}
	}
}

// tell tells OnBatch of a batch.
func (b *Batching) tell(ob *openBatch) {
	r := &ob.result
	if b.onBatch == nil || r.messages == 0 { // all had left
		return
	}
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
