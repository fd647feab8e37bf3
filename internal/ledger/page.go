package ledger

// Page is one read response, in the order of the channel.
type Page struct {
	// Token commits everything up to and including this page. The tracker
	// never looks into it.
	Token string

	// Keys holds one key for each record, in order of reading; a page without
	// records is fine and still moves the watermark. Under ByKey records with
	// equal keys are delivered one after the other, and a record whose key is
	// empty is in order with nothing. Under ByChannel and Unordered the keys
	// only name records in Stats. The tracker keeps the slice; a key's bytes
	// stay in memory as long as any record of the key is unsettled.
	Keys []string

	// Bytes is what the page holds in memory. It counts against the window
	// until the page's last record is settled, and not at all for a page
	// without records. Not negative.
	Bytes int64

	// Value is the caller's own; Attempt.Page returns it.
	Value any

	// Finish says that Token is the finish token: no page follows.
	Finish bool
}

// page is a Page that has unsettled records.
//
// Invariants:
//   - held counts the entries that are not gone; a listed page has held > 0 or is lost.
//   - A page that is lost had an entry dropped: it stays listed for ever, so
//     that neither its token nor a later one is ever committed.
//   - Once everything up to this page is acked, token commits all of it and all
//     pages that followed and were done earlier: token, position and finish are
//     those of the last page folded in.
type page struct {
	tracker *Tracker
	keys    []string
	value   any
	bytes   int64
	first   uint64 // Attempt.ID of entries[0]
	entries []entry

	token    string
	position uint64 // number of the page that token belongs to, from 1
	finish   bool
	settled  uint64 // records that token commits: those of this page and of the pages folded in
	held     int
	lost     bool

	prev, next *page
}

// pages lists, in order of reading, the pages that hold the watermark back.
//
// A page that is done does not wait in the list until all pages before it are
// done as well: its token moves into the page before. So the list is never
// longer than the number of unsettled records, however far the channel reads
// on past one that is stuck, and finding the watermark never means a walk.
type pages struct {
	head, tail *page
}

func (l *pages) push(p *page) {
	p.prev = l.tail
	if l.tail == nil {
		l.head = p
	} else {
		l.tail.next = p
	}
	l.tail = p
}

// remove takes a page out from anywhere, and clears its links for the same reason as queue.remove.
func (l *pages) remove(p *page) {
	if p.prev == nil {
		l.head = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		l.tail = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.prev, p.next = nil, nil
}
