package ledger

// queue holds the unsettled entries of one ordering key, in order of reading.
//
// Invariants:
//   - The list has two parts: first the entries in force, which are all handed
//     off except that the last may be delivered or failed; then, starting with next,
//     those that are queued, retrying or called back.
//   - calledBack counts the entries in that state.
//   - ready is true exactly when deliverable() is, and then the queue is in the
//     tracker's ready list.
//   - A queue without entries is not in an index or a list.
//   - key is a view of the page of head: otherwise a queue that is never empty would
//     keep the page of its first record in memory for good.
type queue struct {
	key        string // empty: not in an index
	hash       uint64 // of the key
	chained    *queue // the next queue in its chain of the index, or among the spare ones
	head, tail *entry
	next       *entry // the first entry not in force, nil if all are
	calledBack int

	ready bool
	place links[queue] // in Tracker.ready
}

// deliverable is the law of order (L3): the next entry may be delivered when all
// entries before it are handed off and no called-back entry of the key is still with
// a handler.
func (q *queue) deliverable() bool {
	if q.next == nil || q.next.state != queued || q.calledBack > 0 {
		return false
	}
	return q.next.prev == nil || q.next.prev.state.handedOff()
}

// push appends an entry.
func (q *queue) push(e *entry) {
	e.prev = q.tail
	if q.tail == nil {
		q.head = e
	} else {
		q.tail.next = e
	}
	q.tail = e
	if q.next == nil {
		q.next = e
	}
}

// remove removes an entry from any place: acks arrive in any order. The links are
// cleared so that a kept Attempt keeps only its own page in memory, not a chain of
// pages.
func (q *queue) remove(e *entry) {
	if q.next == e {
		q.next = e.next
	}
	if e.prev == nil {
		q.head = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		q.tail = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
}
