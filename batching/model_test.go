package batching

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"pgregory.net/rapid"

	_ "github.com/watermill-ots/watermill-ots/internal/nofailfiles"
)

// The model test sends a random stream of records through random batchers, with
// random failures and a random end. It checks the package's promises at each call of
// a batch handler and at the end. rapid shrinks a failure and prints how to repeat it.

// How a record fails in its first deliveries.
const (
	failStep = iota
	panicStep
	failAlone // Batch.Fail
	failBatch
	panicBatch
	failureKinds
)

// How a run ends.
const (
	complete   = iota // when all records are acked
	drain             // the source drains after endAt
	fence             // the source is fenced after endAt
	closeFirst        // Batching.Close is called after endAt, then the source drains
	endings
)

type plannedRecord struct {
	pause    time.Duration // after the previous record
	key      string        // ordering key
	batcher  string
	batchKey string
	scope    string
	flush    bool
	weight   int64
	step     time.Duration // how long the processing step takes
	handler  time.Duration // how long the handler takes for a batch that begins with it
	failures int           // how many deliveries fail
	joins    bool          // it is deferred (Join)
	kind     int
}

type plan struct {
	batchers map[string]Batcher
	records  []plannedRecord
	window   int
	scopes   int  // 0: no Config.Scope
	plain    bool // a subscriber without Delivery; the ordering key comes from the config
	defers   bool // its deliveries can be deferred
	ending   int
	endAt    time.Duration
}

func drawPlan(t *rapid.T) plan {
	ms := func(label string, lo, hi int) time.Duration {
		return time.Duration(rapid.IntRange(lo, hi).Draw(t, label)) * time.Millisecond
	}
	p := plan{
		batchers: map[string]Batcher{},
		window:   rapid.IntRange(1, 50).Draw(t, "window"),
		scopes:   max(0, rapid.IntRange(-2, 3).Draw(t, "scopes")),
		plain:    rapid.Bool().Draw(t, "plain"),
		ending:   rapid.IntRange(0, endings-1).Draw(t, "ending"),
		endAt:    ms("end at", 0, 500),
	}
	p.defers = !p.plain && rapid.Bool().Draw(t, "defers")
	all := rapid.Bool().Draw(t, "all are deferred")
	names := []string{"default", "s3", "sqs"}[:rapid.IntRange(1, 3).Draw(t, "batchers")]
	for _, name := range names {
		b := Batcher{
			Size:        rapid.IntRange(1, 6).Draw(t, "size"),
			Timeout:     ms("timeout", 10, 200),
			Concurrency: rapid.IntRange(1, 3).Draw(t, "concurrency"),
			Isolate:     rapid.Bool().Draw(t, "isolate"),
			Probe:       rapid.Bool().Draw(t, "probe"),
		}
		if rapid.Bool().Draw(t, "limit bytes") {
			b.MaxBytes = int64(rapid.IntRange(1, 12).Draw(t, "max bytes"))
		}
		if rapid.Bool().Draw(t, "idle on") {
			b.Idle = min(ms("idle", 1, 50), b.Timeout-1)
		}
		p.batchers[name] = b
	}
	instant := rapid.Bool().Draw(t, "instant handlers")
	for range rapid.IntRange(1, 40).Draw(t, "records") {
		r := plannedRecord{
			pause:    ms("pause", 0, 40),
			key:      rapid.SampledFrom([]string{"", "k", "j", "i"}).Draw(t, "key"),
			batcher:  rapid.SampledFrom(names).Draw(t, "batcher"),
			batchKey: rapid.SampledFrom([]string{"", "x"}).Draw(t, "batch key"),
			scope:    fmt.Sprint("s", rapid.IntRange(0, max(0, p.scopes-1)).Draw(t, "scope")),
			flush:    rapid.IntRange(0, 9).Draw(t, "flush") == 0,
			weight:   int64(rapid.IntRange(0, 5).Draw(t, "weight")),
			step:     ms("step", 0, 5),
			kind:     rapid.IntRange(0, failureKinds-1).Draw(t, "kind"),
			failures: max(0, rapid.IntRange(-6, 2).Draw(t, "failures")),
		}
		r.joins = p.defers && (all || rapid.Bool().Draw(t, "joins"))
		if !instant {
			r.handler = ms("handler", 0, 100)
		}
		p.records = append(p.records, r)
	}
	return p
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlan(rt)
		var err error
		// rapid must not end the bubble's own goroutine: faults are collected, and
		// reported outside.
		synctest.Test(t, func(t *testing.T) {
			m := &model{plan: p, ledger: newLedger(), attempts: map[string]bool{}, partitions: map[string]bool{}, running: map[string]int{}, observed: map[string]int{}}
			err = m.run()
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}

type model struct {
	plan
	src      *source
	batching *Batching
	*ledger  // its mutex guards what follows, too

	attempts   map[string]bool // "id attempt" that a batch has held
	partitions map[string]bool // "batcher partition" in use
	running    map[string]int  // batches, by "batcher scope"
	observed   map[string]int  // messages in the calls of OnBatch, by batcher
}

func (m *model) planned(msg *message.Message) plannedRecord {
	var i int
	fmt.Sscanf(msg.Metadata.Get("index"), "%d", &i)
	return m.records[i]
}

// fails reports whether the record is to fail at this place.
func (m *model) fails(msg *message.Message, kind int) bool {
	r := m.planned(msg)
	// Deliveries count, not failures: otherwise a message that makes an earlier one
	// fail, and is called back by it each time, would never succeed.
	return r.kind == kind && m.src.find(msg.UUID).attempt <= r.failures
}

func (m *model) step(msg *message.Message) ([]*message.Message, error) {
	r := m.planned(msg)
	SetBatcher(msg, r.batcher)
	SetBatchKey(msg, r.batchKey)
	if r.flush {
		Flush(msg)
	}
	time.Sleep(r.step)
	if m.fails(msg, failStep) {
		return nil, errBoom
	}
	if m.fails(msg, panicStep) {
		panic(errBoom)
	}
	return []*message.Message{msgOf("out")}, nil
}

func (m *model) handle(_ context.Context, b *Batch) (err error) {
	m.check(b)
	m.begin(b.Messages)
	time.Sleep(m.planned(b.Messages[0]).handler)
	panics := false
	for _, msg := range b.Messages {
		if m.fails(msg, failBatch) {
			err = errBoom
		}
		panics = panics || m.fails(msg, panicBatch)
	}
	for _, msg := range b.Messages {
		if m.fails(msg, failAlone) {
			b.Fail(msg, errBoom)
		}
	}
	m.end(b.Messages, func(msg *message.Message) bool {
		return err == nil && !panics && b.Err(msg) == nil
	})
	m.mu.Lock()
	delete(m.partitions, fmt.Sprint(b.Batcher, b.Partition))
	m.running[b.Batcher+" "+b.Scope]--
	m.mu.Unlock()
	if panics {
		panic(errBoom)
	}
	return err
}

// check checks one call of a batch handler at its beginning.
func (m *model) check(b *Batch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fault := func(format string, args ...any) {
		m.faults = append(m.faults, fmt.Errorf("batch %q of %s: "+format, append([]any{uuids(b.Messages), b.Batcher}, args...)...))
	}
	c := m.batchers[b.Batcher]
	n, weight, again := len(b.Messages), int64(0), 0
	for _, msg := range b.Messages {
		r := m.planned(msg)
		weight += r.weight
		if r.batcher != b.Batcher || r.batchKey != b.Key || m.scopes > 0 && r.scope != b.Scope {
			fault("%s does not belong here", msg.UUID)
		}
		id := msg.UUID + " " + msg.Metadata.Get("attempt")
		if m.attempts[id] {
			again++
		}
		m.attempts[id] = true
	}
	part := again == n // of a batch that Isolate splits
	if again > 0 && (!part || !c.Isolate) {
		fault("%d messages were in another batch already", again)
	}
	if n == 0 || n > c.Size {
		fault("has %d messages", n)
	}
	if c.MaxBytes > 0 && weight > c.MaxBytes && n > 1 {
		fault("has %d bytes", weight)
	}
	slot := fmt.Sprint(b.Batcher, b.Partition)
	if m.partitions[slot] || b.Partition < 0 || b.Partition >= c.Concurrency*max(1, m.scopes) {
		fault("partition %d is not free", b.Partition)
	}
	m.partitions[slot] = true
	scope := b.Batcher + " " + b.Scope
	if m.running[scope]++; m.running[scope] > c.Concurrency {
		fault("%d batches run in scope %q", m.running[scope], b.Scope)
	}

	age := time.Since(b.Oldest)
	switch b.Trigger {
	case TriggerSize:
		// Some may have been called back since, or revoked.
		if n < c.Size && !part && m.plain && !m.failing() && !c.Probe {
			fault("is not full")
		}
	case TriggerTimeout:
		if age < c.Timeout {
			fault("is only %v old", age)
		}
	case TriggerIdle:
		if age < c.Idle {
			fault("is only %v old", age)
		}
	case TriggerProbe:
		if n != 1 || !c.Probe {
			fault("is a probe")
		}
	case TriggerBytes, TriggerFlush, TriggerOrder, TriggerDrain, TriggerClose:
	default:
		fault("has no trigger")
	}
	if age > c.Timeout && m.instant() && !(m.probing() && m.failing()) {
		fault("is %v old although nothing holds it up", age)
	}
}

// failing reports whether any delivery fails.
func (m *model) failing() bool {
	for _, r := range m.records {
		if r.failures > 0 {
			return true
		}
	}
	return false
}

// probing reports whether a batcher may be down, and hold up what waits for it.
func (m *model) probing() bool {
	for _, b := range m.batchers {
		if b.Probe {
			return true
		}
	}
	return false
}

// instant reports whether no batch ever has to wait for a handler.
func (m *model) instant() bool {
	for _, r := range m.records {
		if r.handler > 0 {
			return false
		}
	}
	return true
}

// deferral checks what comes out of Join.
func (m *model) deferral() *Deferral {
	return &Deferral{
		Process: m.step,
		Succeeded: func(messages []*message.Message) {
			for _, msg := range messages {
				back := m.src.find(msg.UUID).state == calledBack
				m.mu.Lock()
				if !m.succeeded[msg.UUID] && !back {
					m.faults = append(m.faults, fmt.Errorf("%s came out as a success, which it is not", msg.UUID))
				}
				m.mu.Unlock()
			}
		},
		Failed: func(msg *message.Message, tag any, err error) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			if tag != msg.UUID || err == nil {
				m.faults = append(m.faults, fmt.Errorf("%s failed with tag %v and error %v", msg.UUID, tag, err))
			}
			return err
		},
	}
}

// through wraps the middleware, or Join, and checks what comes out of it.
func (m *model) through(h message.HandlerFunc, d *Deferral) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		if m.planned(msg).joins {
			joined, err := m.batching.Join(msg, d, msg.UUID)
			if joined {
				err = errJoined
			}
			return nil, err
		}
		out, err := h(msg)
		back := m.src.find(msg.UUID).state == calledBack
		m.mu.Lock()
		defer m.mu.Unlock()
		switch {
		case err != nil && len(out) > 0:
			m.faults = append(m.faults, fmt.Errorf("%s failed and produced", msg.UUID))
		case err == nil && len(out) == 0 && !back:
			m.faults = append(m.faults, fmt.Errorf("%s succeeded and produced nothing", msg.UUID))
		case err == nil && len(out) > 0 && !m.succeeded[msg.UUID] && !back:
			m.faults = append(m.faults, fmt.Errorf("%s came out as a success, which it is not", msg.UUID))
		}
		return out, err
	}
}

func (m *model) run() error {
	m.src = newSource(m.window, 20*time.Millisecond)
	m.src.plain, m.src.defers = m.plain, m.defers
	m.ledger.unordered = m.plain
	cfg := Config{Batchers: map[string]Batcher{}, CloseTimeout: time.Hour}
	for name, b := range m.batchers {
		b.Handler = m.handle
		b.SizeBy = func(msg *message.Message) int64 { return m.planned(msg).weight }
		cfg.Batchers[name] = b
	}
	if m.scopes > 0 {
		cfg.Scope = func(msg *message.Message) string { return m.planned(msg).scope }
	}
	if m.plain {
		cfg.OrderingKey = func(msg *message.Message) string { return msg.Metadata.Get("key") }
	}
	cfg.OnBatch = func(h Handled) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.observed[h.Batcher] += h.Messages
	}
	b, err := New(cfg, nil)
	if err != nil {
		return err
	}
	m.batching = b
	stopped := m.src.route(m.through(b.Middleware(m.step), m.deferral()))
	for i, r := range m.records {
		time.Sleep(r.pause)
		id := fmt.Sprint(r.key, i)
		m.expect(id, r.key)
		m.src.add(id, r.key)
	}
	m.endRun()
	<-stopped

	faults := []error{m.err(), m.src.faultsFound(), b.Close()}
	for i, r := range m.records {
		id := fmt.Sprint(r.key, i)
		switch acked := m.src.find(id).state == acked; {
		case acked && !m.succeeded[id]:
			faults = append(faults, fmt.Errorf("%s is acked but did not succeed", id))
		case !acked && m.ending == complete:
			faults = append(faults, fmt.Errorf("%s is not acked but in state %d after %d failures", id, m.src.find(id).state, m.src.find(id).failures))
		}
	}
	if n := forgotten(b); n > 0 || b.unfinished > 0 || len(b.parked) > 0 {
		faults = append(faults, fmt.Errorf("%d turns, %d batches, %d parked messages are left", n, b.unfinished, len(b.parked)))
	}
	for _, st := range b.Stats() {
		if st.Waiting != 0 || st.Running != 0 || st.Handling != 0 || st.Ready != 0 || st.Scopes != 0 {
			faults = append(faults, fmt.Errorf("at the end something is still waiting or running: %+v", st))
		}
		if n := st.Succeeded + st.Failed + st.CalledBack; n != uint64(m.observed[st.Batcher]) {
			faults = append(faults, fmt.Errorf("%d messages are counted, OnBatch was called for %d: %+v", n, m.observed[st.Batcher], st))
		}
	}
	return errors.Join(faults...)
}

// endRun ends the run and closes the source.
func (m *model) endRun() {
	switch m.ending {
	case complete:
		// Far more than all delays, failures and handlers can take: a message that
		// is not done by then never will be.
		time.Sleep(time.Hour)
	case fence:
		time.Sleep(m.endAt)
		m.mu.Lock()
		m.ledger.unordered = true // messages leave their batches one by one: the next owner restores the order
		m.mu.Unlock()
		m.src.fence(errFenced)
	case closeFirst:
		time.Sleep(m.endAt)
		m.batching.Close()
	default:
		time.Sleep(m.endAt)
	}
	m.src.Close()
}
