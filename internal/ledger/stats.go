package ledger

// Stats is a snapshot of a tracker.
type Stats struct {
	InFlight int   // records that were read and neither acked nor dropped
	Live     int   // records with a handler, also handed off, failed and called back ones
	Waiting  int   // records handed off to a batch that does not run yet
	Retrying int   // records that were nacked and whose backoff is not over
	Bytes    int64 // of the pages with records in flight

	// Oldest is the record that holds the watermark back.
	Oldest Oldest
}

// Oldest describes the oldest record that is not settled. ID is 0 if there is none.
type Oldest struct {
	ID       uint64 // as Attempt.ID
	Page     any    // Page.Value
	Index    int    // in its page
	Key      string // as given in Page.Keys, under any Ordering
	Attempts int    // deliveries so far, including the current one
	Failures int    // nacks so far
}

// Stats returns a snapshot. It visits at most the records of the oldest page; while
// the tracker drains, those of all pages.
func (t *Tracker) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	live := t.live()
	s := Stats{
		InFlight: t.counts[queued] + t.counts[withheld] + t.counts[retrying] + live,
		Live:     live,
		Waiting:  t.counts[waiting],
		Retrying: t.counts[retrying],
		Bytes:    t.bytes,
	}
	for pg := t.pages.head(); pg != nil; pg = pg.place.next.element() {
		for i := range pg.entries {
			e := &pg.entries[i]
			if e.state == gone {
				continue
			}
			s.Oldest = Oldest{
				ID: pg.first + uint64(i), Page: pg.value, Index: i, Key: pg.keys[i],
				Attempts: int(e.attempt), Failures: int(e.failures),
			}
			return s
		}
	}
	return s
}

// Live returns the bound values (Bind) of all attempts that handlers have, in the
// order of reading. It leaves out attempts that were called back and those that wait
// in a batch that does not run, because the batcher decides how long they wait. It
// visits all records in flight.
func (t *Tracker) Live() []any {
	t.mu.Lock()
	defer t.mu.Unlock()
	var live []any
	for pg := t.pages.head(); pg != nil; pg = pg.place.next.element() {
		for i := range pg.entries {
			if v := pg.entries[i].value; v != nil && pg.entries[i].state != waiting {
				live = append(live, v)
			}
		}
	}
	return live
}
