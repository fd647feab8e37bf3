package ledger

import (
	"slices"
	"testing"
	"time"
)

// testEnds is the part of TestTracker about finish, drain and fence.
func testEnds(t *testing.T) {
	closed := func(t *testing.T, what string, c <-chan struct{}, want bool) {
		t.Helper()
		if isClosed(c) != want {
			t.Fatalf("%s: closed %v, want %v", what, !want, want)
		}
	}
	t.Run("L5_done_when_the_finish_page_was_added_and_all_is_acked", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a b")
		a := c.delivers(1, 2)
		c.acks(a[1])
		c.Add(Page{Token: "finished", Finish: true})
		closed(t, "done", c.Done(), false)
		c.commits("")
		c.acks(a[0])
		closed(t, "done", c.Done(), true)
		c.commits("finished")
	})
	t.Run("L5_done_at_once_when_nothing_is_in_flight", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.Add(Page{Token: "finished", Finish: true})
		closed(t, "done", c.Done(), true)
		c.commits("finished")
	})
	t.Run("L5_a_finish_page_may_hold_records", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.Add(Page{Token: "finished", Keys: []string{"a"}, Finish: true})
		a := c.delivers(1)
		closed(t, "done", c.Done(), false)
		c.acks(a...)
		closed(t, "done", c.Done(), true)
	})
	t.Run("L5_a_drain_may_still_finish", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a")
		c.Add(Page{Token: "finished", Finish: true})
		a := c.delivers(1)
		c.Drain()
		c.acks(a...)
		closed(t, "done", c.Done(), true)
		c.commits("finished")
	})
	t.Run("L5_dropped_records_keep_a_channel_from_its_end", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a a")
		c.Add(Page{Token: "finished", Finish: true})
		a := c.delivers(1)
		c.Drain()
		c.acks(a...)
		closed(t, "done", c.Done(), false)
		c.commits("")
	})
	t.Run("bad_pages_panic", func(t *testing.T) {
		for what, p := range map[string]Page{"after finish": {}, "negative": {Bytes: -1}} {
			func() {
				c := newChannel(t, ByKey)
				if what == "after finish" {
					c.Add(Page{Finish: true})
				}
				defer func() {
					if recover() == nil {
						t.Errorf("%s: accepted", what)
					}
				}()
				c.Add(p)
			}()
		}
	})
	t.Run("L4_drain_delivers_nothing_and_lets_acks_move_the_watermark", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a b")
		c.read("c a")
		a := c.delivers(1, 2, 3)
		c.Drain()
		c.Drain()
		c.delivers()
		closed(t, "drained", c.Drained(), false)
		if s := c.Stats(); s.InFlight != 3 || s.Live != 3 {
			t.Fatalf("%+v", s)
		}
		c.acks(a[2], a[0], a[1])
		closed(t, "drained", c.Drained(), true)
		c.commits("t1") // a record of the second page was dropped
		if s := c.Stats(); s != (Stats{}) {
			t.Fatalf("%+v", s)
		}
	})
	t.Run("L4_while_draining_failed_attempts_end_without_redelivery", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("z")
		c.read("a a a b")
		a := c.delivers(1, 2, 5)
		c.HandOff(a[1])
		a = append(a, c.delivers(3)...)
		c.HandOff(a[3])
		a = append(a, c.delivers(4)...)
		c.nacks(a[2], time.Second)
		c.Drain()
		c.callsBack(a[1], a[3], a[4])
		c.ends(a[3])
		c.nacks(a[1], time.Second)
		c.now = c.now.Add(time.Hour)
		if _, at, ok := c.Next(c.now); ok || !at.IsZero() {
			t.Fatal("a draining tracker retries")
		}
		c.acks(a[0])
		closed(t, "drained", c.Drained(), false)
		c.ends(a[4])
		closed(t, "drained", c.Drained(), true)
		c.commits("t1")
	})
	t.Run("L4_pages_that_are_added_after_a_drain_are_dropped", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.Drain()
		closed(t, "drained", c.Drained(), true)
		c.read("a")
		c.read("") // behind the one that was dropped: not committable either
		c.delivers()
		c.commits("")
		if s := c.Stats(); s != (Stats{}) {
			t.Fatalf("%+v", s)
		}
	})
	t.Run("L4_fence_drops_everything_and_returns_the_attempts_to_cancel", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("z")
		c.read("a a b c")
		a := c.delivers(1, 2, 4, 5)
		c.acks(a[0]) // t1 is final, and not committed yet
		c.HandOff(a[1])
		later := c.delivers(3)
		c.callsBack(a[1], later...)
		live := c.Fence()
		if want := []any{name(a[1]), name(a[2]), name(a[3])}; !slices.Equal(live, want) {
			t.Fatalf("to cancel: %v, want %v", live, want)
		}
		closed(t, "drained", c.Drained(), true)
		for _, a := range append(a, later...) {
			if _, ok := c.Nack(a, time.Time{}); ok || c.Ack(a) || c.Bind(a, 1) || c.CallBack(a) != nil {
				t.Fatal("an outcome counts")
			}
			c.HandOff(a)
			c.Begin(a)
		}
		c.read("a")
		c.delivers()
		c.commits("")
		if s := c.Stats(); s != (Stats{}) || c.Fence() != nil {
			t.Fatalf("%+v", s)
		}
	})
	t.Run("L6_drain_and_fence_free_the_capacity", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a b c")
		c.read("d")
		a := c.delivers(1, 2, 3, 4)
		c.nacks(a[2], 0)
		uses := func(records, bytes int64) {
			t.Helper()
			if l := c.lane; l.records.used != records || l.bytes.used != bytes {
				t.Fatalf("uses %d records, %d bytes, want %d, %d", l.records.used, l.bytes.used, records, bytes)
			}
		}
		uses(4, 20)
		c.Drain()
		uses(3, 20)
		c.acks(a[0], a[1])
		uses(1, 10)
		c.Fence()
		uses(0, 0)
	})
}

// testHurry is the part of TestTracker about Hurry: when waiting is pointless.
func testHurry(t *testing.T) {
	t.Run("drain_hurries_for_good", func(t *testing.T) {
		c := newChannel(t, ByKey)
		before := c.Hurry()
		c.Drain()
		if !isClosed(before) {
			t.Fatal("the channel of an earlier call is not closed")
		}
		c.hurries(true)
	})
	t.Run("fence_hurries_for_good", func(t *testing.T) {
		c := newChannel(t, ByKey)
		before := c.Hurry()
		c.Fence()
		if !isClosed(before) {
			t.Fatal("the channel of an earlier call is not closed")
		}
		c.hurries(true)
	})
	t.Run("after_the_finish_page_when_all_that_is_left_waits", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a b c")
		a := c.delivers(1, 2, 3)
		c.HandOff(a[0])
		c.HandOff(a[1])
		before := c.Hurry()
		c.Add(Page{Finish: true})
		c.hurries(false) // 3 may still join the batch
		c.nacks(a[2], time.Minute)
		if !isClosed(before) {
			t.Fatal("the channel of an earlier call is not closed")
		}
		c.hurries(true)
		c.Begin(a[0])
		c.hurries(false) // its end may make more records deliverable
		c.acks(a[0])
		c.hurries(true)
	})
	t.Run("not_while_the_channel_may_have_more", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a")
		c.HandOff(c.delivers(1)[0])
		c.hurries(false)
	})
}
