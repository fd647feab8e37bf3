package ledger

import (
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/watermill-ots/watermill-ots/internal/testsize"
)

// TestModel runs random histories of several channels on one window. After every step
// it compares everything observable with the specification in spec_test.go, which
// keeps all records in slices and computes each answer from scratch.
// Failures name the law. A failing history is shrunk and its seed printed; repeat it
// with -rapid.seed.
func TestModel(t *testing.T) {
	const histories = 100_000
	n := histories
	switch {
	case raceEnabled: // one goroutine: the race detector has nothing to find here
		n = 2_000
	case testing.Short(), !testsize.Full():
		n = 10_000
	}
	// rapid has no setting per test. An explicit -rapid.checks wins.
	const name = "rapid.checks"
	if !checksGiven() {
		before := flag.Lookup(name).Value.String()
		if err := flag.Set(name, fmt.Sprint(n)); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = flag.Set(name, before) }()
	}
	seen := make(map[string]int)
	rapid.Check(t, func(rt *rapid.T) { newHistory(rt, seen).run() })
	// Histories that never reach the difficult states prove nothing.
	t.Logf("situations seen: %v", seen)
	for _, s := range situations {
		if n == histories && !checksGiven() && seen[s] < 100 {
			t.Errorf("only %d times in %d histories: %s", seen[s], n, s)
		}
	}
}

var situations = []string{
	"one taken back", "several taken back", "failed one taken back", "ended after being taken back",
	"delivered again", "waits for a retry", "refused", "woken", "newcomer on a full window", "stalled",
	"released", "dropped by a drain", "cancelled by a fence", "late page dropped", "page done out of order", "done", "acked together",
}

// checksGiven reports whether the command line sets -rapid.checks. It is called once,
// before the test sets the flag itself.
var checksGiven = sync.OnceValue(func() (given bool) {
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	return given
})

// history is one random run.
type history struct {
	*rapid.T
	window               *Window
	maxRecords, maxBytes int
	channels             []*specChannel // including those that have ended
	fixed                bool           // no lane was opened or closed since the beginning
	now                  int            // tick
	origin               time.Time
	seen                 map[string]int
}

func newHistory(t *rapid.T, seen map[string]int) *history {
	h := &history{T: t, origin: time.Unix(1_700_000_000, 0), seen: seen}
	// rapid prefers small numbers, and larger windows are the simpler case.
	h.maxRecords = 25 - rapid.IntRange(0, 24).Draw(t, "records less")
	h.maxBytes = 60 - rapid.IntRange(0, 59).Draw(t, "bytes less")
	h.window = NewWindow(h.maxRecords, int64(h.maxBytes))
	for range rapid.SampledFrom([]int{1, 2, 1, 3}).Draw(t, "channels") {
		h.open()
	}
	h.fixed = true
	return h
}

func (h *history) time(tick int) time.Time { return h.origin.Add(time.Duration(tick) * time.Second) }

func (h *history) open() {
	c := &specChannel{name: fmt.Sprint("channel", len(h.channels)), lane: h.window.Open()}
	c.ordering = []Ordering{ByKey, ByKey, ByChannel, Unordered}[rapid.IntRange(0, 3).Draw(h.T, "ordering")]
	c.tracker = New(c.ordering, c.name, c.lane)
	h.channels = append(h.channels, c)
	h.fixed = false
}

// live returns the channels whose lane is open.
func (h *history) live() (out []*specChannel) {
	for _, c := range h.channels {
		if !c.closed {
			out = append(out, c)
		}
	}
	return out
}

func (h *history) run() {
	for range rapid.IntRange(30, 90).Draw(h.T, "steps") {
		h.step()
		h.check()
	}
	h.quiesce()
}

// The kinds of steps. rapid prefers the front of a list, and shrinks towards it.
const (
	opTick = iota
	opNext
	opJoin // next, and handed off at once, so that chains of one key grow
	opHandOff
	opNack
	opAck
	opRead
	opCallBack
	opBegin
	opAckAll
	opBind
	opCommit
	opDrain
	opEnd
	opOpen
	opFetch
	opRelease
	opFetching
)

var ops = []int{
	opTick, opJoin, opRead, opJoin, opNext, opNack, opJoin, opHandOff,
	opAck, opJoin, opCallBack, opRead, opNext, opJoin, opNack, opAck,
	opRead, opNext, opJoin, opBegin, opRead, opBind, opNack, opAck,
	opCommit, opJoin, opRead, opCallBack, opAckAll, opTick, opDrain, opEnd, opOpen,
	opRelease, opFetch, opRelease, opFetching,
}

func (h *history) step() {
	c := rapid.SampledFrom(h.channels).Draw(h.T, "channel")
	switch op := rapid.SampledFrom(ops).Draw(h.T, "op"); op {
	case opTick:
		h.now++
	case opNext:
		h.next(c)
	case opJoin:
		if h.next(c) {
			h.outcome(c, len(c.attempts)-1, opHandOff)
		}
	case opRead:
		h.read(c)
	case opAckAll:
		h.ackAll(c)
	case opCommit:
		if _, position, ok := c.tracker.Committable(); ok {
			c.tracker.Committed(position)
			c.committed = int(position)
		}
	case opDrain:
		if h.seldom() {
			h.drain(c)
		}
	case opEnd:
		if c.draining || h.seldom() {
			h.end(c)
		}
	case opFetch:
		h.fetch(c)
	case opRelease:
		h.release(c)
	case opFetching:
		c.fetching = rapid.Bool().Draw(h.T, "fetching")
		c.tracker.Fetching(c.fetching)
	case opOpen:
		if len(h.channels) < 4 && h.seldom() {
			h.open()
		}
	default:
		if i, ok := h.attempt(c); ok {
			h.outcome(c, i, op)
		}
	}
}

// seldom marks steps that a history should have only once or twice, such as ends.
func (h *history) seldom() bool { return rapid.IntRange(0, 7).Draw(h.T, "seldom") == 7 }

// attempt chooses mostly an attempt that a handler has, sometimes any earlier one.
func (h *history) attempt(c *specChannel) (i int, ok bool) {
	if len(c.attempts) == 0 {
		return 0, false
	}
	var live []int
	for i := range c.attempts {
		if _, current := h.current(c, i); current {
			live = append(live, i)
		}
	}
	if len(live) == 0 || rapid.IntRange(0, 15).Draw(h.T, "any") == 15 {
		return rapid.IntRange(0, len(c.attempts)-1).Draw(h.T, "attempt"), true
	}
	return rapid.SampledFrom(live).Draw(h.T, "live attempt"), true
}

// read is one step of the channel's reader: ask for admission, or add the page.
func (h *history) read(c *specChannel) {
	if !c.admitted {
		h.admit(c)
		if !c.admitted || rapid.IntRange(0, 3).Draw(h.T, "read takes long") == 3 {
			return
		}
	}
	if c.finishing || c.closed {
		return
	}
	c.admitted = false
	n := len(c.pages) + 1
	finish := rapid.IntRange(0, 15).Draw(h.T, "finish") == 15
	p := &specPage{token: fmt.Sprint("token", n), bytes: rapid.IntRange(0, 9).Draw(h.T, "size"), finish: finish}
	isWithheld := rapid.IntRange(0, 2).Draw(h.T, "withheld") == 2
	var keys []string
	for i := range 4 - rapid.IntRange(0, 4).Draw(h.T, "fewer") {
		named := []string{"a", "a", "b", "c", ""}[rapid.IntRange(0, 4).Draw(h.T, "key")]
		keys = append(keys, named)
		r := &specRecord{id: len(c.records) + i + 1, named: named, page: n - 1, index: i}
		if isWithheld {
			r.state = withheld
		}
		switch c.ordering {
		case ByKey:
			r.key = named
		case ByChannel:
			r.key = c.name
		}
		p.records = append(p.records, r)
	}
	p.placed = c.tracker.Add(Page{Token: p.token, Keys: keys, Bytes: int64(p.bytes), Value: p, Finish: finish, Withheld: isWithheld})
	if c.draining {
		h.seen["late page dropped"]++
		return
	}
	c.finishing = finish
	c.pages = append(c.pages, p)
	c.records = append(c.records, p.records...)
	c.lastPage = p
}

// fetch asks whether pages may grow by one round.
func (h *history) fetch(c *specChannel) {
	want := h.mayRead(c) && !c.draining && !c.closed
	if got := c.lane.AdmitRows(); got != want {
		h.Fatalf("L6 fair share: pages of %s may grow: %v, want %v", c.name, got, want)
	}
	if c.mayGrow = want; want {
		_, c.earlierBytes = c.use()
		c.grown = 0
	}
}

// release releases records of a page. With an admission, or as the first page, it grows.
func (h *history) release(c *specChannel) {
	i := slices.IndexFunc(c.pages, (*specPage).withheld)
	if i < 0 {
		return
	}
	h.releaseOf(c, c.pages[i], rapid.IntRange(0, len(c.pages[i].records)).Draw(h.T, "upto"))
}

func (h *history) releaseOf(c *specChannel, p *specPage, upTo int) {
	first := true
	for _, earlier := range c.pages {
		if earlier == p {
			break
		}
		first = first && !slices.ContainsFunc(earlier.records, func(r *specRecord) bool { return r.state != gone })
	}
	if c.fenced {
		first = false
	}
	// During a drain a page that lost a record stays the first page until the end. That is intended.
	if got := c.tracker.IsFirst(p.placed); got != first && !c.draining {
		h.Fatalf("%s: a page is the first: %v, want %v", c.name, got, first)
	}
	bytes := 0
	switch {
	case c.mayGrow:
		bytes = rapid.IntRange(0, 9).Draw(h.T, "rows")
		c.grown += bytes
		c.mayGrow = false
	case first:
		bytes = rapid.IntRange(0, 9).Draw(h.T, "rows")
		p.unasked += bytes
	}
	c.tracker.Release(p.placed, upTo, int64(bytes))
	if c.fenced {
		return
	}
	p.bytes += bytes
	for ; p.released < upTo; p.released++ {
		if r := p.records[p.released]; r.state == withheld {
			r.state = queued
			h.seen["released"]++
		}
	}
}

func (h *history) admit(c *specChannel) {
	want := h.mayRead(c) && !c.draining && !c.closed
	select {
	case <-c.lane.Wake():
	default:
	}
	got := c.lane.Admit()
	if got != want {
		h.Fatalf("L6 fair share: %s admitted: %v, want %v", c.name, got, want)
	}
	c.admitted = got
	if c.refused = !got && !c.draining && !c.closed; c.refused {
		h.seen["refused"]++
	}
	if got {
		c.earlierRecords, c.earlierBytes = c.use()
		c.lastPage = nil
	}
}

// mayRead is the window's rule, with all sums computed from scratch.
func (h *history) mayRead(c *specChannel) bool {
	live := h.live()
	rule := func(capacity int, used func(*specChannel) int, earlier func(*specChannel) int) bool {
		reserve := max(1, capacity/(2*max(1, len(live))))
		pool := max(0, capacity-len(live)*reserve)
		lent, lentEarlier := 0, 0
		for _, l := range live {
			lent += max(0, used(l)-reserve)
			lentEarlier += max(0, earlier(l)-reserve)
		}
		u := used(c)
		if h.fixed && u < reserve && lentEarlier > pool {
			h.Fatalf("L6 fair share: %s is kept from its reserve though no lane opened", c.name)
		}
		if u < reserve && lent >= pool && lentEarlier > pool {
			h.seen["newcomer on a full window"]++
		}
		return u == 0 || lent < pool || u < reserve && lentEarlier <= pool
	}
	return rule(h.maxRecords,
		func(c *specChannel) int { r, _ := c.use(); return r },
		func(c *specChannel) int { return c.earlierRecords },
	) && rule(h.maxBytes,
		func(c *specChannel) int { _, b := c.use(); return b },
		func(c *specChannel) int { return c.earlierBytes },
	)
}

func (h *history) next(c *specChannel) bool {
	a, retryAt, ok := c.tracker.Next(h.time(h.now))
	var candidates []*specRecord
	var want time.Time // of retryAt
	for _, r := range c.unsettled() {
		if r.state == retrying && r.dueAt <= h.now {
			r.state = queued
		}
		if r.state == retrying {
			h.seen["waits for a retry"]++
		}
		if at := h.time(r.dueAt); r.state == retrying && (want.IsZero() || at.Before(want)) {
			want = at
		}
	}
	for _, r := range c.unsettled() {
		if c.deliverable(r) {
			candidates = append(candidates, r)
		}
	}
	if !ok {
		if len(candidates) > 0 {
			h.Fatalf("liveness: %s does not deliver, although record %d is deliverable", c.name, candidates[0].id)
		}
		if !retryAt.Equal(want) {
			h.Fatalf("retry: %s says %v, want %v", c.name, retryAt, want)
		}
		return false
	}
	i := slices.IndexFunc(candidates, func(r *specRecord) bool { return r.id == int(a.ID()) })
	if i < 0 {
		h.Fatalf("L3 order: %s delivers record %d out of turn", c.name, a.ID())
	}
	r := candidates[i]
	r.state = delivered
	if r.attempts++; r.attempts > 1 {
		h.seen["delivered again"]++
	}
	if a.Number() != r.attempts || a.Failures() != r.failures || a.Index() != r.index || a.Key() != r.key || a.Page() != any(c.pages[r.page]) {
		h.Fatalf("attempt of record %d of %s is described wrongly", r.id, c.name)
	}
	c.attempts = append(c.attempts, a)
	c.attemptOf = append(c.attemptOf, r)
	if rapid.IntRange(0, 7).Draw(h.T, "bind later") < 6 {
		h.bind(c, len(c.attempts)-1)
	}
	return true
}

func (h *history) bind(c *specChannel, i int) {
	r, current := h.current(c, i)
	v := fmt.Sprint("attempt", i)
	want := current && r.state != calledBack
	if got := c.tracker.Bind(c.attempts[i], v); got != want {
		h.Fatalf("%s: Bind is %v, want %v", c.name, got, want)
	}
	if want {
		r.bound = v
	}
}

// current reports whether attempt i is with a handler, in the tracker's view.
func (h *history) current(c *specChannel, i int) (*specRecord, bool) {
	r := c.attemptOf[i]
	return r, !c.fenced && r.state.live() && c.attempts[i].Number() == r.attempts
}

// acked specifies the ack of attempt i: its effect, and whether it counts.
func (h *history) acked(c *specChannel, i int) (counts bool) {
	r, current := h.current(c, i)
	switch {
	case !current:
		return false
	case r.state == calledBack:
		h.seen["ended after being taken back"]++
		c.requeue(r, queued)
		return false
	}
	r.state, r.acked, r.bound = gone, true, nil
	return true
}

// ackAll acks some attempts at once. Some of them may have ended, or be listed twice.
func (h *history) ackAll(c *specChannel) {
	var attempts []Attempt
	var want []bool
	for range rapid.IntRange(0, 3).Draw(h.T, "acks") {
		if i, ok := h.attempt(c); ok {
			attempts = append(attempts, c.attempts[i])
			want = append(want, h.acked(c, i))
		}
	}
	h.seen["acked together"] += len(attempts) / 2
	before := []bool{true, false}
	if got := c.tracker.AckAll(attempts, before); !slices.Equal(got, append(before, want...)) {
		h.Fatalf("%s: acks of %d attempts count: %v, want %v after %v", c.name, len(attempts), got, want, before)
	}
}

func (h *history) outcome(c *specChannel, i, op int) {
	a := c.attempts[i]
	r, current := h.current(c, i)
	counts := current && r.state != calledBack
	switch op {
	case opAck:
		want := h.acked(c, i)
		if ok := c.tracker.Ack(a); ok != want {
			h.Fatalf("%s: ack of record %d counts: %v, want %v", c.name, r.id, ok, want)
		}
	case opNack:
		// 0: the zero time, which means at once; 1: due now.
		backoff := rapid.IntRange(0, 4).Draw(h.T, "backoff")
		var at time.Time
		if backoff > 0 {
			at = h.time(h.now + backoff - 1)
		}
		taken, ok := c.tracker.Nack(a, at)
		if ok != counts {
			h.Fatalf("%s: nack of record %d counts: %v, want %v", c.name, r.id, ok, counts)
		}
		var want []any
		switch {
		case counts:
			want = c.takeBack(r, h.seen)
			r.failures++
			r.dueAt = h.now + backoff - 1
			if backoff == 0 {
				c.requeue(r, queued)
			} else {
				c.requeue(r, retrying)
			}
		case current:
			c.requeue(r, queued)
		}
		h.taken(c, r, taken, want)
	case opHandOff:
		c.tracker.HandOff(a)
		if current && r.state == delivered {
			r.state = waiting
		}
	case opBegin:
		c.tracker.Begin(a)
		if current && r.state == waiting {
			r.state = begun
		}
	case opCallBack:
		taken := c.tracker.CallBack(a)
		var want []any
		if counts && r.state != failed {
			want = c.takeBack(r, h.seen)
			r.state = failed
		}
		h.taken(c, r, taken, want)
	case opBind:
		h.bind(c, i)
	}
}

func (h *history) taken(c *specChannel, r *specRecord, got, want []any) {
	if len(want) == 1 {
		h.seen["one taken back"]++
	} else if len(want) > 1 {
		h.seen["several taken back"]++
	}
	if !slices.Equal(got, want) {
		h.Fatalf("L3 order: failure of record %d of %s takes back %v, want %v", r.id, c.name, got, want)
	}
}

func (h *history) drain(c *specChannel) {
	c.tracker.Drain()
	c.draining, c.refused = true, false
	for _, r := range c.unsettled() {
		if !r.state.live() {
			h.seen["dropped by a drain"]++
			r.state = gone
		}
	}
}

// end is how a channel ends: closed when drained, fenced before.
func (h *history) end(c *specChannel) {
	if c.draining && len(c.unsettled()) == 0 {
		c.lane.Close()
		h.fixed = false
		c.closed, c.refused = true, false
		return
	}
	got := c.tracker.Fence()
	var want []any
	for _, r := range c.unsettled() {
		if r.bound != nil {
			h.seen["cancelled by a fence"]++
			want = append(want, r.bound)
		}
		r.state, r.bound = gone, nil
	}
	c.draining, c.fenced, c.refused = true, true, false
	if !slices.Equal(got, want) {
		h.Fatalf("L4 fencing: %s returns %v to cancel, want %v", c.name, got, want)
	}
}

// check compares all that can be observed without changing anything.
func (h *history) check() {
	records, bytes := 0, 0
	roomRecords, roomBytes := h.maxRecords, h.maxBytes
	for _, c := range h.channels {
		h.checkChannel(c)
		r, b := c.use()
		c.earlierRecords, c.earlierBytes = min(c.earlierRecords, r), min(c.earlierBytes, b)
		records, bytes = records+r, bytes+b
		if c.lastPage != nil {
			roomRecords += len(c.lastPage.records)
			roomBytes += c.lastPage.bytes
		}
		roomBytes += c.grown
		for _, p := range c.pages {
			if slices.ContainsFunc(p.records, func(r *specRecord) bool { return r.state != gone }) {
				roomBytes += p.unasked // of one page only: the others are not the first
				break
			}
		}
	}
	if records > roomRecords || bytes > roomBytes {
		h.Fatalf("L6 bounded memory: %d records, %d bytes in flight, window (%d, %d), with last pages (%d, %d)",
			records, bytes, h.maxRecords, h.maxBytes, roomRecords, roomBytes)
	}
	h.checkWindow()
}

func (h *history) checkChannel(c *specChannel) {
	token, position, ok := c.tracker.Committable()
	if ok {
		for _, p := range c.pages[:position] {
			for _, r := range p.records {
				if !r.acked {
					h.Fatalf("L1 no loss: token %d of %s is committable, record %d is not acked", position, c.name, r.id)
				}
			}
		}
		if c.fenced {
			h.Fatalf("L4 fencing: %s is fenced and has a committable token", c.name)
		}
		if want := c.pages[position-1].token; token != want {
			h.Fatalf("L1 no loss: %s gives %s for page %d", c.name, token, position)
		}
	}
	final := c.watermark()
	if want := !c.fenced && final > c.committed; ok != want || ok && int(position) != final {
		h.Fatalf("L2 bounded duplicates: %s commits up to page %d (%v), could up to %d", c.name, position, ok, final)
	}
	uncommitted := 0
	for _, p := range c.pages[c.committed:max(final, c.committed)] {
		uncommitted += len(p.records)
	}
	if got := c.tracker.Uncommitted(); got != uncommitted {
		h.Fatalf("L7 clean close: %s has %d uncommitted records, want %d", c.name, got, uncommitted)
	}
	h.checkStats(c)
	unsettled := c.unsettled()
	live := slices.ContainsFunc(unsettled, func(r *specRecord) bool { return r.state.live() })
	if got, want := isClosed(c.tracker.Drained()), c.draining && !live; got != want {
		h.Fatalf("L4 fencing: %s is drained: %v, want %v", c.name, got, want)
	}
	for _, p := range c.pages[final:] {
		if !slices.ContainsFunc(p.records, func(r *specRecord) bool { return !r.acked }) {
			h.seen["page done out of order"]++
		}
	}
	done := c.finishing && final == len(c.pages)
	if done {
		h.seen["done"]++
	}
	if got, want := isClosed(c.tracker.Done()), done; got != want {
		h.Fatalf("L5 ends: %s is done: %v, want %v", c.name, got, want)
	}
}

func (h *history) checkStats(c *specChannel) {
	var want Stats
	records, bytes := c.use()
	want.InFlight, want.Bytes = records, int64(bytes)
	for _, r := range c.unsettled() {
		if want.Oldest.ID == 0 {
			want.Oldest = Oldest{
				ID: uint64(r.id), Page: c.pages[r.page], Index: r.index, Key: r.named,
				Attempts: r.attempts, Failures: r.failures,
			}
		}
		if r.state.live() {
			want.Live++
		}
		switch r.state {
		case waiting:
			want.Waiting++
		case retrying:
			want.Retrying++
		}
	}
	if got := c.tracker.Stats(); got != want {
		h.Fatalf("stats: %s reports %+v, want %+v", c.name, got, want)
	}
}

func (h *history) checkWindow() {
	woken, couldRead, anyRefused := false, "", false
	for _, c := range h.channels {
		if !c.refused {
			continue
		}
		anyRefused = true
		if len(c.lane.Wake()) > 0 {
			h.seen["woken"]++
			woken = true
		}
		if h.mayRead(c) {
			couldRead = c.name
		}
	}
	if couldRead != "" && !woken {
		h.Fatalf("L6 wake: %s waits although it may read, and no lane was woken", couldRead)
	}
	moving, waits := 0, 0
	for _, c := range h.channels {
		m, w := c.load()
		moving, waits = moving+m, waits+w
	}
	stalled := anyRefused && !woken && moving == 0 && waits > 0
	if stalled {
		h.seen["stalled"]++
	}
	for _, c := range h.channels {
		m, w := c.load()
		want := c.draining || c.closed || stalled || c.finishing && m == 0 && w > 0
		// The channel from an earlier call must have been closed, too.
		if want && c.hurry != nil && !isClosed(c.hurry) {
			h.Fatalf("hurry: %s has not closed the channel of an earlier call", c.name)
		}
		got := c.tracker.Hurry()
		if isClosed(got) != want {
			h.Fatalf("hurry: %s hurries: %v, want %v", c.name, !want, want)
		}
		c.hurry = got
	}
}

// quiesce ends the history: handlers ack all records. Then nothing may be left.
func (h *history) quiesce() {
	for round := 0; ; round++ {
		if round > 1000 {
			h.Fatalf("liveness: records are left although everything is acked")
		}
		busy := false
		for _, c := range h.channels {
			for i := range c.attempts {
				if _, current := h.current(c, i); current {
					h.outcome(c, i, opAck)
				}
			}
			for _, p := range c.pages {
				if p.withheld() {
					h.releaseOf(c, p, len(p.records))
				}
			}
			h.next(c)
			busy = busy || len(c.unsettled()) > 0
		}
		h.check()
		if !busy {
			break
		}
		h.now++
	}
	for _, c := range h.channels {
		if !c.draining && c.watermark() != len(c.pages) {
			h.Fatalf("liveness: %s is all acked, its last token is not committable", c.name)
		}
		if c.lane.records.used != 0 || c.lane.bytes.used != 0 {
			h.Fatalf("L6 bounded memory: %s holds nothing but uses %+v of the window", c.name, c.lane)
		}
	}
	// Only woken lanes call Admit; each passes the wake-up on.
	for range h.channels {
		for _, c := range h.channels {
			if c.refused && len(c.lane.Wake()) > 0 {
				h.admit(c)
			}
		}
	}
	for _, c := range h.channels {
		if c.refused {
			h.Fatalf("L6 wake: the window is empty and %s was never woken", c.name)
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
