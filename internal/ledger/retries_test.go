package ledger

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestRetries compares the heap with a sorted slice.
func TestRetries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h retries
		var want []int // due ticks, sorted
		at := func(tick int) time.Time { return time.Unix(int64(tick), 0) }
		for now := range rapid.IntRange(1, 60).Draw(t, "steps") {
			for range rapid.IntRange(0, 3).Draw(t, "pushes") {
				tick := now + rapid.IntRange(0, 30).Draw(t, "backoff")
				first := h.push(new(entry), at(tick))
				if earlier := len(want) == 0 || tick < want[0]; first != earlier {
					t.Fatalf("push of %d before %v says first: %v", tick, want, first)
				}
				i, _ := slices.BinarySearch(want, tick)
				want = slices.Insert(want, i, tick)
			}
			for len(want) > 0 && want[0] <= now {
				if !h.due().Equal(at(want[0])) {
					t.Fatalf("due at %v, want %d", h.due(), want[0])
				}
				if e, ok := h.popDue(at(now)); !ok || e == nil {
					t.Fatalf("nothing due at %d of %v", now, want)
				}
				want = want[1:]
			}
			if _, ok := h.popDue(at(now)); ok {
				t.Fatalf("due at %d though only %v are left", now, want)
			}
		}
	})
}
