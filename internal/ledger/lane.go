package ledger

import "container/list"

// Lane is one channel's part of a Window. The reader of the channel asks it for
// admission; its tracker tells it what is in flight. All methods are safe for
// concurrent use, but one reader asks.
//
// All fields but window and wake are guarded by Window.mu.
type Lane struct {
	window *Window
	wake   chan struct{}

	records, bytes use
	standing       standing      // the tracker's last report
	place          *list.Element // in Window.refused, nil while the lane does not wait
	woken          bool          // was woken and has not asked since; only with a place
	hurried        chan struct{} // what hurry returned; nil if nobody asked since it was closed
	retired        bool          // its tracker drains, or it is closed: no more pages
	closed         bool
}

// standing is what a tracker tells its lane.
type standing struct {
	records   int64 // in flight
	bytes     int64 // of pages with records in flight
	moving    int   // what goes on by itself: deliverable records, and attempts that do not wait
	waiting   int   // attempts that are handed off and whose batch does not run
	finishing bool  // no more pages come
}

// closedChannel is what hurry returns while there is nothing to wait for.
var closedChannel = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Admit asks whether the channel may read one more page: one admission, one
// page. If not, the lane waits: Wake gets a value when it is worth asking again.
// The lane keeps its place until it is admitted. Nobody holds room for it,
// though, so it may be refused again.
//
// Once the lane's tracker drains or is fenced, or the lane is closed, the answer
// is false and Wake stays silent.
func (l *Lane) Admit() bool {
	w := l.window
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.retired {
		return false
	}
	l.asleep()
	ok := l.room()
	if ok {
		l.leave()
		w.records.admit(&l.records)
		w.bytes.admit(&l.bytes)
	} else if l.place == nil {
		l.place = w.refused.PushBack(l)
	}
	// The wake-up that brought this lane here goes on to the next one.
	w.wakeNext()
	w.hurryIfStalled()
	return ok
}

// Wake has a value when a lane that was refused should ask again. It may have one in vain.
func (l *Lane) Wake() <-chan struct{} { return l.wake }

// Close gives the lane's share and everything it still uses back to the others.
// Close it when its tracker is fenced or drained. It may be called again.
func (l *Lane) Close() {
	w := l.window
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.closed {
		return
	}
	l.stop()
	l.tell(standing{})
	l.closed = true
	delete(w.lanes, l)
	w.share()
	w.hurryIfStalled()
}

// report is the tracker telling what is in flight.
func (l *Lane) report(s standing) {
	w := l.window
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.closed {
		return
	}
	if roomier := l.tell(s); roomier {
		// The shared part of some budget has room that it did not have. In the
		// order of their places: this lane may wait, too.
		w.wakeNext()
	} else if l.place != nil && !l.woken && l.room() {
		// Nothing changed for the others, but this lane is below its reserve.
		l.wakeUp()
	}
	w.hurryIfStalled()
	if l.ending() {
		l.closeHurry()
	}
}

// tell takes the numbers over, and reports whether that may have made room for others.
func (l *Lane) tell(s standing) (roomier bool) {
	w := l.window
	w.moving += s.moving - l.standing.moving
	w.waiting += s.waiting - l.standing.waiting
	l.standing = s
	records := w.records.set(&l.records, s.records)
	bytes := w.bytes.set(&l.bytes, s.bytes)
	return records || bytes
}

// retire is the tracker saying that the channel reads no more: nobody need wait
// for more of it, and it must not keep a place, or a wake-up, from the others.
// What is in flight still counts until it is settled.
func (l *Lane) retire() {
	w := l.window
	w.mu.Lock()
	defer w.mu.Unlock()
	l.stop()
	w.wakeNext()
	w.hurryIfStalled()
}

// stop is for good: Admit gives no place any more, hurry is closed for whoever asks.
func (l *Lane) stop() {
	l.retired = true
	l.closeHurry()
	l.leave()
}

// hurry returns the channel behind Tracker.Hurry.
func (l *Lane) hurry() <-chan struct{} {
	w := l.window
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.retired || l.ending() || w.stalled() {
		return closedChannel
	}
	if l.hurried == nil {
		l.hurried = make(chan struct{})
	}
	return l.hurried
}

// closeHurry lets everybody go who got the channel so far. Who asks while the
// reason lasts gets closedChannel; who asks later, another one.
func (l *Lane) closeHurry() {
	if l.hurried != nil {
		close(l.hurried)
		l.hurried = nil
	}
}

// ending: the channel has no more pages, and all that it has with handlers waits.
func (l *Lane) ending() bool {
	s := &l.standing
	return s.finishing && s.moving == 0 && s.waiting > 0
}

// room reports whether both budgets let the lane read one more page.
func (l *Lane) room() bool {
	return l.window.records.room(l.records) && l.window.bytes.room(l.bytes)
}

// wakeUp tells a waiting lane to ask again.
func (l *Lane) wakeUp() {
	l.woken = true
	l.window.woken++
	select {
	case l.wake <- struct{}{}:
	default: // an earlier value is still there and does as well
	}
}

// asleep ends a wake-up, because the lane has asked or leaves.
func (l *Lane) asleep() {
	if l.woken {
		l.woken = false
		l.window.woken--
	}
}

// leave gives up the lane's place among those that wait.
func (l *Lane) leave() {
	l.asleep()
	if l.place != nil {
		l.window.refused.Remove(l.place)
		l.place = nil
	}
}
