package store

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// gone deletes all versions of a column; without deletes one.
func gone(name string) plainbuffer.Cell {
	return plainbuffer.Cell{Name: name, Op: plainbuffer.DeleteAllVersion}
}

func without(name string, version int64) plainbuffer.Cell {
	return plainbuffer.Cell{Name: name, Op: plainbuffer.DeleteOneVersion, HasTimestamp: true, Timestamp: version}
}

func TestIncrementWhileTheClockStands(t *testing.T) {
	t.Run("each sum is the newest version", func(t *testing.T) {
		c := newClock()
		s := open(t, Config{Now: c.Now})
		table := create(t, s, schema("t"), StreamSpec{Enabled: true})
		apply(t, table, change(UpdateRow, 1, increase("n", 5)))
		apply(t, table, change(UpdateRow, 1, increase("n", 1)))
		expectText(t, "in the same millisecond", row(t, table, 1), "[n=6]")
		c.advance(-time.Minute)
		last := change(UpdateRow, 1, increase("n", 1))
		last.Return = []string{"n"}
		apply(t, table, last)
		expectText(t, "with the clock set back", row(t, table, 1), "[n=7]")
		expectText(t, "returned", cellsText(last.After), "[n=7]")
		expectLog(t, s, "t", shards(t, s, "t")[0].ID, "UPDATE_ROW 1 [n=5]", "UPDATE_ROW 1 [n=6]", "UPDATE_ROW 1 [n=7]")
	})
	t.Run("also with a version from the future", func(t *testing.T) {
		c := newClock()
		table := create(t, open(t, Config{Now: c.Now}), schema("t"), StreamSpec{})
		apply(t, table, change(PutRow, 1, at(number("n", 40), c.Now().Add(time.Hour).UnixMilli())))
		apply(t, table, change(UpdateRow, 1, increase("n", 2)))
		expectText(t, "row", row(t, table, 1), "[n=42]")
	})
}

func TestTimeToLiveAtItsBoundary(t *testing.T) {
	for _, v := range []struct {
		what string
		age  time.Duration
		want string
	}{
		{"a cell as old as the time to live exists", 24 * time.Hour, "[a=1]"},
		{"a millisecond later it is not", 24*time.Hour + time.Millisecond, "-"},
	} {
		t.Run(v.what, func(t *testing.T) {
			c := newClock()
			s := open(t, Config{Now: c.Now})
			sc := schema("t")
			sc.Options.TTL = 86400
			table := create(t, s, sc, StreamSpec{})
			apply(t, table, change(PutRow, 1, text("a", "1")))
			c.advance(v.age)
			expectText(t, "row", row(t, table, 1), v.want)
			page, err := s.ReadBase(nil, table.id, nil, nil, 10, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if got := page.Records == 1; got != (v.want != "-") {
				t.Errorf("base data have %d records", page.Records)
			}
			exists := change(UpdateRow, 1, text("b", "1"))
			exists.Expect = ExpectExist
			if err := table.Apply([]*Change{exists}, false); err != nil || (exists.Err == nil) != (v.want != "-") {
				t.Errorf("a condition: %v, %v", err, exists.Err)
			}
		})
	}
}

// TestDeletionsInTheLog: a consumer sees every deletion, whether there was
// anything to delete or not.
func TestDeletionsInTheLog(t *testing.T) {
	c := newClock()
	s := open(t, Config{Now: c.Now})
	table := create(t, s, schema("t"), StreamSpec{Enabled: true})
	version := c.Now().UnixMilli()
	apply(t, table, change(DeleteRow, 1))
	apply(t, table, change(UpdateRow, 2, gone("a")))
	apply(t, table, change(UpdateRow, 2, without("a", version)))
	apply(t, table, change(PutRow, 3, text("a", "1")))
	apply(t, table, change(UpdateRow, 3, gone("b"), without("a", version-5)))
	apply(t, table, change(UpdateRow, 3, gone("a")))
	apply(t, table, change(DeleteRow, 3))
	apply(t, table, change(DeleteRow, 3))
	shard := shards(t, s, "t")[0].ID
	expectLog(t, s, "t", shard,
		"DELETE_ROW 1 ",
		"UPDATE_ROW 2 [a gone]",
		strings.ReplaceAll("UPDATE_ROW 2 [a without V]", "V", strconv.FormatInt(version, 10)),
		"PUT_ROW 3 [a=1]",
		strings.ReplaceAll("UPDATE_ROW 3 [b gone][a without V]", "V", strconv.FormatInt(version-5, 10)),
		"UPDATE_ROW 3 [a gone]",
		"DELETE_ROW 3 ",
		"DELETE_ROW 3 ",
	)
	for i, r := range log(t, s, "t", shard) {
		if want := strings.HasPrefix(r.String(), "DELETE_ROW"); r.row.Delete != want {
			t.Errorf("record %d (%s): the delete marker is %v", i, r, r.row.Delete)
		}
	}
	for id := range int64(3) {
		expectText(t, "row", row(t, table, id+1), "-")
	}
	t.Run("are missing if they failed", func(t *testing.T) {
		before := len(log(t, s, "t", shard))
		missing := change(DeleteRow, 9)
		missing.Expect = ExpectExist
		if err := table.Apply([]*Change{missing}, false); err != nil || code(missing.Err) != "OTSConditionCheckFail" {
			t.Errorf("got %v, %v", err, missing.Err)
		}
		expectCount(t, len(log(t, s, "t", shard)), before)
	})
}

// TestRowTwiceInOneBatch: the changes are made in order.
func TestRowTwiceInOneBatch(t *testing.T) {
	c := newClock()
	s := open(t, Config{Now: c.Now})
	table := create(t, s, schema("t"), StreamSpec{Enabled: true})
	batch := func(id int64) []*Change {
		return []*Change{change(PutRow, id, text("a", "1")), change(UpdateRow, id, text("b", "2")), change(UpdateRow, id, gone("a"))}
	}
	refused := append(batch(1), change(UpdateRow, 1, increase("b", 1))) // b is text
	if err := table.Apply(refused, true); code(err) != "OTSParameterInvalid" {
		t.Errorf("atomic, refused: %v", err)
	}
	expectText(t, "row", row(t, table, 1), "-")
	expectCount(t, len(log(t, s, "t", shards(t, s, "t")[0].ID)), 0)
	if err := table.Apply(batch(1), true); err != nil {
		t.Errorf("atomic: %v", err)
	}
	expectText(t, "row", row(t, table, 1), "[b=2]")
	apply(t, table, batch(2)...)
	expectText(t, "row", row(t, table, 2), "[b=2]")
	expectLog(t, s, "t", shards(t, s, "t")[0].ID,
		"PUT_ROW 1 [a=1]", "UPDATE_ROW 1 [b=2]", "UPDATE_ROW 1 [a gone]",
		"PUT_ROW 2 [a=1]", "UPDATE_ROW 2 [b=2]", "UPDATE_ROW 2 [a gone]")
}
