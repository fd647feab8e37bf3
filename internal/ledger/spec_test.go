package ledger

import "slices"

// specRecord is one record, once it was read.
type specRecord struct {
	id       int
	key      string // ordering key, "" if it has no order
	named    string // as given in Page.Keys
	page     int    // index in specChannel.pages
	index    int
	state    state // gone: acked or dropped
	acked    bool
	dueAt    int // while retrying: the first tick at which it may be redelivered
	attempts int
	failures int
	bound    any
}

type specPage struct {
	token   string
	records []*specRecord
	bytes   int
	finish  bool

	placed   Placed
	released int // records
	unasked  int // bytes by which it has grown without an admission, as the first page
}

func (p *specPage) withheld() bool {
	return slices.ContainsFunc(p.records, func(r *specRecord) bool { return r.state == withheld })
}

// specChannel specifies a Tracker and its Lane.
type specChannel struct {
	name     string
	ordering Ordering
	tracker  *Tracker
	lane     *Lane

	pages     []*specPage
	records   []*specRecord
	committed int
	draining  bool
	fenced    bool
	finishing bool

	admitted bool // the reader may add a page
	refused  bool // the reader waits
	closed   bool
	fetching bool
	mayGrow  bool // by one round
	grown    int  // bytes, in the last round that was admitted
	// The part of the current use that is older than the last admitted page.
	earlierRecords, earlierBytes int
	lastPage                     *specPage
	attempts                     []Attempt // including those that have ended
	attemptOf                    []*specRecord
	hurry                        <-chan struct{} // from a call while it was open
}

func (c *specChannel) unsettled() (out []*specRecord) {
	for _, r := range c.records {
		if r.state != gone {
			out = append(out, r)
		}
	}
	return out
}

// deliverable is L3, word for word.
func (c *specChannel) deliverable(r *specRecord) bool {
	if c.draining || r.state != queued {
		return false
	}
	if r.key == "" {
		return true
	}
	for _, other := range c.records {
		if other.key != r.key || other.state == gone {
			continue
		}
		if other.state == calledBack {
			return false
		}
		if other.id < r.id && !other.state.handedOff() {
			return false
		}
	}
	return true
}

// takeBack calls back the records of r's key behind r that handlers have.
func (c *specChannel) takeBack(r *specRecord, seen map[string]int) (taken []any) {
	for _, other := range c.records {
		if r.key != "" && other.key == r.key && other.id > r.id && other.state.live() && other.state != calledBack {
			if other.bound != nil {
				taken = append(taken, other.bound)
			}
			if other.state == failed {
				seen["failed one taken back"]++
			}
			other.state, other.bound = calledBack, nil
		}
	}
	return taken
}

// requeue queues a record again, or drops it in a drain.
func (c *specChannel) requeue(r *specRecord, to state) {
	r.state, r.bound = to, nil
	if c.draining {
		r.state = gone
	}
}

// watermark returns how many pages are final: all of their records and of the pages
// before are acked (L1).
func (c *specChannel) watermark() int {
	for i, p := range c.pages {
		for _, r := range p.records {
			if !r.acked {
				return i
			}
		}
	}
	return len(c.pages)
}

func (c *specChannel) use() (records, bytes int) {
	for _, p := range c.pages {
		held := 0
		for _, r := range p.records {
			if r.state != gone {
				held++
			}
		}
		records += held
		if held > 0 {
			bytes += p.bytes
		}
	}
	return records, bytes
}

// load counts the moving and the waiting records, as in type load.
func (c *specChannel) load() (moving, waits int) {
	for _, r := range c.records {
		switch {
		case r.state == waiting:
			waits++
		case r.state.live(), c.deliverable(r):
			moving++
		case r.state == withheld && c.fetching:
			moving++
		}
	}
	return moving, waits
}
