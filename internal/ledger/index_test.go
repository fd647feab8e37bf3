package ledger

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	_ "github.com/watermill-ots/watermill-ots/internal/nofailfiles"
)

// TestIndex_finds_each_queue_by_its_key compares the index with a map. It uses few
// hashes, so that they collide often.
func TestIndex_finds_each_queue_by_its_key(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		few := uint64(rapid.SampledFrom([]int{1, 3, 1 << 30}).Draw(t, "hashes"))
		x, want := newIndex(), make(map[string]*queue)
		hash := func(key string) uint64 { return x.hash(key) % few }
		for range rapid.IntRange(0, 500).Draw(t, "steps") {
			key := fmt.Sprint(rapid.IntRange(1, 300).Draw(t, "key"))
			got := x.get(key, hash(key))
			if got != want[key] {
				t.Fatalf("key %s: found %p, want %p", key, got, want[key])
			}
			if got != nil {
				x.remove(got)
				delete(want, key)
				if got.chained != nil {
					t.Fatalf("key %s: the queue still leads to another", key)
				}
			} else {
				q := &queue{key: key, hash: hash(key)}
				x.add(q)
				want[key] = q
			}
		}
		for key, q := range want {
			if got := x.get(key, hash(key)); got != q {
				t.Fatalf("key %s: found %p, want %p", key, got, q)
			}
		}
		if x.queues != len(want) || len(x.chains) < x.queues {
			t.Fatalf("%d queues in %d chains, want %d", x.queues, len(x.chains), len(want))
		}
	})
}
