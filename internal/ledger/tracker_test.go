package ledger

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// channel is a tracker with its own window, which is large enough, and with steps that
// fail the test when they do not happen.
type channel struct {
	*testing.T
	*Tracker
	window *Window
	now    time.Time
	pages  int
}

func newChannel(t *testing.T, o Ordering) *channel {
	t.Helper()
	w := NewWindow(1000, 1_000_000)
	return &channel{T: t, Tracker: New(o, "channel", w.Open()), window: w, now: time.Unix(1_700_000_000, 0)}
}

// read adds a page of one record for each of the keys, which are separated by
// spaces, with token t1, t2, ...
func (c *channel) read(keys string) {
	c.pages++
	c.Add(Page{Token: fmt.Sprint("t", c.pages), Keys: strings.Fields(keys), Bytes: 10})
}

// delivers takes exactly these records, in this order, and binds "id/attempt" to each.
func (c *channel) delivers(ids ...uint64) []Attempt {
	c.Helper()
	var attempts []Attempt
	var got []uint64
	for {
		a, _, ok := c.Next(c.now)
		if !ok {
			break
		}
		if !c.Bind(a, name(a)) {
			c.Fatalf("record %d cannot be bound", a.ID())
		}
		attempts, got = append(attempts, a), append(got, a.ID())
	}
	if !slices.Equal(got, ids) {
		c.Fatalf("delivered records %v, want %v", got, ids)
	}
	return attempts
}

func name(a Attempt) any { return fmt.Sprintf("%d/%d", a.ID(), a.Number()) }

func (c *channel) acks(attempts ...Attempt) {
	c.Helper()
	for _, a := range attempts {
		if !c.Ack(a) {
			c.Fatalf("ack of %v does not count", name(a))
		}
	}
}

// nacks fails the attempt, to be retried after the backoff, and takes back exactly these.
func (c *channel) nacks(a Attempt, backoff time.Duration, taken ...Attempt) {
	c.Helper()
	var at time.Time
	if backoff > 0 {
		at = c.now.Add(backoff)
	}
	got, ok := c.Nack(a, at)
	if !ok {
		c.Fatalf("nack of %v does not count", name(a))
	}
	c.tookBack(got, taken)
}

func (c *channel) callsBack(a Attempt, taken ...Attempt) {
	c.Helper()
	c.tookBack(c.CallBack(a), taken)
}

func (c *channel) tookBack(got []any, attempts []Attempt) {
	c.Helper()
	var want []any
	for _, a := range attempts {
		want = append(want, name(a))
	}
	if !slices.Equal(got, want) {
		c.Fatalf("took back %v, want %v", got, want)
	}
}

// ends acks an attempt whose outcome is ignored.
func (c *channel) ends(attempts ...Attempt) {
	c.Helper()
	for _, a := range attempts {
		if c.Ack(a) {
			c.Fatalf("ack of %v counts", name(a))
		}
	}
}

// commits expects this token, "" for none, and stores it.
func (c *channel) commits(want string) {
	c.Helper()
	token, position, _ := c.Committable()
	if token != want {
		c.Fatalf("token %q is committable, want %q", token, want)
	}
	c.Committed(position)
}

func (c *channel) hurries(want bool) {
	c.Helper()
	if got := isClosed(c.Hurry()); got != want {
		c.Fatalf("hurries: %v, want %v", got, want)
	}
}

func TestTracker(t *testing.T) {
	t.Run("L1_commits_only_the_acked_prefix", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a b")
		c.read("c")
		c.read("d")
		a := c.delivers(1, 2, 3, 4)
		c.acks(a[2], a[1])
		c.commits("")
		c.acks(a[0])
		c.commits("t2")
		c.commits("")
		c.acks(a[3])
		c.commits("t3")
	})
	t.Run("L1_a_nacked_record_holds_back_its_page_and_all_later_ones", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a")
		c.read("b")
		a := c.delivers(1, 2)
		c.nacks(a[0], time.Second)
		c.acks(a[1])
		c.commits("")
		c.now = c.now.Add(time.Second)
		c.acks(c.delivers(1)...)
		c.commits("t2")
	})
	t.Run("L1_an_empty_page_is_final_with_what_is_before_it", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("")
		c.commits("t1")
		c.read("a")
		c.read("")
		c.commits("")
		c.acks(c.delivers(1)...)
		c.commits("t3")
	})
	t.Run("L1_a_failed_commit_is_offered_again", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("")
		for range 2 {
			if token, _, ok := c.Committable(); !ok || token != "t1" {
				t.Fatalf("committable: %q %v", token, ok)
			}
		}
		_, position, _ := c.Committable()
		c.read("")
		c.Committed(position) // of t1, while t2 became final
		c.commits("t2")
	})
	t.Run("L2_one_outcome_of_each_attempt_counts", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a b")
		a := c.delivers(1, 2)
		c.acks(a[1])
		if c.Ack(a[1]) {
			t.Fatal("second ack counts")
		}
		c.nacks(a[0], 0)
		again := c.delivers(1)
		if _, ok := c.Nack(a[0], time.Time{}); ok || c.Ack(a[0]) || c.Bind(a[0], 1) || c.CallBack(a[0]) != nil {
			t.Fatal("a stale attempt changes the next one")
		}
		if again[0].Number() != 2 || again[0].Failures() != 1 || a[0].Number() != 1 || a[0].Failures() != 0 {
			t.Fatalf("attempts are numbered %d and %d", a[0].Number(), again[0].Number())
		}
		c.acks(again...)
		c.commits("t1")
	})
	t.Run("L2_an_attempt_of_another_tracker_changes_nothing", func(t *testing.T) {
		c, other := newChannel(t, ByKey), newChannel(t, ByKey)
		c.read("a")
		other.read("a")
		a := c.delivers(1)
		other.delivers(1)
		if other.Ack(a[0]) || other.Ack(Attempt{}) {
			t.Fatal("a foreign attempt counts")
		}
	})
	t.Run("orderings", testOrderings)
	t.Run("failures", testFailures)
	t.Run("ends", testEnds)
	t.Run("hurry", testHurry)
}

func testOrderings(t *testing.T) {
	t.Run("L3_records_of_a_key_are_delivered_one_at_a_time", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a b a")
		c.read("a")
		a := c.delivers(1, 2)
		c.acks(a[0])
		a = c.delivers(3)
		c.delivers()
		c.acks(a[0])
		c.delivers(4)
	})
	t.Run("L3_a_record_without_a_key_waits_for_nothing", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.Add(Page{Keys: []string{"", "", "a"}})
		a := c.delivers(1, 2, 3)
		if a[0].Key() != "" || a[2].Key() != "a" {
			t.Fatalf("keys %q, %q", a[0].Key(), a[2].Key())
		}
		c.nacks(a[0], time.Second)
		c.acks(a[1], a[2])
	})
	t.Run("L3_by_channel_all_records_are_one_key", func(t *testing.T) {
		c := newChannel(t, ByChannel)
		c.read("a b c")
		a := c.delivers(1)
		if a[0].Key() != "channel" {
			t.Fatalf("ordering key %q", a[0].Key())
		}
		c.HandOff(a[0])
		a = append(a, c.delivers(2)...)
		c.nacks(a[0], 0, a[1])
		c.ends(a[1])
		c.delivers(1)
	})
	t.Run("unordered_nothing_waits_and_nothing_is_taken_back", func(t *testing.T) {
		c := newChannel(t, Unordered)
		c.read("a a a")
		a := c.delivers(1, 2, 3)
		if a[0].Key() != "" {
			t.Fatalf("ordering key %q", a[0].Key())
		}
		c.callsBack(a[0])
		c.nacks(a[0], 0)
		c.acks(a[1], a[2])
		c.acks(c.delivers(1)...)
		c.commits("t1")
	})
	t.Run("by_channel_needs_a_channel_key", func(t *testing.T) {
		defer func() {
			if recover() == nil {
				t.Fatal("accepted")
			}
		}()
		New(ByChannel, "", NewWindow(1, 1).Open())
	})
	t.Run("a_busy_key_goes_behind_the_others", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a a b c")
		first, _, _ := c.Next(c.now)
		c.HandOff(first)
		c.delivers(3, 4, 2)
	})
	t.Run("L3_hand_off_makes_the_next_record_of_the_key_deliverable", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a a a a")
		a := c.delivers(1)
		c.HandOff(a[0])
		a = append(a, c.delivers(2)...)
		c.delivers()
		c.Begin(a[0]) // a batch that runs keeps the order, too
		c.HandOff(a[1])
		a = append(a, c.delivers(3)...)
		c.acks(a[0], a[1])
		c.delivers()
		c.acks(a[2])
		c.acks(c.delivers(4)...)
		c.commits("t1")
	})
	t.Run("L3_begin_without_hand_off_has_no_effect", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a a")
		c.Begin(c.delivers(1)[0])
		c.delivers()
	})
}

func testFailures(t *testing.T) {
	// handedOff puts n records of one key into batches.
	handedOff := func(t *testing.T, n int) (*channel, []Attempt) {
		c := newChannel(t, ByKey)
		c.read(strings.Repeat("a ", n) + "z")
		var all []Attempt
		for i := range n {
			var a Attempt
			if i == 0 {
				two := c.delivers(1, uint64(n+1))
				c.acks(two[1])
				a = two[0]
			} else {
				a = c.delivers(uint64(i + 1))[0]
			}
			c.HandOff(a)
			all = append(all, a)
		}
		return c, all
	}
	t.Run("L3_a_nack_takes_back_the_later_ones_and_they_are_redelivered_in_order", func(t *testing.T) {
		c, a := handedOff(t, 3)
		c.nacks(a[0], time.Second, a[1], a[2])
		c.now = c.now.Add(time.Second)
		c.delivers() // the handlers of 2 and 3 still run
		c.ends(a[2])
		c.delivers()
		if _, ok := c.Nack(a[1], c.now.Add(time.Hour)); ok {
			t.Fatal("the outcome of an attempt that was called back counts")
		}
		again := c.delivers(1)
		c.acks(again...)
		again = c.delivers(2)
		if again[0].Number() != 2 || again[0].Failures() != 0 {
			t.Fatalf("attempt %d, failures %d", again[0].Number(), again[0].Failures())
		}
		c.acks(again...)
		c.acks(c.delivers(3)...)
		c.commits("t1")
	})
	t.Run("L3_call_back_comes_before_the_outcome_and_the_outcome_counts", func(t *testing.T) {
		c, a := handedOff(t, 3)
		c.callsBack(a[0], a[1], a[2])
		c.ends(a[1], a[2])
		c.HandOff(a[0]) // a retry outside of the middleware runs the handler again
		c.Begin(a[0])
		c.callsBack(a[0])
		c.delivers()
		c.acks(a[0]) // a poison queue outside took it
		c.acks(c.delivers(2)...)
		c.acks(c.delivers(3)...)
		c.commits("t1")
	})
	t.Run("L3_an_earlier_one_fails_while_a_later_one_waits_for_its_retry", func(t *testing.T) {
		c, a := handedOff(t, 3)
		c.nacks(a[1], time.Minute, a[2])
		c.nacks(a[0], time.Second)
		c.ends(a[2])
		c.now = c.now.Add(time.Second)
		first := c.delivers(1)
		c.HandOff(first[0])
		c.delivers() // 2 is not due yet, and 3 is behind it
		c.now = c.now.Add(time.Minute)
		second := c.delivers(2)
		if second[0].Failures() != 1 {
			t.Fatalf("failures %d", second[0].Failures())
		}
		c.acks(first...)
		c.acks(second...)
		c.acks(c.delivers(3)...)
		c.commits("t1")
	})
	t.Run("L3_a_failed_one_is_itself_called_back_by_an_earlier_one", func(t *testing.T) {
		c, a := handedOff(t, 3)
		c.callsBack(a[1], a[2])
		c.callsBack(a[0], a[1])
		c.ends(a[1])
		c.nacks(a[0], 0)
		c.delivers()
		c.ends(a[2])
		c.acks(c.delivers(1)...)
		c.acks(c.delivers(2)...)
		c.acks(c.delivers(3)...)
	})
	t.Run("L3_what_was_ready_is_not_after_an_earlier_failure", func(t *testing.T) {
		c, a := handedOff(t, 2)
		c.read("a")
		c.nacks(a[0], time.Second, a[1])
		c.delivers()
		c.ends(a[1])
		c.delivers()
	})
	t.Run("an_attempt_taken_back_before_it_was_bound_says_so", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a a")
		a := c.delivers(1)
		c.HandOff(a[0])
		late, _, _ := c.Next(c.now)
		c.nacks(a[0], time.Second)
		if c.Bind(late, "late") {
			t.Fatal("bound")
		}
		c.ends(late)
		c.now = c.now.Add(time.Second)
		c.delivers(1)
	})
	t.Run("L8_a_failing_key_holds_back_only_itself_and_the_watermark", func(t *testing.T) {
		c := newChannel(t, ByKey)
		for range 100 {
			c.read("poison a b")
		}
		for range 100 {
			var poison Attempt
			for a, _, ok := c.Next(c.now); ok; a, _, ok = c.Next(c.now) {
				if a.Key() == "poison" {
					poison = a
					continue
				}
				c.acks(a)
			}
			c.nacks(poison, time.Second)
			c.now = c.now.Add(time.Second)
			c.commits("")
		}
		s := c.Stats()
		want := Oldest{ID: 1, Key: "poison", Attempts: 100, Failures: 100}
		if s.InFlight != 100 || s.Oldest != want {
			t.Fatalf("%+v", s)
		}
		if s.Retrying != 1 || s.Live != 0 {
			t.Fatalf("%+v", s)
		}
	})
	t.Run("L8_reading_on_past_a_stuck_record_keeps_no_pages", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("stuck")
		stuck := c.delivers(1)
		for i := range 1000 {
			c.read("")
			c.read("a")
			c.acks(c.delivers(uint64(i + 2))...)
		}
		listed := 0
		for p := c.Tracker.pages.head(); p != nil; p = p.place.next.element() {
			listed++
		}
		if listed != 1 {
			t.Fatalf("%d pages are kept for one record", listed)
		}
		c.commits("")
		c.acks(stuck...)
		c.commits("t2001")
	})
	t.Run("retries_come_when_due_the_earliest_first", func(t *testing.T) {
		c := newChannel(t, ByKey)
		c.read("a b c")
		a := c.delivers(1, 2, 3)
		c.nacks(a[0], 3*time.Second)
		c.nacks(a[1], 1*time.Second)
		c.nacks(a[2], 2*time.Second)
		<-c.Ready()
		for i, id := range []uint64{2, 3, 1} {
			_, at, ok := c.Next(c.now)
			if want := c.now.Add(time.Second); ok || !at.Equal(want) {
				t.Fatalf("retry %d at %v, want %v", i, at, want)
			}
			c.now = at.Add(-time.Nanosecond)
			c.delivers()
			c.now = at
			c.acks(c.delivers(id)...)
		}
		if _, at, ok := c.Next(c.now); ok || !at.IsZero() {
			t.Fatalf("retry at %v, though none is left", at)
		}
	})
	t.Run("Ready_has_a_value_for_each_change_that_makes_a_record_deliverable", func(t *testing.T) {
		c := newChannel(t, ByKey)
		ready := func(what string, want bool) {
			t.Helper()
			select {
			case <-c.Ready():
				if !want {
					t.Fatalf("%s: ready", what)
				}
			default:
				if want {
					t.Fatalf("%s: not ready", what)
				}
			}
		}
		ready("nothing", false)
		c.read("a a a a")
		ready("page", true)
		a := c.delivers(1)
		ready("all delivered", false)
		c.HandOff(a[0])
		ready("hand-off", true)
		a = append(a, c.delivers(2)...)
		c.acks(a[0], a[1])
		ready("ack", true)
		a = c.delivers(3)
		c.nacks(a[0], time.Second)
		ready("earlier retry", true)
		c.now = c.now.Add(time.Second)
		a = c.delivers(3)
		c.HandOff(a[0])
		a = append(a, c.delivers(4)...)
		ready("retry came by asking", true)
		c.nacks(a[0], 0, a[1])
		ready("called back handler runs", false)
		c.ends(a[1])
		ready("its end", true)
	})
}

func TestL6_key_that_never_runs_empty_does_not_pin_the_page_of_its_first_record(t *testing.T) {
	c := newChannel(t, ByKey)
	var texts []string // one for each page, with the same content
	read := func() {
		texts = append(texts, strings.Clone("hot"))
		c.pages++
		c.Add(Page{Token: fmt.Sprint("t", c.pages), Keys: texts[len(texts)-1:], Bytes: 10})
	}
	read()
	for n := range 5 {
		read()
		c.acks(c.delivers(uint64(n + 1))...)
		q := c.queues.get("hot", c.queues.hash("hot"))
		if q == nil {
			t.Fatal("the key has no queue")
		}
		if unsafe.StringData(q.key) != unsafe.StringData(texts[n+1]) {
			t.Errorf("after %d records the key's text is that of an earlier page", n+1)
		}
	}
	c.acks(c.delivers(6)...)
	if q := c.queues.get("hot", c.queues.hash("hot")); q != nil {
		t.Error("the key has a queue without records")
	}
}
