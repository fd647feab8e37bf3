package ledger

import (
	"fmt"
	"testing"
	"time"
)

// reader is a channel on a shared window.
type reader struct {
	*channel
	lane *Lane
}

func newReaders(t *testing.T, w *Window, n int) []*reader {
	var out []*reader
	for range n {
		l := w.Open()
		c := &channel{T: t, Tracker: New(Unordered, "", l), window: w, now: time.Unix(1_700_000_000, 0)}
		out = append(out, &reader{channel: c, lane: l})
	}
	return out
}

// fill reads pages of the given number of records until it is refused, and returns how
// many records it read.
func (r *reader) fill(page int) (records int) {
	for r.lane.Admit() {
		r.Add(Page{Keys: make([]string, page), Bytes: int64(page)})
		records += page
	}
	return records
}

// ackOne delivers a record and acks it.
func (r *reader) ackOne() {
	r.Helper()
	a, _, ok := r.Next(r.now)
	if !ok || !r.Ack(a) {
		r.Fatal("nothing to ack")
	}
}

func (r *reader) woken(want bool) {
	r.Helper()
	if got := len(r.lane.Wake()) > 0; got != want {
		r.Fatalf("woken %v, want %v", got, want)
	}
}

// asks consumes the wake-up, if there is one, and calls Admit.
func (r *reader) asks(want bool) {
	r.Helper()
	select {
	case <-r.lane.Wake():
	default:
	}
	if got := r.lane.Admit(); got != want {
		r.Fatalf("admitted %v, want %v", got, want)
	}
}

func TestWindow(t *testing.T) {
	t.Run("L6_one_channel_alone_may_use_it_all_and_one_page_more", func(t *testing.T) {
		for _, page := range []int{1, 3, 7, 100, 1000} {
			r := newReaders(t, NewWindow(100, 1<<40), 1)[0]
			if got := r.fill(page); got < 100 || got > 100+page-1 {
				t.Errorf("pages of %d: %d records in flight", page, got)
			}
		}
	})
	t.Run("L6_bytes_are_limited_like_records", func(t *testing.T) {
		r := newReaders(t, NewWindow(1<<40, 100), 1)[0]
		if got := r.fill(7); got < 100 || got > 106 {
			t.Errorf("%d bytes in flight", got)
		}
	})
	t.Run("L6_bytes_are_released_with_the_last_record_of_a_page", func(t *testing.T) {
		r := newReaders(t, NewWindow(1000, 10), 1)[0]
		if got := r.fill(10); got != 10 {
			t.Fatalf("%d bytes in flight", got)
		}
		for range 9 {
			r.ackOne()
			r.woken(false)
		}
		r.ackOne()
		r.woken(true)
		r.asks(true)
	})
	t.Run("L6_a_stuck_channel_leaves_each_other_its_reserve", func(t *testing.T) {
		for n := 2; n <= 20; n++ {
			for _, page := range []int{1, 3, 50, 500} {
				rs := newReaders(t, NewWindow(200, 1<<40), n)
				stuck := rs[0].fill(page)
				reserve := 200 / (2 * n)
				if limit := 200 - (n-1)*reserve + page - 1; stuck > limit {
					t.Errorf("%d lanes, pages of %d: stuck channel has %d, more than %d", n, page, stuck, limit)
				}
				total := stuck
				for i, r := range rs[1:] {
					got := r.fill(page)
					if got < reserve {
						t.Errorf("%d lanes, pages of %d: channel %d gets %d, less than its %d", n, page, i+1, got, reserve)
					}
					total += got
				}
				if total > 200+n*page {
					t.Errorf("%d lanes, pages of %d: %d in flight", n, page, total)
				}
			}
		}
	})
	t.Run("L6_tiny_windows_still_flow", func(t *testing.T) {
		for _, capacity := range []int{-1, 0, 1, 2, 3} {
			rs := newReaders(t, NewWindow(capacity, int64(capacity)), 5)
			for range 3 {
				for i, r := range rs {
					if got := r.fill(1); got == 0 {
						t.Errorf("capacity %d: channel %d reads nothing", capacity, i)
					}
					for r.Stats().InFlight > 0 {
						r.ackOne()
					}
				}
			}
		}
	})
	t.Run("L6_channels_that_open_later_read_page_by_page_until_the_loans_are_paid_back", func(t *testing.T) {
		w := NewWindow(100, 1<<40)
		stuck := newReaders(t, w, 1)[0]
		if got := stuck.fill(10); got != 100 {
			t.Fatalf("%d in flight", got)
		}
		latecomers := newReaders(t, w, 9)
		for _, late := range latecomers {
			// Their reserves are 5, but all 100 are taken: one page each.
			if got := late.fill(1); got != 1 {
				t.Fatalf("%d read on top of a full window", got)
			}
			late.ackOne()
			late.asks(true)
		}
		// Of the 100, 50 are reserves and 50 may be lent: stuck may keep 55.
		latecomers[0].Add(Page{Keys: make([]string, 1)})
		latecomers[0].asks(false)
		for range 45 {
			latecomers[0].woken(false)
			stuck.ackOne()
		}
		latecomers[0].woken(true)
		for i, late := range latecomers {
			if late.fill(1); late.Stats().InFlight < 5 {
				t.Errorf("channel %d has %d in flight", i+1, late.Stats().InFlight)
			}
		}
	})
	t.Run("L6_a_closed_lane_frees_all_its_capacity", func(t *testing.T) {
		w := NewWindow(100, 1<<40)
		rs := newReaders(t, w, 2)
		rs[0].fill(1)
		rs[1].fill(1)
		rs[1].lane.Close()
		rs[1].lane.Close()
		rs[1].ackOne() // outcomes may still be reported to its tracker; the window ignores them
		rs[0].woken(true)
		rs[0].asks(true)
		if got := rs[0].fill(1); rs[0].Stats().InFlight != 100 {
			t.Fatalf("%d more, %d in flight", got, rs[0].Stats().InFlight)
		}
		rs[1].asks(false)
	})
	t.Run("wake_up", testWake)
	t.Run("stall", testStall)
}

func testWake(t *testing.T) {
	// full returns readers that all wait, with no capacity beyond their reserves.
	full := func(t *testing.T, n int) []*reader {
		rs := newReaders(t, NewWindow(10*n, 1<<40), n)
		rs[0].fill(1)
		for _, r := range rs[1:] {
			r.fill(1)
		}
		for _, r := range rs {
			r.woken(false)
		}
		return rs
	}
	t.Run("L6_a_release_wakes_one_and_each_admission_the_next", func(t *testing.T) {
		rs := full(t, 4)
		for range 3 {
			rs[0].ackOne() // of the borrowed capacity
		}
		rs[0].woken(true) // it waits longest
		for i, r := range rs {
			for _, later := range rs[i+1:] {
				later.woken(false)
			}
			r.asks(true)
		}
	})
	t.Run("L6_a_lane_that_is_refused_again_keeps_its_place", func(t *testing.T) {
		rs := full(t, 3)
		rs[0].ackOne()
		rs[0].woken(true)
		for rs[1].lane.Admit() { // not its turn, but it calls Admit
			rs[1].Add(Page{Keys: make([]string, 1)})
		}
		rs[0].asks(false)
		rs[2].asks(false) // was woken as well, while there was capacity
		rs[0].ackOne()
		rs[0].woken(true)
		rs[2].woken(false)
	})
	t.Run("L6_below_its_reserve_a_channel_does_not_wait_for_the_lanes_before_it", func(t *testing.T) {
		rs := full(t, 3)
		rs[2].ackOne()
		rs[2].woken(true)
		rs[0].woken(false)
		rs[2].asks(true)
	})
	t.Run("L6_a_lane_that_leaves_passes_its_wake_up_on", func(t *testing.T) {
		for what, leave := range map[string]func(*reader){
			"drain": func(r *reader) { r.Drain() },
			"fence": func(r *reader) { r.Fence() },
			"close": func(r *reader) { r.lane.Close() },
		} {
			rs := full(t, 3)
			rs[0].ackOne()
			rs[0].woken(true)
			leave(rs[0])
			rs[1].woken(true)
			rs[0].asks(false)
			rs[1].asks(true)
			if rs[0].window.refused.Len() != 1 {
				t.Errorf("%s: %d wait", what, rs[0].window.refused.Len())
			}
		}
	})
	t.Run("L6_a_lane_that_waits_for_bytes_does_not_block_one_that_waits_for_records", func(t *testing.T) {
		w := NewWindow(20, 100)
		rs := newReaders(t, w, 2)
		// The first has few records and many bytes, the second the other way round.
		for rs[0].lane.Admit() {
			rs[0].Add(Page{Keys: make([]string, 1), Bytes: 25})
		}
		for rs[1].lane.Admit() {
			rs[1].Add(Page{Keys: make([]string, 1)})
		}
		rs[0].woken(false)
		rs[1].ackOne()
		rs[0].woken(false)
		rs[1].woken(true)
		rs[1].asks(true)
	})
}

func testStall(t *testing.T) {
	// delivered returns readers on a full window; handlers have all that they read.
	delivered := func(t *testing.T, n int) ([]*reader, []Attempt) {
		rs := newReaders(t, NewWindow(4*n, 1<<40), n)
		var all []Attempt
		for _, r := range rs {
			r.fill(1)
			for a, _, ok := r.Next(r.now); ok; a, _, ok = r.Next(r.now) {
				all = append(all, a)
			}
		}
		return rs, all
	}
	of := func(a Attempt) *Tracker { return a.e.page.tracker }

	t.Run("all_are_hurried_when_all_attempts_of_all_lanes_wait", func(t *testing.T) {
		rs, all := delivered(t, 3)
		var before []<-chan struct{}
		for _, r := range rs {
			before = append(before, r.Hurry())
		}
		for _, a := range all {
			for _, r := range rs {
				r.hurries(false)
			}
			of(a).HandOff(a)
		}
		for i, r := range rs {
			if !isClosed(before[i]) {
				t.Errorf("channel %d: the channel of an earlier call is not closed", i)
			}
			r.hurries(true)
		}
		of(all[0]).Begin(all[0])
		for _, r := range rs {
			r.hurries(false)
		}
	})
	for what, end := range map[string]func(Attempt){
		"ack of one record of a page": func(a Attempt) { of(a).Ack(a) },
		"nack":                        func(a Attempt) { of(a).Nack(a, time.Unix(1<<40, 0)) },
	} {
		t.Run(fmt.Sprintf("when_the_last_that_moves_ends_with_%s", what), func(t *testing.T) {
			r := newReaders(t, NewWindow(100, 3), 1)[0]
			r.fill(3) // the bytes are used up until all three are acked
			a := r.deliversAll()
			r.HandOff(a[0])
			r.HandOff(a[1])
			before := r.Hurry()
			r.hurries(false)
			end(a[2])
			if !isClosed(before) {
				t.Fatal("not hurried")
			}
			r.hurries(true)
		})
	}
	t.Run("when_a_reader_is_refused_last", func(t *testing.T) {
		r := newReaders(t, NewWindow(1, 1), 1)[0]
		r.asks(true)
		r.Add(Page{Keys: []string{"a"}})
		r.HandOff(r.deliversAll()[0])
		before := r.Hurry()
		r.hurries(false) // its reader may read more
		r.asks(false)
		if !isClosed(before) {
			t.Fatal("not hurried")
		}
	})
	t.Run("when_what_still_moved_was_of_a_closed_lane", func(t *testing.T) {
		rs := newReaders(t, NewWindow(2, 2), 2)
		for _, r := range rs {
			r.fill(1)
		}
		rs[0].HandOff(rs[0].deliversAll()[0])
		rs[1].deliversAll()
		rs[0].hurries(false)
		rs[1].lane.Close()
		rs[0].woken(true) // it has the whole window
		rs[0].hurries(false)
		rs[0].fill(1)
		rs[0].HandOff(rs[0].deliversAll()[0])
		rs[0].hurries(true)
	})
	t.Run("not_while_something_is_deliverable", func(t *testing.T) {
		r := newReaders(t, NewWindow(2, 2), 1)[0]
		r.asks(true)
		r.Add(Page{Keys: []string{"a", "b"}})
		r.asks(false)
		a, _, _ := r.Next(r.now)
		r.HandOff(a)
		r.hurries(false)
	})
}

func (c *channel) deliversAll() (all []Attempt) {
	for a, _, ok := c.Next(c.now); ok; a, _, ok = c.Next(c.now) {
		all = append(all, a)
	}
	return all
}

func TestAdmitRows_what_was_admitted_before_a_round_counts_as_older_when_lanes_open(t *testing.T) {
	w := NewWindow(1000, 100)
	a := w.Open()
	first := New(Unordered, "", a)
	if !a.Admit() {
		t.Fatal("an empty window admits no page")
	}
	p := first.Add(Page{Token: "1", Keys: []string{""}, Bytes: 90, Withheld: true})
	if !a.AdmitRows() {
		t.Fatal("a window with room admits no rows")
	}
	first.Release(p, 1, 40)
	if a.AdmitRows() {
		t.Error("L6: a full window admits another round")
	}
	b := w.Open() // its reserve is in use by the other lane: one page at a time
	second := New(Unordered, "", b)
	if !b.Admit() {
		t.Fatal("a new lane gets no page")
	}
	second.Add(Page{Token: "1", Keys: []string{""}, Bytes: 10})
	if b.Admit() {
		t.Error("L6: the new lane reads a second page although 90 bytes of the other are older than its last round")
	}
}
