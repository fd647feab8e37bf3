package ledger

import (
	"sync"
	"time"
)

// Ordering is the promise about the order of delivery.
type Ordering uint8

const (
	// ByKey delivers records with equal keys in order; different keys run concurrently.
	ByKey Ordering = iota
	// ByChannel delivers the whole channel in order, as if all records had one key.
	ByChannel
	// Unordered delivers in any order, as if each record had its own key.
	Unordered
)

// Tracker is the ledger of one channel: what was read, what is with a handler,
// what may be delivered next and which token may be committed. It does no I/O,
// reads no clock and starts no goroutine. All methods are safe for concurrent
// use and never block on anything but a short critical section.
//
// Invariants (the laws are those of the package documentation):
//   - Watermark (L1): the committable token is that of the last page of the
//     longest prefix of pages whose records were all acked. It only moves forward.
//   - Order (L3): each queue keeps its own invariants, and an entry is delivered
//     only while its queue is deliverable.
//   - One outcome: of each attempt at most one Ack or Nack counts, and none once
//     the attempt is called back or the tracker is fenced.
//   - Fenced (L4): after Fence nothing is in flight, deliverable or committable.
//   - Report (L6): when a method returns, the lane has the current load.
//
// Lock order: Tracker.mu, then Window.mu.
type Tracker struct {
	ordering   Ordering
	channelKey string
	lane       *Lane
	wake       chan struct{} // behind Ready
	done       chan struct{}
	drained    chan struct{}

	mu     sync.Mutex // guards the following
	queues index
	spare  *queue // recycled queues, linked by chained

	// ready are the queues whose next entry may be delivered. The one that has been ready
	// longest is first, so that no key waits behind a busy one.
	ready linkedList[queue]

	retries retries

	// pages are those that hold the watermark back, in order of reading. A page that is
	// done leaves the list even if earlier ones are not: its token moves into the page
	// before. So the list is never longer than the number of unsettled records, however
	// many pages the channel reads past a record that is stuck, and finding the watermark
	// never needs a walk.
	pages linkedList[page]

	counts [states]int // entries by state
	bytes  int64       // of the pages that hold entries

	records  uint64 // added so far
	position uint64 // of the last page added
	token    string // the watermark: commits everything up to watermark
	// watermark and committed are positions of pages, 0 before the first.
	watermark, committed uint64
	// settled counts the records up to the watermark, stored those up to committed, and
	// offered those up to offeredAt, the position that Committable returned last.
	settled, stored, offered uint64
	offeredAt                uint64

	finishing bool // the finish page was added
	fetching  bool // Fetching was called
	draining  bool // Drain or Fence was called
	fenced    bool

	reported load // the last report to the lane
}

// New returns the tracker of one channel. It reports to lane, which must not be shared.
// channelKey is the ordering key of every record under ByChannel, where it must not
// be empty; the other orderings do not use it.
func New(o Ordering, channelKey string, lane *Lane) *Tracker {
	if o == ByChannel && channelKey == "" {
		panic("ledger: ByChannel without a channel key")
	}
	return &Tracker{
		ordering:   o,
		channelKey: channelKey,
		lane:       lane,
		wake:       make(chan struct{}, 1),
		done:       make(chan struct{}),
		drained:    make(chan struct{}),
		queues:     newIndex(),
	}
}

// orderingKey returns the ack.Delivery.Key of a record with the given key.
func (t *Tracker) orderingKey(key string) string {
	switch t.ordering {
	case ByKey:
		return key
	case ByChannel:
		return t.channelKey
	default:
		return ""
	}
}

// Add adds a page that was read. A page that is added after Drain or Fence is
// dropped, and the zero Placed returned. To add a page after one with Finish is a bug of the caller and panics.
func (t *Tracker) Add(p Page) Placed {
	if p.Bytes < 0 {
		panic("ledger: page with negative size")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.finishing {
		panic("ledger: page added after the finish page")
	}
	if t.draining {
		return Placed{}
	}
	defer t.report()
	t.finishing = p.Finish
	t.position++
	pg := &page{
		tracker: t, keys: p.Keys, value: p.Value, bytes: p.Bytes, first: t.records + 1,
		token: p.Token, position: t.position, finish: p.Finish, held: len(p.Keys), settled: uint64(len(p.Keys)),
	}
	t.pages.push(&pg.place, pg)
	if pg.held == 0 {
		t.fold(pg)
		return Placed{}
	}
	t.records += uint64(pg.held)
	t.bytes += pg.bytes
	initial := queued
	if p.Withheld {
		initial = withheld
	}
	t.counts[initial] += pg.held
	// One slice for the whole page, so that a record does not cost an allocation.
	pg.entries = make([]entry, pg.held)
	for i := range pg.entries {
		e := &pg.entries[i]
		e.page, e.index, e.state = pg, uint32(i), initial
		e.queue = t.queueOf(t.orderingKey(pg.keys[i]))
		e.queue.push(e)
		t.refresh(e.queue)
	}
	return Placed{pg}
}

// Next delivers the next record, if one is deliverable. now decides which nacked
// records are due. If ok is false, retryAt is when the first of the others is due, or
// the zero time if there are none.
//
// The caller calls Next until ok is false, then waits for Ready or retryAt.
func (t *Tracker) Next(now time.Time) (a Attempt, retryAt time.Time, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.report()
	for {
		e, due := t.retries.popDue(now)
		if !due {
			break
		}
		t.set(e, queued)
		t.refresh(e.queue)
	}
	q := t.ready.head()
	if q == nil {
		return Attempt{}, t.retries.due(), false
	}
	e := q.next
	q.next = e.next
	e.attempt++
	t.set(e, delivered)
	t.refresh(q)
	return Attempt{e: e, number: e.attempt, failures: e.failures}, time.Time{}, true
}

// Ready has a value when Next may return another record, or an earlier retryAt, than
// before. It may have a value without need.
func (t *Tracker) Ready() <-chan struct{} { return t.wake }

// Bind attaches a value to an attempt, such as what the caller needs to cancel it. The
// value is returned when the attempt is taken back or fenced, and must not be nil.
// Bind returns false if that has happened already, or if the attempt has ended: the
// value is not kept. The caller then ends the attempt with Nack instead of giving it
// to a handler.
func (t *Tracker) Bind(a Attempt, v any) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.current(a)
	if e == nil || e.state == calledBack {
		return false
	}
	e.value = v
	return true
}

// Ack ends an attempt: its record is handled. ok reports whether the ack counted. If
// not, the attempt had ended before, the attempt was called back (this call ends it,
// and the record is redelivered), or the tracker is fenced.
func (t *Tracker) Ack(a Attempt) (ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.current(a)
	if e == nil {
		return false
	}
	defer t.report()
	return t.ack(e)
}

// AckAll is Ack for many attempts at once, which costs less. For each attempt it
// appends to counted what Ack would have returned.
func (t *Tracker) AckAll(attempts []Attempt, counted []bool) []bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.report()
	for _, a := range attempts {
		e := t.current(a)
		counted = append(counted, e != nil && t.ack(e))
	}
	return counted
}

// ack ends the current attempt of e.
func (t *Tracker) ack(e *entry) (ok bool) {
	if e.state == calledBack {
		t.endCalledBack(e)
		return false
	}
	t.settle(e)
	return true
}

// Nack ends an attempt: its record is redelivered, not before retryAt (the zero
// time: at once), and before all later records of its key. Those that were delivered
// are taken back; their bound values are returned, for the caller to cancel their
// contexts. They are redelivered after this one, once their handlers have ended. While
// the tracker drains the record is dropped instead.
//
// ok is as in Ack. If it is false, the call had no effect, except that it ends an
// attempt that was called back.
func (t *Tracker) Nack(a Attempt, retryAt time.Time) (taken []any, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.current(a)
	if e == nil {
		return nil, false
	}
	defer t.report()
	if e.state == calledBack {
		t.endCalledBack(e)
		return nil, false
	}
	taken = t.takeBackAfter(e)
	e.value = nil
	e.failures++
	e.queue.next = e // no longer in force, and before all entries that it took back
	switch {
	case t.draining:
		t.drop(e)
		return taken, true
	case retryAt.IsZero():
		t.set(e, queued)
	default:
		t.set(e, retrying)
		if t.retries.push(e, retryAt) {
			t.signal()
		}
	}
	t.refresh(e.queue)
	return taken, true
}

// HandOff is ack.Delivery.HandOff: the attempt waits in an ordered batch, and the
// next record of its key may be delivered. It counts for Hurry even if there is no
// order. It has no effect on an attempt that failed, was called back or has ended.
func (t *Tracker) HandOff(a Attempt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.current(a)
	if e == nil || e.state != delivered {
		return
	}
	t.set(e, waiting)
	t.refresh(e.queue)
	t.report()
}

// Begin is ack.Delivery.Begin: the batch that the attempt waits in runs. It has no
// effect without an earlier HandOff.
func (t *Tracker) Begin(a Attempt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin(a)
	t.report()
}

// BeginAll is Begin for many attempts at once, which costs less.
func (t *Tracker) BeginAll(attempts []Attempt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range attempts {
		t.begin(a)
	}
	t.report()
}

func (t *Tracker) begin(a Attempt) {
	if e := t.current(a); e != nil && e.state == waiting {
		t.set(e, begun)
	}
}

// CallBack is ack.Delivery.CallBack: the attempt failed, whatever its outcome will be.
// The later delivered records of its key are taken back, as by Nack, and no record of
// the key is delivered until this attempt ends. Its own outcome counts.
func (t *Tracker) CallBack(a Attempt) (taken []any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.current(a)
	if e == nil || e.state == failed || e.state == calledBack {
		return nil
	}
	taken = t.takeBackAfter(e)
	t.set(e, failed)
	t.refresh(e.queue)
	t.report()
	return taken
}

// Hurry returns a channel that is closed when waiting for more messages is pointless:
// the tracker drains or is fenced; or the finish page was added and every attempt of
// this tracker waits; or the window is stalled (see Window). While such a reason holds
// Hurry returns a closed channel. A later call may return another channel.
func (t *Tracker) Hurry() <-chan struct{} { return t.lane.hurry() }

// Committable returns the token of the watermark and its position, which the caller
// passes to Committed. ok is false if that token is committed already, or the tracker
// is fenced.
func (t *Tracker) Committable() (token string, position uint64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fenced || t.watermark <= t.committed {
		return "", 0, false
	}
	t.offeredAt, t.offered = t.watermark, t.settled
	return t.token, t.watermark, true
}

// Committed reports that the token which Committable returned with position is stored.
func (t *Tracker) Committed(position uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.committed = max(t.committed, position)
	if position == t.offeredAt {
		t.stored = t.offered
	}
}

// Uncommitted returns how many records up to the watermark are acked and not committed,
// also after Fence. Pages without records do not count.
func (t *Tracker) Uncommitted() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return int(t.settled - t.stored)
}

// Done returns a channel that is closed when the finish page was added and all records
// are acked: the finish token is committable. If records were dropped before that, it
// is never closed.
func (t *Tracker) Done() <-chan struct{} { return t.done }

// Drain ends delivery for good. Records that no handler has are dropped, attempts that
// are nacked or called back end without redelivery, and acks still move the watermark
// up to the first dropped record. The lane admits no more pages. Drain may be called
// again.
func (t *Tracker) Drain() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.draining {
		return
	}
	t.draining = true
	defer t.report()
	t.lane.retire()
	t.retries = nil // the loop drops them with the queued ones
	for pg := t.pages.head(); pg != nil; pg = pg.place.next.element() {
		for i := range pg.entries {
			if e := &pg.entries[i]; e.state == queued || e.state == retrying || e.state == withheld {
				t.drop(e)
			}
		}
	}
}

// Drained returns a channel that is closed when, after Drain, no handler has an
// attempt. Fence closes it at once.
func (t *Tracker) Drained() <-chan struct{} { return t.drained }

// Fence is called when the channel is lost: all records are dropped, no token is
// committable, and later outcomes of attempts do not count. It returns the bound
// values of all attempts that handlers have and that were not taken back before.
// Only the first call has an effect.
func (t *Tracker) Fence() (live []any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fenced {
		return nil
	}
	// Entries keep their states: current refuses all of them once fenced is set, and
	// the lists that hold them are dropped below.
	t.fenced, t.draining = true, true
	for pg := t.pages.head(); pg != nil; pg = pg.place.next.element() {
		for i := range pg.entries {
			if e := &pg.entries[i]; e.value != nil {
				live = append(live, e.value)
				e.value = nil
			}
		}
	}
	t.lane.retire()
	t.queues, t.spare, t.retries = index{}, nil, nil
	t.ready, t.pages = linkedList[queue]{}, linkedList[page]{}
	t.counts, t.bytes = [states]int{}, 0
	t.report()
	return live
}

// current returns the entry of an attempt that a handler still has. It returns nil for
// an attempt that has ended, was fenced, or belongs to another tracker.
func (t *Tracker) current(a Attempt) *entry {
	e := a.e
	if e == nil || e.page.tracker != t || t.fenced || e.attempt != a.number || !e.state.live() {
		return nil
	}
	return e
}

// takeBackAfter calls back all entries in force behind e and sets the first of them as
// the queue's next. It returns their bound values. Each of them was delivered before,
// so the walk costs O(1) per delivery.
func (t *Tracker) takeBackAfter(e *entry) (taken []any) {
	q := e.queue
	for x := e.next; x != q.next; x = x.next {
		if x.value != nil {
			taken = append(taken, x.value)
			x.value = nil
		}
		t.set(x, calledBack)
		q.calledBack++
	}
	q.next = e.next
	return taken
}

// endCalledBack ends an attempt that was called back.
func (t *Tracker) endCalledBack(e *entry) {
	e.queue.calledBack--
	if t.draining {
		t.drop(e)
		return
	}
	t.set(e, queued)
	t.refresh(e.queue)
}

// settle removes an acked entry and moves the watermark.
func (t *Tracker) settle(e *entry) {
	t.leave(e)
	if pg := e.page; pg.held == 0 && !pg.lost {
		t.fold(pg)
	}
}

// drop removes an entry that was not acked. Its page holds the watermark back for
// good.
func (t *Tracker) drop(e *entry) {
	e.page.lost = true
	t.leave(e)
}

// leave removes an entry from its queue and its page.
func (t *Tracker) leave(e *entry) {
	q, pg := e.queue, e.page
	e.value = nil
	first := q.head == e
	q.remove(e)
	if first && q.head != nil && t.ordering == ByKey && q.key != "" {
		q.key = q.head.page.keys[q.head.index] // the same text, in a page that is still needed
	}
	t.set(e, gone)
	t.refresh(q) // before recycle: an empty queue is not ready
	if q.head == nil {
		t.recycle(q)
	}
	pg.held--
	if pg.held == 0 {
		t.bytes -= pg.bytes
	}
}

// fold removes a page whose records are all acked. If it is the first page, its token
// becomes the watermark, else the token moves into the page before.
func (t *Tracker) fold(pg *page) {
	if before := pg.place.prev.element(); before != nil {
		before.token, before.position, before.finish = pg.token, pg.position, pg.finish
		before.settled += pg.settled
	} else {
		t.token, t.watermark = pg.token, pg.position
		t.settled += pg.settled
		if pg.finish {
			close(t.done)
		}
	}
	t.pages.remove(&pg.place)
}

// set moves e to state s.
func (t *Tracker) set(e *entry, s state) {
	t.counts[e.state]--
	t.counts[s]++
	e.state = s
}

// refresh adds q to the ready list or removes it, depending on deliverable.
func (t *Tracker) refresh(q *queue) {
	deliverable := q.deliverable()
	switch {
	case deliverable == q.ready:
		return
	case deliverable:
		t.ready.push(&q.place, q)
		t.signal()
	default:
		t.ready.remove(&q.place)
	}
	q.ready = deliverable
}

// signal gives Ready a value. It is called with the mutex held and never blocks.
func (t *Tracker) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// queueOf returns the queue of a key. A record without a key gets its own queue.
func (t *Tracker) queueOf(key string) *queue {
	if key == "" {
		return t.emptyQueue()
	}
	hash := t.queues.hash(key)
	q := t.queues.get(key, hash)
	if q == nil {
		q = t.emptyQueue()
		q.key, q.hash = key, hash
		t.queues.add(q)
	}
	return q
}

// emptyQueue returns a queue without a key.
func (t *Tracker) emptyQueue() *queue {
	q := t.spare
	if q == nil {
		return new(queue)
	}
	t.spare, q.chained = q.chained, nil
	return q
}

// recycle keeps an empty queue for another key. There are never more spare queues than
// the most records that were in flight at once.
func (t *Tracker) recycle(q *queue) {
	if q.key != "" {
		t.queues.remove(q)
		q.key = ""
	}
	q.chained, t.spare = t.spare, q
}

// report is called at the end of every method that changes the state. It reports the
// load to the lane, and closes drained if a drain has ended.
func (t *Tracker) report() {
	c := &t.counts
	live := t.live()
	s := load{
		records:   int64(c[queued] + c[withheld] + c[retrying] + live),
		bytes:     t.bytes,
		moving:    t.ready.len + live - c[waiting],
		waiting:   c[waiting],
		finishing: t.finishing,
	}
	if t.fetching {
		s.moving += c[withheld]
	}
	if s != t.reported { // often equal: Next turns a deliverable record into one with a handler
		t.reported = s
		t.lane.report(s)
	}
	if t.draining && live == 0 {
		select {
		case <-t.drained:
		default:
			close(t.drained)
		}
	}
}

// live counts the entries that handlers have.
func (t *Tracker) live() int {
	n := 0
	for s := delivered; s <= calledBack; s++ {
		n += t.counts[s]
	}
	return n
}
