package store

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/filter"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// sub is a change of the row (1, sub): rows of an atomic batch share id 1.
func sub(a Action, sub string, cells ...plainbuffer.Cell) *Change {
	c := change(a, 1, cells...)
	c.Row.PrimaryKey = pk(1, sub)
	return c
}

func increase(name string, n int64) plainbuffer.Cell {
	c := number(name, n)
	c.Op = plainbuffer.Increment
	return c
}

// refusals are changes that fail in each possible way. Row "text" has n=x, row
// "gone" does not exist.
var refusals = map[string]func() *Change{
	"by a missing row": func() *Change {
		c := sub(DeleteRow, "gone")
		c.Expect = ExpectExist
		return c
	},
	"by an existing row": func() *Change {
		c := sub(PutRow, "text")
		c.Expect = ExpectNotExist
		return c
	},
	"by a column condition": func() *Change {
		c := sub(PutRow, "text")
		var err error
		// v = 1, false for a row without v
		if c.Condition, err = filter.Parse([]byte("\x08\x01\x12\x14\x08\x01\x12\x01v\x1a\x09\x00\x01\x00\x00\x00\x00\x00\x00\x00\x20\x01\x28\x00")); err != nil {
			panic(err)
		}
		return c
	},
	"by an increment of text":                   func() *Change { return sub(UpdateRow, "text", increase("n", 1)) },
	"by the size of the row":                    func() *Change { return sub(PutRow, "large", largeCells()...) },
	"by an update without columns":              func() *Change { return sub(UpdateRow, "text") },
	"by a delete with columns":                  func() *Change { return sub(DeleteRow, "text", text("a", "1")) },
	"by a column with the name of a key column": func() *Change { return sub(PutRow, "text", text("id", "1")) },
	"by a key of another form":                  func() *Change { c := sub(PutRow, "text"); c.Row.PrimaryKey = c.Row.PrimaryKey[:1]; return c },
	"by another partition key":                  func() *Change { return change(PutRow, 2) },
	"by an increment that overflows":            func() *Change { return sub(UpdateRow, "b", increase("n", math.MaxInt64)) },
}

// largeCells make a row above maxRow from columns within their own limit.
func largeCells() []plainbuffer.Cell {
	value := strings.Repeat("x", maxColumnValue)
	cells := make([]plainbuffer.Cell, maxRow/maxColumnValue+1)
	for i := range cells {
		cells[i] = text(fmt.Sprintf("c%02d", i), value)
	}
	return cells
}

func TestAtomicBatch(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	table := create(t, s, schema("t"), StreamSpec{Enabled: true, Origin: []string{"a"}})
	apply(t, table, sub(PutRow, "text", text("n", "x")), sub(PutRow, "a", text("a", "old")), sub(PutRow, "b", number("n", 7)))
	// others are changes of every kind that would succeed.
	others := func() []*Change {
		return []*Change{sub(PutRow, "a", text("a", "new")), sub(UpdateRow, "b", increase("n", 1)), sub(PutRow, "c"), sub(DeleteRow, "d")}
	}
	before := picture(t, s)
	for name, bad := range refusals {
		for place := range len(others()) + 1 {
			t.Run(fmt.Sprintf("refused %s leaves nothing, at %d", name, place), func(t *testing.T) {
				batch := others()
				batch = append(batch[:place:place], append([]*Change{bad()}, batch[place:]...)...)
				if err := table.Apply(batch, true); err == nil {
					t.Fatal("the batch succeeded")
				}
				if after := picture(t, s); after != before {
					t.Errorf("before:\n%s\nafter:\n%s", before, after)
				}
			})
		}
	}
	twice := func(last int64) []*Change {
		return []*Change{sub(UpdateRow, "b", increase("n", 1)), sub(UpdateRow, "b", increase("n", 10)), sub(UpdateRow, "b", increase("n", last))}
	}
	t.Run("refused at its third change of a row keeps nothing of the first two", func(t *testing.T) {
		if err := table.Apply(twice(math.MaxInt64), true); err == nil {
			t.Fatal("the batch succeeded")
		}
		if after := picture(t, s); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	})
	t.Run("makes all its changes of one row, in order", func(t *testing.T) {
		other := create(t, s, schema("twice"), StreamSpec{})
		batch := append([]*Change{sub(PutRow, "b", number("n", 7))}, twice(100)...)
		if err := other.Apply(batch, true); err != nil {
			t.Fatal(err)
		}
		var row plainbuffer.Row
		if _, err := other.Get(pk(1, "b"), &row); err != nil || cellsText(row.Cells) != "[n=118]" {
			t.Errorf("the row is %s, %v", cellsText(row.Cells), err)
		}
		if err := s.DeleteTable("twice"); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("otherwise makes all changes, also on disk", func(t *testing.T) {
		if err := table.Apply(others(), true); err != nil {
			t.Fatal(err)
		}
		after := picture(t, s)
		if !strings.Contains(after, "[n=8]") || !strings.Contains(after, "PUT_ROW 1 [a=new] was [a=old]") {
			t.Errorf("got\n%s", after)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, Config{Dir: dir})
		if got := picture(t, s); got != after {
			t.Errorf("before the restart:\n%s\nafter:\n%s", after, got)
		}
	})
}

// TestUndo takes changes back at random and compares everything with the state
// before, across log segments and leaves.
func TestUndo(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	s := open(t, Config{})
	table := create(t, s, schema("t"), StreamSpec{Enabled: true})
	randomChange := func() *Change {
		key := fmt.Sprint(random.IntN(40))
		switch random.IntN(4) {
		case 0:
			return sub(DeleteRow, key)
		case 1:
			return sub(UpdateRow, key, increase("n", 1))
		case 2:
			return sub(UpdateRow, key, plainbuffer.Cell{Name: "a", Op: plainbuffer.DeleteAllVersion})
		}
		return sub(PutRow, key, text("a", strings.Repeat("x", random.IntN(segmentBytes/2))))
	}
	shard := shards(t, s, "t")[0].ID
	batches := 60
	if testing.Short() {
		batches = 20
	}
	for range batches {
		apply(t, table, randomChange())
		before, lastTime := picture(t, s), table.shards[0].lastTime
		var batch []*Change
		for range 1 + random.IntN(6) {
			batch = append(batch, randomChange()) // a row may occur twice
		}
		bad := sub(DeleteRow, "missing")
		bad.Expect = ExpectExist
		if err := table.Apply(append(batch, bad), true); code(err) != "OTSConditionCheckFail" {
			t.Fatalf("got %v", err)
		}
		if picture(t, s) != before {
			t.Fatalf("a refused batch left something behind")
		}
		sh := table.shards[0]
		for _, seg := range sh.segments {
			if len(seg.ends) != len(seg.times) {
				t.Fatalf("a segment has %d records and %d times", len(seg.ends), len(seg.times))
			}
		}
		if sh.writing != 0 || sh.lastTime != lastTime {
			t.Fatalf("the log's last time is %d, was %d; a write since %d is still running", sh.lastTime, lastTime, sh.writing)
		}
		page, err := s.ReadShard(nil, tableID(t, s, "t"), shard, 0, time.Time{}, 1<<30, 1<<30)
		if err != nil || page.Next != int64(page.Records) {
			t.Fatalf("the log has %d records and continues at %d, %v", page.Records, page.Next, err)
		}
	}
}
