package router

import (
	"fmt"
	"testing"
	"time"
)

func TestAttempts(t *testing.T) {
	start := time.Unix(0, 0)
	// process is a failure in Process after some messages have succeeded.
	process := func(succeeded uint64) evidence { return evidence{own: true, before: succeeded, after: succeeded} }
	setup := func() *attempts { return newAttempts(time.Second, time.Minute) }

	t.Run("each_failure_of_a_message_that_fails_alone_counts_once_others_succeed", func(t *testing.T) {
		a := setup()
		for n := range 5 {
			j := a.failed("bad", process(uint64(n)), start)
			if j.attempts != n+1 || j.witness != (n > 0) {
				t.Errorf("failure %d: %+v", n+1, j)
			}
		}
	})
	t.Run("they_count_on_when_no_more_messages_come", func(t *testing.T) {
		a := setup()
		a.failed("bad", process(0), start)
		for n := range 4 {
			if j := a.failed("bad", process(99), start); j.attempts != n+2 || !j.witness {
				t.Errorf("failure %d: %+v", n+2, j)
			}
		}
	})
	t.Run("connections_that_are_lost_count_once_between_two_successes", func(t *testing.T) {
		a := setup()
		lost := func(succeeded uint64) evidence {
			ev := process(succeeded)
			ev.lost = true
			return ev
		}
		a.failed("bad", process(0), start)
		for range 100 { // an outage, in which nothing else is tried
			if j := a.failed("bad", lost(99), start); j.attempts != 2 {
				t.Fatalf("got %+v", j)
			}
		}
		for n := range 3 { // a row of which the sink dies, among others that it takes
			if j := a.failed("bad", lost(uint64(100+n)), start); j.attempts != n+3 || !j.witness {
				t.Errorf("failure %d: %+v", n+3, j)
			}
		}
	})
	t.Run("failures_before_anything_succeeded_are_one", func(t *testing.T) {
		a := setup()
		for range 100 {
			if j := a.failed("bad", process(7), start); j.attempts != 1 || j.witness {
				t.Errorf("got %+v", j)
			}
		}
		if j := a.failed("bad", process(8), start); j.attempts != 2 || !j.witness {
			t.Errorf("after a success: %+v", j)
		}
	})
	t.Run("failures_of_an_outage_do_not_count", func(t *testing.T) {
		a := setup()
		// bad has two failures that count when the outage begins.
		a.failed("bad", process(0), start)
		a.failed("bad", process(1), start)
		for range 50 {
			a.failed("x", process(2), start)
			a.failed("y", process(2), start)
			if j := a.failed("bad", process(2), start); j.witness {
				t.Errorf("in the outage: %+v", j)
			}
		}
		for _, id := range []string{"x", "y"} { // it is over
			if j := a.failed(id, process(3), start); j.attempts != 1 {
				t.Errorf("%s starts with %+v", id, j)
			}
		}
		if j := a.failed("bad", process(3), start); j.attempts != 3 || !j.witness {
			t.Errorf("bad continues with %+v", j)
		}
	})
	t.Run("outages_that_follow_each_other_do_not_add_up", func(t *testing.T) {
		a := setup()
		for n := range 100 {
			for _, id := range []string{"x", "y", fmt.Sprint("fresh ", n), fmt.Sprint("new ", n)} {
				if j := a.failed(id, process(uint64(n)), start); j.witness && j.attempts > 2 {
					t.Fatalf("outage %d: %s has %+v", n, id, j)
				}
			}
		}
	})
	t.Run("in_a_batch_the_success_of_neighbours_is_a_witness", func(t *testing.T) {
		a := setup()
		if j := a.failed("bad", evidence{place: "default", own: true, before: 10, after: 109}, start); j.attempts != 1 || !j.witness {
			t.Errorf("got %+v", j)
		}
	})
	t.Run("failures_together_with_others_do_not_count_but_age", func(t *testing.T) {
		a := setup()
		for n := range 10 {
			j := a.failed("a", evidence{place: "default", before: 10, after: 20}, start.Add(time.Duration(n)*time.Second))
			if j.attempts != 0 || j.witness || j.age != time.Duration(n)*time.Second {
				t.Errorf("got %+v", j)
			}
		}
	})
	t.Run("successes_at_one_place_are_no_witness_at_another", func(t *testing.T) {
		a := setup()
		a.failed("bad", process(5), start)
		if j := a.failed("bad", evidence{place: "s3", own: true, before: 100, after: 100}, start); j.witness {
			t.Errorf("got %+v", j)
		}
		if j := a.failed("bad", evidence{place: "s3", own: true, before: 101, after: 101}, start); !j.witness {
			t.Errorf("got %+v", j)
		}
	})
	t.Run("entries_that_were_not_touched_for_long_are_dropped", func(t *testing.T) {
		a := setup()
		for i := range minCleanup - 1 {
			a.failed(fmt.Sprint("old ", i), process(0), start)
		}
		later := start.Add(a.keep + time.Second)
		a.failed("a", process(1), later)
		if len(a.entries) != 1 {
			t.Errorf("after the sweep %d entries are left", len(a.entries))
		}
		a.forget("a")
		if j := a.failed("a", process(2), later); j.attempts != 1 {
			t.Errorf("a forgotten message has %+v", j)
		}
		a.forget("a")
		if a.some.Load() {
			t.Error("it does not know that nothing fails")
		}
	})
}
