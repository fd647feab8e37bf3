package ack

import "time"

// Ordering is the promise about the order of delivery.
type Ordering uint8

const (
	ByKey Ordering = iota
	ByChannel
	Unordered
)

// Page is one read response.
type Page struct {
	Token string   // commits everything up to and including this page
	Keys  []string // one ordering key for each record, in order of reading
	Bytes int64    // what the page holds in memory until its last record is acked
	Value any      // the caller's; Attempt.Page returns it
	// Finish: Token is the finish token, no page follows. Done is closed when everything is acked.
	Finish bool
}

type entry struct{}

// Attempt is one delivery of one record.
type Attempt struct {
	e *entry
	n uint32
}

func (a Attempt) Page() any     { panic("stub") } // Page.Value
func (a Attempt) Index() int    { panic("stub") } // of the record in its page
func (a Attempt) Key() string   { panic("stub") }
func (a Attempt) Number() int   { panic("stub") } // 1 for the first delivery
func (a Attempt) Failures() int { panic("stub") } // nacks so far; call-backs do not count
func (a Attempt) ID() uint64    { panic("stub") } // position of the record in the channel, growing from 1, the same over attempts

// Tracker is the ledger of one channel. Safe for concurrent use.
type Tracker struct{}

// channelKey is the ordering key of every record under ByChannel (the channel's id).
func New(o Ordering, channelKey string, lane *Lane) *Tracker { panic("stub") }

// Add: the reader read a page.
func (t *Tracker) Add(p Page) { panic("stub") }

// Next: the next record to deliver. When there is none, retryAt is when the earliest
// nacked record is due (zero: none).
func (t *Tracker) Next(now time.Time) (a Attempt, retryAt time.Time, ok bool) { panic("stub") }

// Ready has a value when Next may have something (capacity 1, level-triggered by the caller's loop).
func (t *Tracker) Ready() <-chan struct{} { panic("stub") }

// Bind attaches the caller's value to the attempt. False: it was called back or fenced meanwhile.
func (t *Tracker) Bind(a Attempt, v any) bool { panic("stub") }

// Ack, Nack: the outcome of an attempt. ok: the outcome counted (the attempt was neither stale nor called
// back nor fenced). taken: bound values of the attempts that were called back.
func (t *Tracker) Ack(a Attempt) (ok bool)                                  { panic("stub") }
func (t *Tracker) Nack(a Attempt, retryAt time.Time) (taken []any, ok bool) { panic("stub") }

func (t *Tracker) HandOff(a Attempt)                { panic("stub") }
func (t *Tracker) Begin(a Attempt)                  { panic("stub") }
func (t *Tracker) CallBack(a Attempt) (taken []any) { panic("stub") }

// Hurry is closed when waiting is of no use: the tracker drains or is fenced, the window is stalled
// (the Window sees that itself and hurries all its lanes: nothing to do for the caller), or the
// finish page was added and everything of this tracker waits.
func (t *Tracker) Hurry() <-chan struct{} { panic("stub") }

// Committable: the newest token all of whose records are acked, if it is newer than the last committed one.
func (t *Tracker) Committable() (token string, position uint64, ok bool) { panic("stub") }
func (t *Tracker) Committed(position uint64)                             { panic("stub") }

// Drain: nothing more is delivered; undelivered records are dropped. Drained is closed when no attempt is live.
func (t *Tracker) Drain()                   { panic("stub") }
func (t *Tracker) Drained() <-chan struct{} { panic("stub") }

// Fence: the channel is lost. Returns bound values of all live attempts; nothing is committable any more.
func (t *Tracker) Fence() (live []any) { panic("stub") }

// Done is closed when a page with Finish was added and everything is acked: Committable has the finish token.
func (t *Tracker) Done() <-chan struct{} { panic("stub") }
func (t *Tracker) Stats() Stats          { panic("stub") }

type Stats struct {
	InFlight, Live, Waiting, Retrying int
	Bytes                             int64
	Oldest                            Oldest
}

// Oldest names the oldest unsettled record. ID is 0 when there is none.
type Oldest struct {
	ID       uint64
	Page     any
	Index    int
	Key      string
	Attempts int
	Failures int
}
