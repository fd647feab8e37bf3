package letters

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
)

// rowLog collects the rows that the log names.
type rowLog struct {
	watermill.NopLogger
	mu   sync.Mutex
	rows []string
}

func (n *rowLog) With(watermill.LogFields) watermill.LoggerAdapter { return n }

func (n *rowLog) Error(msg string, err error, fields watermill.LogFields) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rows = append(n.rows, fmt.Sprint(fields["row"], ": ", err))
}

// Rows that are not letters, and damaged ones, are named and stop nothing but the later letters
// of a damaged one's key.
func TestReplay_skips_and_names_rows_that_are_not_letters(t *testing.T) {
	h := new(handled)
	b := newBed(t, h.process)
	d1, d2, e1, f1 := letterOfRow("d", 1, blob(1, 3<<20)), letterOfRow("d", 2), letterOfRow("e", 1), letterOfRow("f", 1)
	b.put(t, d1, d2, e1, f1)
	_, parts := b.rows(t)
	if err := b.table.deleteRows(context.Background(), []*tablestore.PrimaryKey{rowKey("numbers", partsSequence, parts[1])}); err != nil {
		t.Fatal(err)
	}
	b.set(t, b.table.key(e1), map[string]any{columnMetadata: "{"})
	b.set(t, rowKey("numbers", "", "note"), map[string]any{"comment": "looked at, bob"})
	b.set(t, rowKey("numbers", f1.Sequence, "numbers"), map[string]any{"failed_at": "yesterday", "attempts": int64(1), "metadata": "{}"})
	b.set(t, rowKey("numbers", partsSequence, "x"), map[string]any{"comment": "x"})
	b.set(t, rowKey("other", "", "note"), map[string]any{"comment": "of another pipeline"})

	rp, _ := b.replay(t)
	log := new(rowLog)
	rp.Table.logger = log
	replayed(t, rp, Count{Succeeded: 1, Skipped: 1, Foreign: 4})
	if ids := h.take(); !slices.Equal(ids, []string{"f-1"}) {
		t.Errorf("handled %v", ids)
	}
	slices.Sort(log.rows)
	seq := func(v int) string { return letterOfRow("x", v).Sequence }
	for i, want := range []string{
		"(numbers, , note): the row is not a dead letter",
		"(numbers, " + seq(1) + ", d-1): its parts are damaged or missing: 3 of 4 parts",
		"(numbers, " + seq(1) + ", e-1): letter e-1 has malformed metadata",
		"(numbers, " + seq(1) + ", numbers): the row is not a dead letter",
	} {
		if len(log.rows) != 4 || !strings.HasPrefix(log.rows[i], want) {
			t.Errorf("the log names\n%s\nnot\n%s", strings.Join(log.rows, "\n"), want)
		}
	}
	if letters, _ := b.rows(t); len(letters) != 6 {
		t.Errorf("rows %v are left", letters)
	}
}

// Letters whose rows are large are handled in portions of bounded size.
func TestReplay_bounds_what_it_handles_at_once(t *testing.T) {
	sized := func(sizes ...int) (letters []*kept) {
		for _, n := range sizes {
			letters = append(letters, &kept{size: n})
		}
		return letters
	}
	for _, c := range []struct {
		sizes []int
		want  int
	}{
		{[]int{1, 1, 1}, 3}, {[]int{replayBytes + 1, 1}, 1}, {[]int{1, replayBytes, 1}, 1}, {[]int{1, replayBytes - 1, 1}, 2},
	} {
		if got := replayable(sized(c.sizes...)); got != c.want {
			t.Errorf("of letters with %v bytes %d are handled at once, want %d", c.sizes, got, c.want)
		}
	}
}
