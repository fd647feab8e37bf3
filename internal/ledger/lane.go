package ledger

import (
	"container/list"
	"sync/atomic"
)

// Lane is one channel's part of a Window. The channel's reader asks it for admission;
// the channel's tracker reports to it what is in flight. All methods are safe for
// concurrent use, but only one reader calls Admit.
//
// All fields but window and wake are guarded by Window.mu.
type Lane struct {
	window *Window
	wake   chan struct{}

	records, bytes use
	load           load                          // the tracker's last report
	place          *list.Element                 // in Window.refused, nil while the lane does not wait
	woken          bool                          // was woken and has not called Admit since; only with a place
	hurried        atomic.Pointer[chan struct{}] // what hurry returned, while that is open; hurry reads it without the lock
	retired        bool                          // its tracker drains, or it is closed: no more pages
	closed         bool
}

// load is what a tracker reports to its lane.
type load struct {
	records   int64 // in flight
	bytes     int64 // of pages with records in flight
	moving    int   // deliverable records, and attempts that do not wait for others
	waiting   int   // attempts that are handed off and whose batch does not run
	finishing bool  // the finish page was added
}

// closedChannel is what hurry returns while there is nothing to wait for.
var closedChannel = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Admit reports whether the channel may read one more page: one admission, one
// page. If not, the lane waits: Wake gets a value when the reader should call Admit
// again. The lane keeps its place among the waiting lanes until it is admitted. No
// capacity is reserved for it, so it may be refused again.
//
// Once the lane's tracker drains or is fenced, or the lane is closed, Admit returns
// false and Wake gets no value.
func (l *Lane) Admit() bool {
	w := l.window
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.retired {
		return false
	}
	l.asleep()
	ok := l.mayRead()
	if ok {
		l.leave()
		w.records.admit(&l.records)
		w.bytes.admit(&l.bytes)
	} else if l.place == nil {
		l.place = w.refused.PushBack(l)
	}
	// The wake-up of this lane is passed on to the next one.
	w.wakeNext()
	w.hurryIfStalled()
	return ok
}

// AdmitRows reports whether pages that were added may grow by one round of Release, as
// Admit does for one more page; it admits bytes only, and a lane that is refused does not
// wait: it asks again. The first page of the tracker (IsFirst) needs no admission, or nothing would go on.
func (l *Lane) AdmitRows() bool {
	w := l.window
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.retired || !l.mayRead() {
		return false
	}
	w.bytes.admit(&l.bytes)
	return true
}

// Wake has a value when a lane that was refused should call Admit again. It may have a
// value without need.
func (l *Lane) Wake() <-chan struct{} { return l.wake }

// Close gives the lane's share and everything it still uses back to the others.
// Call it when the lane's tracker is fenced or drained. It may be called again.
func (l *Lane) Close() {
	w := l.window
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.closed {
		return
	}
	l.stop()
	l.update(load{})
	l.closed = true
	delete(w.lanes, l)
	w.share()
	w.hurryIfStalled()
}

// report is called by the tracker with what is in flight.
func (l *Lane) report(s load) {
	w := l.window
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.closed {
		return
	}
	if freed := l.update(s); freed {
		// The shared part of a budget has capacity again. Lanes are woken in the
		// order of their places, because this lane may wait, too.
		w.wakeNext()
	} else if l.place != nil && !l.woken && l.mayRead() {
		// Nothing changed for the others, but this lane is below its reserve.
		l.wakeUp()
	}
	w.hurryIfStalled()
	if l.ending() {
		l.closeHurry()
	}
}

// update stores the numbers, and reports whether other lanes may read because of them.
func (l *Lane) update(s load) (freed bool) {
	w := l.window
	w.moving += s.moving - l.load.moving
	w.waiting += s.waiting - l.load.waiting
	l.load = s
	records := w.records.set(&l.records, s.records)
	bytes := w.bytes.set(&l.bytes, s.bytes)
	return records || bytes
}

// retire is called by the tracker when the channel will not read more pages. Batches
// need not wait for more of its records, and the lane must not keep a place or a
// wake-up from the others. What is in flight still counts until it is settled.
func (l *Lane) retire() {
	w := l.window
	w.mu.Lock()
	defer w.mu.Unlock()
	l.stop()
	w.wakeNext()
	w.hurryIfStalled()
}

// stop retires the lane: Admit always returns false, and hurry a closed channel.
func (l *Lane) stop() {
	l.retired = true
	l.closeHurry()
	l.leave()
}

// hurry returns the channel behind Tracker.Hurry.
func (l *Lane) hurry() <-chan struct{} {
	if c := l.hurried.Load(); c != nil {
		return *c // it is closed as soon as there is a reason
	}
	w := l.window
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.retired || l.ending() || w.stalled() {
		return closedChannel
	}
	if c := l.hurried.Load(); c != nil {
		return *c
	}
	c := make(chan struct{})
	l.hurried.Store(&c)
	return c
}

// closeHurry closes the channel that hurry returned so far. While the reason lasts,
// hurry returns closedChannel; after that, another channel.
func (l *Lane) closeHurry() {
	if c := l.hurried.Swap(nil); c != nil {
		close(*c)
	}
}

// ending reports whether the channel has no more pages and all of its records with
// handlers wait.
func (l *Lane) ending() bool {
	s := &l.load
	return s.finishing && s.moving == 0 && s.waiting > 0
}

// mayRead reports whether both budgets let the lane read one more page.
func (l *Lane) mayRead() bool {
	return l.window.records.mayRead(l.records) && l.window.bytes.mayRead(l.bytes)
}

// wakeUp makes a waiting lane call Admit again.
func (l *Lane) wakeUp() {
	l.woken = true
	l.window.woken++
	select {
	case l.wake <- struct{}{}:
	default: // an earlier value is still there
	}
}

// asleep ends a wake-up, because the lane has called Admit or leaves.
func (l *Lane) asleep() {
	if l.woken {
		l.woken = false
		l.window.woken--
	}
}

// leave gives up the lane's place among the waiting lanes.
func (l *Lane) leave() {
	l.asleep()
	if l.place != nil {
		l.window.refused.Remove(l.place)
		l.place = nil
	}
}
