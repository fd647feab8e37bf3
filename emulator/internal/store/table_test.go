package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

func TestApply(t *testing.T) {
	t.Run("a put replaces the whole row", func(t *testing.T) {
		table := create(t, open(t, Config{}), schema("t"), StreamSpec{})
		apply(t, table, change(PutRow, 1, text("a", "1"), text("b", "1")))
		apply(t, table, change(PutRow, 1, text("b", "2")))
		expectText(t, "row", row(t, table, 1), "[b=2]")
	})
	t.Run("an update keeps the other columns and adds a version", func(t *testing.T) {
		c := newClock()
		table := create(t, open(t, Config{Now: c.Now}), schema("t"), StreamSpec{})
		apply(t, table, change(PutRow, 1, text("a", "1"), text("b", "1")))
		c.advance(time.Second)
		apply(t, table, change(UpdateRow, 1, text("b", "2")))
		expectText(t, "row", row(t, table, 1), "[a=1][b=2][b=1]")
	})
	t.Run("versions beyond the limit are dropped, oldest first", func(t *testing.T) {
		c := newClock()
		table := create(t, open(t, Config{Now: c.Now}), schema("t"), StreamSpec{})
		for i := range 5 {
			apply(t, table, change(UpdateRow, 1, number("a", int64(i))))
			c.advance(time.Second)
		}
		expectText(t, "row", row(t, table, 1), "[a=4][a=3][a=2]")
	})
	t.Run("a put of too many versions keeps, and logs, the newest", func(t *testing.T) {
		c := newClock()
		s := open(t, Config{Now: c.Now})
		table := create(t, s, schema("t"), StreamSpec{Enabled: true})
		var cells []plainbuffer.Cell
		for i := range int64(5) {
			cells = append(cells, at(number("a", i), c.Now().UnixMilli()+i))
		}
		apply(t, table, change(PutRow, 1, append(cells, text("b", "x"))...))
		expectText(t, "row", row(t, table, 1), "[a=4][a=3][a=2][b=x]")
		expectLog(t, s, "t", shards(t, s, "t")[0].ID, "PUT_ROW 1 [a=4][a=3][a=2][b=x]")
	})
	t.Run("of equal versions the last one stays", func(t *testing.T) {
		c := newClock()
		table := create(t, open(t, Config{Now: c.Now}), schema("t"), StreamSpec{})
		apply(t, table, change(UpdateRow, 1, text("a", "1")))
		apply(t, table, change(UpdateRow, 1, text("a", "2")))
		expectText(t, "row", row(t, table, 1), "[a=2]")
	})
	t.Run("an update deletes one version or all", func(t *testing.T) {
		c := newClock()
		table := create(t, open(t, Config{Now: c.Now}), schema("t"), StreamSpec{})
		now := c.Now().UnixMilli()
		apply(t, table, change(PutRow, 1, at(text("a", "old"), now-1), at(text("a", "new"), now), text("b", "1")))
		apply(t, table, change(UpdateRow, 1, plainbuffer.Cell{Name: "a", Op: plainbuffer.DeleteOneVersion, HasTimestamp: true, Timestamp: now}))
		expectText(t, "row", row(t, table, 1), "[a=old][b=1]")
		apply(t, table, change(UpdateRow, 1, plainbuffer.Cell{Name: "a", Op: plainbuffer.DeleteAllVersion}))
		expectText(t, "row", row(t, table, 1), "[b=1]")
	})
	t.Run("a row without its last column still exists", func(t *testing.T) {
		table := create(t, open(t, Config{}), schema("t"), StreamSpec{})
		apply(t, table, change(PutRow, 1, text("a", "1")))
		apply(t, table, change(UpdateRow, 1, plainbuffer.Cell{Name: "a", Op: plainbuffer.DeleteAllVersion}))
		expectText(t, "row", row(t, table, 1), "")
	})
	t.Run("deleting columns of a missing row creates no row", func(t *testing.T) {
		table := create(t, open(t, Config{}), schema("t"), StreamSpec{})
		apply(t, table, change(UpdateRow, 1, plainbuffer.Cell{Name: "a", Op: plainbuffer.DeleteAllVersion}))
		expectText(t, "row", row(t, table, 1), "-")
	})
	t.Run("an increment counts a missing column as zero and logs the sum", func(t *testing.T) {
		s := open(t, Config{Now: newClock().Now})
		table := create(t, s, schema("t"), StreamSpec{Enabled: true})
		three := plainbuffer.Cell{Name: "n", HasValue: true, Value: plainbuffer.IntegerValue(3), Op: plainbuffer.Increment}
		first, second := change(UpdateRow, 1, three), change(UpdateRow, 1, three)
		second.Return = []string{"n", "missing"}
		apply(t, table, first)
		apply(t, table, second)
		expectText(t, "after", cellsText(second.After), "[n=6]")
		expectText(t, "row", row(t, table, 1), "[n=6]")
		expectLog(t, s, "t", shards(t, s, "t")[0].ID, "UPDATE_ROW 1 [n=3]", "UPDATE_ROW 1 [n=6]")
	})
	t.Run("refuses to increment text", func(t *testing.T) {
		table := create(t, open(t, Config{}), schema("t"), StreamSpec{})
		apply(t, table, change(PutRow, 1, text("a", "1")))
		c := change(UpdateRow, 1, plainbuffer.Cell{Name: "a", HasValue: true, Value: plainbuffer.IntegerValue(1), Op: plainbuffer.Increment})
		if err := table.Apply([]*Change{c}, false); err != nil || code(c.Err) != "OTSParameterInvalid" {
			t.Errorf("got %v, %v", err, c.Err)
		}
	})
	t.Run("changes are refused unless the row's existence is as expected", func(t *testing.T) {
		table := create(t, open(t, Config{}), schema("t"), StreamSpec{})
		try := func(a Action, id int64, e Existence) string {
			c := change(a, id)
			if a == UpdateRow {
				c.Row.Cells = []plainbuffer.Cell{text("a", "1")}
			}
			c.Expect = e
			if err := table.Apply([]*Change{c}, false); err != nil {
				t.Fatal(err)
			}
			if c.Err == nil {
				return "ok"
			}
			return code(c.Err)
		}
		apply(t, table, change(PutRow, 1))
		for _, a := range []Action{PutRow, UpdateRow, DeleteRow} {
			expectText(t, "missing, expected", try(a, 2, ExpectExist), "OTSConditionCheckFail")
			expectText(t, "present, unexpected", try(a, 1, ExpectNotExist), "OTSConditionCheckFail")
		}
		expectText(t, "missing, unexpected", try(PutRow, 3, ExpectNotExist), "ok")
		expectText(t, "present, expected", try(DeleteRow, 1, ExpectExist), "ok")
	})
	t.Run("an atomic batch makes all changes or none", func(t *testing.T) {
		table := create(t, open(t, Config{}), schema("t"), StreamSpec{})
		good, bad := change(PutRow, 1, text("a", "1")), change(PutRow, 1, text("a", "1"))
		bad.Row.PrimaryKey = pk(1, "other")
		bad.Expect = ExpectExist
		if err := table.Apply([]*Change{good, bad}, true); code(err) != "OTSConditionCheckFail" {
			t.Errorf("got %v", err)
		}
		expectText(t, "row", row(t, table, 1), "-")
		bad.Expect = Ignore
		if err := table.Apply([]*Change{good, bad}, true); err != nil {
			t.Fatal(err)
		}
		expectText(t, "row", row(t, table, 1), "[a=1]")
	})
	t.Run("numbers auto-increment rows upwards", func(t *testing.T) {
		sc := schema("t")
		sc.Key[1] = KeyColumn{Name: "n", Kind: plainbuffer.Integer, AutoIncrement: true}
		c := newClock()
		table := create(t, open(t, Config{Now: c.Now}), sc, StreamSpec{})
		last := int64(0)
		for range 100 {
			ch := &Change{Action: PutRow, Row: &plainbuffer.Row{PrimaryKey: []plainbuffer.Cell{
				{Name: "id", HasValue: true, Value: plainbuffer.IntegerValue(1)},
				{Name: "n", HasValue: true, Value: plainbuffer.Special(plainbuffer.AutoIncrement)},
			}}}
			apply(t, table, ch)
			n := ch.Row.PrimaryKey[1].Value.Integer()
			if n <= last {
				t.Fatalf("%d after %d", n, last)
			}
			last = n
		}
	})
}

func TestTimeToLive(t *testing.T) {
	c := newClock()
	s := open(t, Config{Now: c.Now})
	sc := schema("t")
	sc.Options.TTL = 86400
	table := create(t, s, sc, StreamSpec{})
	apply(t, table, change(PutRow, 1, text("a", "1")), change(PutRow, 2))
	c.advance(12 * time.Hour)
	apply(t, table, change(UpdateRow, 1, text("b", "1")))
	c.advance(13 * time.Hour)
	t.Run("expires cells one by one", func(t *testing.T) { expectText(t, "row", row(t, table, 1), "[b=1]") })
	t.Run("applies to base data too", func(t *testing.T) {
		page, err := s.ReadBase(nil, tableID(t, s, "t"), nil, nil, 100, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		records := decodeRecords(t, page.Data)
		if len(records) != 2 || records[0].String() != "PUT_ROW 1 [b=1]" {
			t.Errorf("got %v", records)
		}
	})
	c.advance(24 * time.Hour)
	t.Run("ends a row with its last cell", func(t *testing.T) { expectText(t, "row", row(t, table, 1), "-") })
	t.Run("leaves a row that never had a cell", func(t *testing.T) { expectText(t, "row", row(t, table, 2), "") })
	t.Run("refuses a version that would expire at once", func(t *testing.T) {
		old := change(PutRow, 3, at(text("a", "1"), c.Now().Add(-25*time.Hour).UnixMilli()))
		if err := table.Apply([]*Change{old}, false); err != nil || code(old.Err) != "OTSParameterInvalid" {
			t.Errorf("got %v, %v", err, old.Err)
		}
	})
}

func TestScan(t *testing.T) {
	s := open(t, Config{})
	table := create(t, s, schema("t"), StreamSpec{}, 30, 60)
	for id := range int64(100) {
		apply(t, table, change(PutRow, id))
	}
	bound := func(id int64) []byte { return plainbuffer.AppendOrderedKey(nil, pk(id, "s")) }
	scan := func(start, end []byte, backward bool, limit int) (ids []int64) {
		for {
			found, next, err := table.Scan(nil, start, end, backward, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range found {
				var r plainbuffer.Row
				if _, err := plainbuffer.DecodeRow(b, &r); err != nil {
					t.Fatal(err)
				}
				ids = append(ids, r.PrimaryKey[0].Value.Integer())
			}
			if next == nil {
				return ids
			}
			start = next
		}
	}
	upto := func(from, to, step int64) (ids []int64) {
		for id := from; id != to; id += step {
			ids = append(ids, id)
		}
		return ids
	}
	for _, limit := range []int{1, 7, 30, 1000} {
		for _, v := range []struct {
			name       string
			start, end []byte
			backward   bool
			want       []int64
		}{
			{"everything", nil, nil, false, upto(0, 100, 1)},
			{"everything backwards", nil, nil, true, upto(99, -1, -1)},
			{"a range over three partitions", bound(10), bound(70), false, upto(10, 70, 1)},
			{"the same backwards", bound(70), bound(10), true, upto(70, 10, -1)},
			{"up to a partition's edge", bound(10), bound(30), false, upto(10, 30, 1)},
			{"from a partition's edge backwards", bound(30), bound(20), true, upto(30, 20, -1)},
			{"from a gap", bound(100), nil, false, nil},
			{"from a gap backwards", bound(100), bound(97), true, []int64{99, 98}},
		} {
			t.Run(fmt.Sprintf("%s, %d at a time", v.name, limit), func(t *testing.T) {
				if got := scan(v.start, v.end, v.backward, limit); !slices.Equal(got, v.want) {
					t.Errorf("got %v, want %v", got, v.want)
				}
			})
		}
	}
}

func TestSplitPoints(t *testing.T) {
	table := create(t, open(t, Config{}), schema("t"), StreamSpec{}, 50)
	size := int64(0)
	for id := range int64(100) {
		c := change(PutRow, id, text("a", "xxxxxxxxxx"))
		apply(t, table, c)
		size += rowSize(t, table, id)
	}
	points, err := table.SplitPoints(size/4+1, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ids []int64
	for _, b := range points {
		var r plainbuffer.Row
		if err := plainbuffer.Decode(b, &r); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.PrimaryKey[0].Value.Integer())
	}
	if !slices.Equal(ids, []int64{25, 50, 75}) {
		t.Errorf("four equal parts are divided at %v", ids)
	}
}

// rowSize returns how many bytes the row of change takes.
func rowSize(t *testing.T, table *Table, id int64) int64 {
	t.Helper()
	var row plainbuffer.Row
	if found, err := table.Get(pk(id, "s"), &row); err != nil || !found {
		t.Fatalf("row %d: %v, %v", id, found, err)
	}
	return int64(len(plainbuffer.AppendRow(nil, &row)))
}

func TestAdjustment(t *testing.T) {
	t.Run("counts across a restart", func(t *testing.T) {
		c := newClock()
		cfg := Config{Dir: t.TempDir(), Now: c.Now}
		s := open(t, cfg)
		units := [2]int32{1, 1}
		if err := create(t, s, schema("t"), StreamSpec{}).Update(nil, &units, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		table, err := open(t, cfg).Table("t")
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Update(nil, &units, nil); code(err) != "OTSTooFrequentReservedThroughputAdjustment" {
			t.Errorf("at once: %v", err)
		}
		c.advance(adjustInterval)
		if err := table.Update(nil, &units, nil); err != nil {
			t.Errorf("after %v: %v", adjustInterval, err)
		}
	})
}
