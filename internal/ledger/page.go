package ledger

// Page is one read response, in the order of the channel.
type Page struct {
	// Token commits everything up to and including this page. It is opaque to the
	// tracker.
	Token string

	// Keys holds one key for each record, in order of reading; a page without
	// records is valid and still moves the watermark. Under ByKey records with
	// equal keys are delivered one at a time, and a record with an empty key has no
	// order. Under ByChannel and Unordered the keys only name records in Stats. The
	// tracker keeps the slice; a key's bytes stay in memory while any record of the
	// key is unsettled.
	Keys []string

	// Bytes is the page's size in memory. It counts against the window until the
	// page's last record is settled, and not at all for a page without records. It
	// must not be negative.
	Bytes int64

	// Value belongs to the caller; Attempt.Page returns it.
	Value any

	// Withheld is true if what belongs to the records is still being fetched: none of
	// them is delivered, nor are later ones of their keys, before Release.
	Withheld bool

	// Finish is true if Token is the finish token: no page follows.
	Finish bool
}

// page is a Page that has unsettled records.
//
// Invariants:
//   - held counts the entries that are not gone; a listed page has held > 0 or is lost.
//   - A page is lost if one of its entries was dropped: it stays listed for good, so
//     that neither its token nor a later one is ever committed.
//   - Once everything up to this page is acked, token commits the page and the later
//     pages that were done before it: token, position and finish are those of the
//     last page folded in.
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
	released int // entries before it were released; only of a page that was added as withheld

	place links[page] // in Tracker.pages
}
