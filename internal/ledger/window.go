package ledger

import (
	"container/list"
	"sync"
)

// Window is the budget of records and bytes in flight that the channels of one
// Subscribe share. Each channel has a Lane, with a share that no other channel
// can take (see budget); a lane that is refused waits in a queue and is woken.
//
// A window is stalled when a lane waits for capacity, no record is deliverable, and all
// attempts of all lanes wait in batches: only the batches can free capacity, so all
// attempts are hurried.
//
// Invariants:
//   - In flight (L6): records and bytes exceed the capacity by at most the last
//     page of each lane, and by what the last admitted round of Release and the first page have grown.
//   - Wake: if a waiting lane may read, some waiting lane has been woken and has not
//     called Admit yet. A lane that calls Admit, or leaves, wakes the next one that
//     may read. So capacity is never left unused while a lane waits for it, and one
//     release wakes one lane.
//   - Stall: when the window is stalled, all channels that hurry returned before are
//     closed.
//
// All methods are safe for concurrent use. No lock is taken under Window.mu.
type Window struct {
	mu             sync.Mutex // guards the following and all lanes
	records, bytes budget
	lanes          map[*Lane]struct{}
	refused        list.List // of *Lane, in the order in which they wait
	woken          int       // refused lanes that were woken
	moving         int       // sum over lanes
	waiting        int       // sum over lanes
}

// NewWindow returns a window with that capacity; values below 1 count as 1.
func NewWindow(records int, bytes int64) *Window {
	return &Window{
		records: budget{capacity: max(1, int64(records))},
		bytes:   budget{capacity: max(1, bytes)},
		lanes:   make(map[*Lane]struct{}),
	}
}

// Open adds a lane. The shares of all lanes shrink.
func (w *Window) Open() *Lane {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := &Lane{window: w, wake: make(chan struct{}, 1)}
	w.lanes[l] = struct{}{}
	w.share()
	return l
}

// share divides the budgets among the open lanes.
func (w *Window) share() {
	w.records.split(len(w.lanes))
	w.bytes.split(len(w.lanes))
	for l := range w.lanes {
		w.records.owe(l.records)
		w.bytes.owe(l.bytes)
	}
	w.wakeNext()
}

// wakeNext wakes the first waiting lane that may read. It walks the waiting lanes, so
// it is called once for each page, or when capacity is freed after there was none, not
// once for each record.
func (w *Window) wakeNext() {
	for el := w.refused.Front(); el != nil; el = el.Next() {
		if l := el.Value.(*Lane); !l.woken && l.mayRead() {
			l.wakeUp()
			return
		}
	}
}

// stalled reports whether the window is stalled, see Window. A lane that was woken is
// about to read, so it does not count as waiting.
func (w *Window) stalled() bool {
	return w.refused.Len() > 0 && w.woken == 0 && w.moving == 0 && w.waiting > 0
}

// hurryIfStalled is called after every change that may have stalled the window.
func (w *Window) hurryIfStalled() {
	if w.stalled() {
		for l := range w.lanes {
			l.closeHurry()
		}
	}
}
