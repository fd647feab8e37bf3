package ledger

// state is the state of an entry between its read and its settlement. The package
// documentation has the diagram.
type state uint8

const (
	queued     state = iota // not with a handler; will be delivered in its turn
	retrying                // nacked, and its backoff is not over
	delivered               // with its handler
	waiting                 // handed off: waits in an ordered batch
	begun                   // handed off: its batch runs
	failed                  // CallBack was called; still with its handler, whose outcome counts
	calledBack              // taken back; still with its handler, whose outcome does not count
	withheld                // its page is not complete yet; Release makes it queued
	gone                    // acked, or dropped by Drain or Fence
	states
)

// live reports whether a handler has the entry.
func (s state) live() bool { return s >= delivered && s <= calledBack }

// handedOff reports whether the next entry of the key may be with a handler too.
func (s state) handedOff() bool { return s == waiting || s == begun }

// entry is one record that was read. The tracker's mutex guards all fields except
// page, queue and index, which do not change while the entry is not gone.
type entry struct {
	page       *page
	queue      *queue // of its ordering key; recycled once the entry is gone
	prev, next *entry // in queue
	value      any    // set by Bind; nil once the attempt ends or is taken back

	index    uint32 // in page
	attempt  uint32 // number of the latest delivery, 0 before the first
	failures uint32 // nacks that counted
	state    state
}

// Attempt is one delivery of one record. Attempts are small, comparable values and
// safe to use from any goroutine: what they return was fixed at the delivery.
//
// An attempt that is kept keeps its page in memory (Page.Value, Page.Keys and about
// 64 bytes a record), also after it is settled.
type Attempt struct {
	e        *entry
	number   uint32
	failures uint32
}

// Page returns Page.Value of the record's page.
func (a Attempt) Page() any { return a.e.page.value }

// Index returns the record's index in its page.
func (a Attempt) Index() int { return int(a.e.index) }

// Key returns the ordering key, for ack.Delivery.Key: the record's key under ByKey,
// the channel's under ByChannel, empty under Unordered.
func (a Attempt) Key() string { return a.e.page.tracker.orderingKey(a.e.page.keys[a.e.index]) }

// Number counts the deliveries of this record by this tracker, this one
// included: 1 for the first.
func (a Attempt) Number() int { return int(a.number) }

// Failures counts the nacks of this record before this delivery. Deliveries
// that ended because they were called back are not failures.
func (a Attempt) Failures() int { return int(a.failures) }

// ID returns the record's position among all records that were added to the tracker,
// from 1. All attempts of a record have the same ID.
func (a Attempt) ID() uint64 { return a.e.page.first + uint64(a.e.index) }
