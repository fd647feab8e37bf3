package subscriber

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/internal/service"
	"github.com/watermill-ots/watermill-ots/ots"
)

// Lookup says for which records the whole row is read from the table, see Config.Lookup.
type Lookup uint8

const (
	// LookupNone reads no rows.
	LookupNone Lookup = iota
	// LookupUpdates reads the rows of updates: a put holds its row already, and a deleted row is gone.
	LookupUpdates
	// LookupAlways reads the row of every record, base data included.
	LookupAlways
)

// String returns "none", "updates" or "always".
func (l Lookup) String() string {
	switch l {
	case LookupNone:
		return "none"
	case LookupUpdates:
		return "updates"
	case LookupAlways:
		return "always"
	}
	return fmt.Sprintf("Lookup(%d)", uint8(l))
}

// wants reports whether the row of a record of that type is read.
func (l Lookup) wants(t ots.RecordType) bool {
	return l == LookupAlways || l == LookupUpdates && t == ots.Update
}

// MaxLookupColumns is the longest Config.LookupColumns: the service takes 128 columns, and
// one of them is of the primary key.
const MaxLookupColumns = service.MaxBatchGetColumns - 1

func (c Config) lookupFaults() (faults []error) {
	if c.Lookup > LookupAlways {
		faults = append(faults, fmt.Errorf("Config.Lookup is %d: take LookupNone, LookupUpdates or LookupAlways", c.Lookup))
	}
	if c.Lookup == LookupNone && len(c.LookupColumns) > 0 {
		faults = append(faults, fmt.Errorf("Config.LookupColumns is %q, and Config.Lookup reads no rows: take LookupUpdates or LookupAlways, or leave the columns out", c.LookupColumns))
	}
	if len(c.LookupColumns) > MaxLookupColumns {
		faults = append(faults, fmt.Errorf("Config.LookupColumns has %d columns: the service reads at most %d", len(c.LookupColumns), MaxLookupColumns))
	}
	for _, name := range c.LookupColumns {
		if !service.IsColumnName(name) {
			faults = append(faults, fmt.Errorf("Config.LookupColumns has %q: a column's name has %s", name, service.ColumnNameRule))
		}
	}
	return faults
}

// lookedUpRow is what was read of the row of one record.
type lookedUpRow struct {
	row   []byte // in PlainBuffer, checked; empty: the row is gone
	state ots.RowState
}

// sizeOfLookedUpRow is the memory of a lookedUpRow, without its row.
const sizeOfLookedUpRow = 32

const (
	// lookupCalls is how many calls of a channel are under way at once.
	lookupCalls = 10
	// lookupAnswer is the size that an answer of BatchGetRow should have at most: that of a
	// page. The service documents no bound. So the calls under way bring about 10 MiB, which is by how much
	// rows may exceed the window (L6).
	lookupAnswer = 1 << 20
	// roomCheck is the pause between two checks whether the window has room for rows.
	roomCheck = 10 * time.Millisecond
)

// opLookup is the operation's name in errors and counts.
const opLookup = "BatchGetRow"

// lookup reads the rows of one channel's records ahead of their delivery. The reader adds a
// page when the tracker has it, with its records withheld. With a few calls at once, run
// reads the rows of the next records and releases them. A row that cannot be read is retried;
// it holds back the records of its page behind it, and later ones of their keys.
//
// Invariants:
//   - A row is read after the page of its record: it is at least as new as the change.
//   - page.lookups[i] is written before record i is released, and never afterwards.
//   - A call is made only if the window admits it or if it is for the first page of the
//     tracker, so that the rows of pages that wait do not exceed the window (L6).
type lookup struct {
	*ownership
	lane    *ledger.Lane
	columns []string

	mu    sync.Mutex
	added []*rowsOfPage // guarded by mu: placed, and not seen by run yet
	wake  chan struct{} // capacity 1: added is not empty

	calls   sync.WaitGroup
	results chan lookupResult // capacity lookupCalls

	// The following belong to the goroutine of run.
	pages   []*rowsOfPage // that are not released completely, in their order
	again   []*wantedRow  // could not be read
	retryAt time.Time     // when they are read again
	outage  bool          // nothing else is read before: a call as a whole has failed
	failing bool          // something has failed, and not all of it was read since
	pauses  backoff.BackOff
	perCall int // rows of the next calls, from what rows took and from failures
	running int // calls
}

// rowsOfPage is a page whose rows are read.
type rowsOfPage struct {
	page   *page
	placed ledger.Placed
	wanted map[string]*wantedRow // by the bytes of the primary key
	next   int                   // records before it were looked at
	open   int                   // of these, whose rows are not there yet
	grown  int64                 // bytes of rows since the last release
}

// wantedRow is a row that is read for one record or several of its key.
type wantedRow struct {
	first   recordAt   // does not change
	records []recordAt // that wait for it; belongs to the goroutine of run
	got     service.RowRead
	done    bool // got is the row, and all of records have it
}

type recordAt struct {
	page  *rowsOfPage
	index int
}

func newLookup(own *ownership, lane *ledger.Lane) *lookup {
	return &lookup{
		ownership: own, lane: lane, columns: own.cfg.LookupColumns, wake: make(chan struct{}, 1),
		results: make(chan lookupResult, lookupCalls), perCall: service.MaxBatchGetRows,
	}
}

// prepare readies a page before the tracker has it. It reports whether rows of it are to be read.
func (l *lookup) prepare(p *page) bool {
	for i := range p.rows {
		if l.cfg.Lookup.wants(p.rows[i].typ) {
			p.lookups = make([]lookedUpRow, len(p.rows))
			return true
		}
	}
	return false
}

// add is called by the reader with a page that the tracker has.
func (l *lookup) add(p *page, placed ledger.Placed) {
	l.mu.Lock()
	l.added = append(l.added, &rowsOfPage{page: p, placed: placed, wanted: make(map[string]*wantedRow)})
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run reads rows until the channel drains or is fenced.
func (l *lookup) run() {
	defer l.calls.Wait() // they end with ctx
	for {
		l.take()
		for l.running < lookupCalls {
			wanted := l.choose(time.Now())
			if len(wanted) == 0 {
				break
			}
			l.running++
			l.calls.Go(func() { l.results <- lookupResult{wanted, l.call(wanted)} }) // ends with ctx
		}
		l.release()
		l.tracker.Fetching(l.running > 0)
		if !l.await() {
			return
		}
	}
}

// take takes the pages that were added.
func (l *lookup) take() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pages, l.added = append(l.pages, l.added...), nil
}

// await waits until there may be something to do. It is false when nothing is read any more.
func (l *lookup) await() bool {
	var due <-chan time.Time
	if l.running < lookupCalls && (len(l.again) > 0 || len(l.pages) > 0) {
		pause := roomCheck // the window may have room then
		if l.outage {
			pause = max(time.Until(l.retryAt), pause)
		}
		timer := time.NewTimer(pause)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case r := <-l.results:
		l.ended(r)
	case <-l.wake:
	case <-due:
	case <-l.draining:
		return false
	case <-l.ctx.Done():
		return false
	}
	return true
}

// choose returns the rows of the next call.
func (l *lookup) choose(now time.Time) (wanted []*wantedRow) {
	due := !now.Before(l.retryAt)
	unread := slices.ContainsFunc(l.pages, func(p *rowsOfPage) bool { return p.next < len(p.page.rows) })
	if l.outage && !due || !unread && (!due || len(l.again) == 0) {
		return nil
	}
	admitted := l.lane.AdmitRows()
	inCall := make(map[string]*wantedRow, l.perCall)
	if due && len(l.again) > 0 {
		waiting := l.again[:0]
		for _, w := range l.again {
			key := w.first.page.page.keys[w.first.index]
			if len(wanted) < l.perCall && inCall[key] == nil && (admitted || l.tracker.IsFirst(w.first.page.placed)) {
				inCall[key] = w
				wanted = append(wanted, w)
			} else {
				waiting = append(waiting, w)
			}
		}
		clear(l.again[len(waiting):])
		l.again = waiting
	}
	for _, p := range l.pages {
		if p.next == len(p.page.rows) {
			continue
		}
		if !admitted && !l.tracker.IsFirst(p.placed) {
			break
		}
		for ; p.next < len(p.page.rows); p.next++ {
			if !l.cfg.Lookup.wants(p.page.rows[p.next].typ) {
				continue
			}
			key, at := p.page.keys[p.next], recordAt{p, p.next}
			w := p.wanted[key]
			if w == nil {
				w = inCall[key] // of another page
			}
			if w == nil {
				if len(wanted) == l.perCall {
					return wanted
				}
				w = &wantedRow{first: at}
				inCall[key] = w
				wanted = append(wanted, w)
			}
			p.wanted[key] = w
			if w.done { // read for an earlier change, after this page was read
				at.store(w)
				continue
			}
			w.records = append(w.records, at)
			p.open++
		}
	}
	return wanted
}

// store gives the record its row.
func (r recordAt) store(w *wantedRow) {
	row := lookedUpRow{row: w.got.Row, state: ots.RowFound}
	if len(row.row) == 0 {
		row.state = ots.RowGone
	}
	r.page.page.lookups[r.index] = row
}

// release releases the records of which all rows are there, in the order of their page.
func (l *lookup) release() {
	waiting := l.pages[:0]
	for _, p := range l.pages {
		if p.open == 0 {
			l.tracker.Release(p.placed, p.next, p.grown)
			p.grown = 0
		}
		if p.open > 0 || p.next < len(p.page.rows) {
			waiting = append(waiting, p)
		}
	}
	clear(l.pages[len(waiting):])
	l.pages = waiting
}

// keep stores what was read of a row with its records.
func (l *lookup) keep(w *wantedRow) {
	l.metrics.counts.inc(countRowsLookedUp)
	l.metrics.counts.add(countLookupUnits, w.got.Units)
	if len(w.got.Row) == 0 {
		l.metrics.counts.inc(countRowsGone)
	}
	var last *rowsOfPage
	for _, r := range w.records {
		r.store(w)
		r.page.open--
		if r.page != last { // records of a page share the row
			r.page.grown += int64(len(w.got.Row))
			last = r.page
		}
	}
	w.records, w.done = nil, true
}

// hint says what to do about a failed lookup, empty where the error is enough.
func (l *lookup) hint(err error) string {
	switch {
	case service.HasCode(err, service.CodeNoPermission, service.CodeAuthFailed):
		return "Config.Lookup (lookup) needs the permission ots:BatchGetRow on the table"
	case service.HasCode(err, service.CodeParameterInvalid) && len(l.columns) > 0:
		return "look at Config.LookupColumns (lookup_columns): " + strings.Join(l.columns, ", ")
	}
	return ""
}
