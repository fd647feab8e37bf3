package letters

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/ots"
)

// stored returns the rows of a pipeline.
func (b *bed) stored(t *testing.T, pipeline string) (all []*Stored) {
	t.Helper()
	if err := b.table.Each(t.Context(), pipeline, func(s *Stored) error { all = append(all, s); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestBrowse_finds_the_letters_of_every_pipeline(t *testing.T) {
	b := newBed(t, nil)
	if names, err := b.table.Pipelines(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("an empty table has %v, %v", names, err)
	}
	for i := range 2*browsePage + 1 {
		b.put(t, letterOfRow("a", i+1))
	}
	other := letterOfRow("b", 1)
	other.Pipeline = "zeros"
	b.put(t, other)
	names, err := b.table.Pipelines(t.Context())
	if err != nil || !slices.Equal(names, []string{"numbers", "zeros"}) {
		t.Errorf("%v, %v", names, err)
	}
	all := b.stored(t, "numbers")
	if len(all) != 2*browsePage+1 || !slices.IsSortedFunc(all, func(a, b *Stored) int { return strings.Compare(a.Letter().Sequence, b.Letter().Sequence) }) {
		t.Errorf("%d letters, or not in their order", len(all))
	}
	if len(b.stored(t, "zeros")) != 1 || len(b.stored(t, "ones")) != 0 {
		t.Error("another pipeline has other letters")
	}
}

func TestBrowse_loads_a_packed_letter(t *testing.T) {
	b := newBed(t, nil)
	large := letterOfRow("a", 1)
	large.Payload = []byte(strings.Repeat("x", maxSection+1))
	b.put(t, large)
	s := b.stored(t, "numbers")[0]
	if !s.Packed() || len(s.Letter().Payload) != 0 || s.Bytes() < maxSection {
		t.Errorf("packed %v, %d bytes", s.Packed(), s.Bytes())
	}
	if err := b.table.Load(t.Context(), s); err != nil || len(s.Letter().Payload) != maxSection+1 {
		t.Errorf("loaded %d bytes, %v", len(s.Letter().Payload), err)
	}
}

func TestPurge_deletes_letters_with_their_parts_and_no_other(t *testing.T) {
	b := newBed(t, nil)
	large := letterOfRow("a", 1, ots.Cell{Name: "v", Value: ots.IntegerValue(1)})
	large.Payload = []byte(strings.Repeat("x", maxSection+1))
	b.put(t, large, letterOfRow("b", 2), letterOfRow("c", 3))
	all := b.stored(t, "numbers")
	deleted := 0
	if err := b.table.Purge(t.Context(), all[:2], func(_ *Stored, ok bool) {
		if ok {
			deleted++
		}
	}); err != nil || deleted != 2 {
		t.Errorf("%d deleted, %v", deleted, err)
	}
	if left := b.stored(t, "numbers"); len(left) != 1 || left[0].Letter().Key != `["c"]` {
		t.Errorf("left: %d", len(left))
	}
	if names, err := b.table.Pipelines(t.Context()); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
	for _, s := range b.stored(t, "numbers") { // the last letter gone, no row of the pipeline is left, parts included
		if err := b.table.Purge(t.Context(), []*Stored{s}, func(*Stored, bool) {}); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := b.table.Pipelines(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("rows are left of %v, %v", names, err)
	}
}

func TestPurge_leaves_letters_that_a_Replay_works_on_or_that_were_written_again(t *testing.T) {
	b := newBed(t, nil)
	b.put(t, letterOfRow("a", 1), letterOfRow("b", 2))
	before := b.stored(t, "numbers")
	replaying := &claims{table: b.table, id: "replay", lease: time.Minute}
	if lost, err := replaying.take(t.Context(), []*kept{before[0].k}); err != nil || len(lost) != 0 {
		t.Fatal(lost, err)
	}
	again := letterOfRow("b", 2)
	again.FailedAt = again.FailedAt.Add(time.Second)
	b.put(t, again)
	for name, letters := range map[string][]*Stored{"as they were read": before, "the claimed one, read now": b.stored(t, "numbers")[:1]} {
		if err := b.table.Purge(t.Context(), letters, func(s *Stored, deleted bool) {
			if deleted {
				t.Errorf("%s: %s is deleted", name, s.Letter().Key)
			}
		}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left := b.stored(t, "numbers"); len(left) != 2 {
		t.Errorf("%d letters are left", len(left))
	}
}

func TestPurge_that_is_cut_off_leaves_no_claim(t *testing.T) {
	b := newBed(t, nil)
	b.put(t, letterOfRow("a", 1), letterOfRow("b", 2))
	all := b.stored(t, "numbers")
	ctx, cancel := context.WithCancel(t.Context())
	err := b.table.Purge(ctx, all, func(*Stored, bool) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left := b.stored(t, "numbers"); len(left) != 1 || left[0].Claimed() {
		t.Errorf("%d letters are left, or one is claimed", len(left))
	}
}
