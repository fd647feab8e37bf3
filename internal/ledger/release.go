package ledger

// Placed is a page that was added to a tracker, for Release. The zero value is none.
type Placed struct{ page *page }

// Release makes the records of a withheld page that stand before index n deliverable in
// their turn. bytes is by how much the page has grown; it counts against the window as Page.Bytes does. What
// belongs to the page alone, such as Value, may not change for these records from
// here on. Once the tracker drains or is fenced Release has no effect on delivery.
func (t *Tracker) Release(p Placed, n int, bytes int64) {
	if bytes < 0 {
		panic("ledger: page that shrinks")
	}
	pg := p.page
	t.mu.Lock()
	defer t.mu.Unlock()
	if pg == nil || t.fenced {
		return
	}
	defer t.report()
	if pg.held > 0 {
		pg.bytes += bytes
		t.bytes += bytes
	}
	for ; pg.released < n; pg.released++ {
		if e := &pg.entries[pg.released]; e.state == withheld {
			t.set(e, queued)
			t.refresh(e.queue)
		}
	}
}

// IsFirst reports whether no record of an earlier page is unsettled.
func (t *Tracker) IsFirst(p Placed) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return p.page != nil && t.pages.head() == p.page
}

// Fetching says whether withheld records are about to be released. While they are, they
// count as moving: batches need not hurry for the window's sake.
func (t *Tracker) Fetching(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fetching = on
	t.report()
}
