package store

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	_ "github.com/watermill-ots/watermill-ots/internal/nofailfiles"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// modelRow is a row by a naive reading of the rules: the versions of each
// column by timestamp.
type modelRow map[string]map[int64]string

// modelTable is a table as plain maps.
type modelTable map[int64]modelRow

func (m modelTable) text() string {
	out := ""
	for _, id := range slices.Sorted(maps.Keys(m)) {
		out += fmt.Sprintf("%d:", id)
		for _, name := range slices.Sorted(maps.Keys(m[id])) {
			versions := slices.Sorted(maps.Keys(m[id][name]))
			slices.Reverse(versions)
			for _, ts := range versions {
				out += fmt.Sprintf(" %s@%d=%s", name, ts, m[id][name][ts])
			}
		}
		out += "\n"
	}
	return out
}

// change applies one change's cells, whose timestamps are filled in.
func (m modelTable) change(a Action, id int64, cells []plainbuffer.Cell, maxVersions int) {
	old, exists := m[id]
	row := modelRow{}
	puts := false
	if a == UpdateRow && exists {
		row = old
	}
	for _, c := range cells {
		switch c.Op {
		case plainbuffer.DeleteAllVersion:
			delete(row, c.Name)
		case plainbuffer.DeleteOneVersion:
			delete(row[c.Name], c.Timestamp)
		default:
			puts = true
			if row[c.Name] == nil {
				row[c.Name] = map[int64]string{}
			}
			row[c.Name][c.Timestamp] = c.Value.Str()
		}
	}
	for name, versions := range row {
		all := slices.Sorted(maps.Keys(versions))
		for len(all) > maxVersions {
			delete(versions, all[0])
			all = all[1:]
		}
		if len(all) == 0 {
			delete(row, name)
		}
	}
	delete(m, id)
	if a == PutRow || a == UpdateRow && (exists || puts) {
		m[id] = row
	}
}

// checker reads a store back.
type checker struct {
	t *rapid.T
	s *Store
}

func (c *checker) page(data []byte, records int) []record {
	found := decodeRecords(c.t, data)
	if len(found) != records {
		c.t.Fatalf("a page of %d records reports %d", len(found), records)
	}
	return found
}

// base reads the table as base data, in small pages.
func (c *checker) base() modelTable {
	m := modelTable{}
	ranges, err := c.s.BaseRanges(tableID(c.t, c.s, "t"))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, r := range ranges {
		for start := r.Start; ; {
			page, err := c.s.ReadBase(nil, tableID(c.t, c.s, "t"), start, r.End, 3, 1<<20)
			if err != nil {
				c.t.Fatal(err)
			}
			for _, rec := range c.page(page.Data, page.Records) {
				id := rec.row.PrimaryKey[0].Value.Integer()
				if _, twice := m[id]; twice {
					c.t.Fatalf("row %d occurs twice", id)
				}
				m.change(PutRow, id, rec.row.Cells, 1<<30)
			}
			if start = page.Next; start == nil {
				break
			}
		}
	}
	return m
}

// replay reads the whole log, parents before children, and applies it to an
// empty table. Sequences must ascend for each key.
func (c *checker) replay(maxVersions int) modelTable {
	m := modelTable{}
	last := map[int64]plainbuffer.Sequence{}
	list, err := c.s.Shards(tableID(c.t, c.s, "t"))
	if err != nil {
		c.t.Fatal(err)
	}
	read := map[string]bool{}
	for _, sh := range list {
		for _, parent := range sh.Parents {
			if !read[parent] {
				c.t.Fatalf("shard %s is listed before its parent", sh.ID)
			}
		}
		read[sh.ID] = true
		for offset := int64(0); ; {
			page, err := c.s.ReadShard(nil, tableID(c.t, c.s, "t"), sh.ID, offset, time.Time{}, 4, 1<<20)
			if err != nil {
				c.t.Fatal(err)
			}
			for _, rec := range c.page(page.Data, page.Records) {
				id, seq := rec.row.PrimaryKey[0].Value.Integer(), rec.row.Sequence
				if before, ok := last[id]; ok && compareSequence(before, seq) >= 0 {
					c.t.Fatalf("row %d: %v after %v", id, seq, before)
				}
				last[id] = seq
				m.change(Action(rec.action), id, rec.row.Cells, maxVersions)
			}
			if page.End != (sh.Closed && !page.More) {
				c.t.Fatalf("page %+v of shard %+v", page, sh)
			}
			if offset = page.Next; !page.More {
				break
			}
		}
	}
	return m
}

func compareSequence(a, b plainbuffer.Sequence) int {
	switch {
	case a.Epoch != b.Epoch:
		return int(a.Epoch - b.Epoch)
	case a.Timestamp != b.Timestamp:
		return int(a.Timestamp - b.Timestamp)
	}
	return int(a.RowIndex - b.RowIndex)
}

// TestModel makes random changes, splits, merges and restarts. Then the rows
// must be those of the model, and the log alone must result in the same rows.
func TestModel(t *testing.T) {
	for _, mode := range []string{"memory", "disk"} {
		t.Run("rows and log agree with a naive model, "+mode, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				c := newClock()
				cfg := Config{Now: c.Now}
				if mode == "disk" {
					dir, err := os.MkdirTemp("", "store-model-")
					if err != nil {
						rt.Fatal(err)
					}
					defer os.RemoveAll(dir)
					cfg.Dir = dir
				}
				runModel(rt, c, cfg)
			})
		})
	}
}

func runModel(t *rapid.T, c *clock, cfg Config) {
	sc := schema("t")
	maxVersions := rapid.IntRange(1, 3).Draw(t, "max versions")
	sc.Options.MaxVersions = int32(maxVersions)
	open := func() *checker {
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return &checker{t: t, s: s}
	}
	check := open()
	defer func() { check.s.Close() }()
	if err := check.s.CreateTable(sc, StreamSpec{Enabled: true}, nil); err != nil {
		t.Fatal(err)
	}
	model := modelTable{}
	for range rapid.IntRange(1, 60).Draw(t, "steps") {
		switch step := rapid.IntRange(0, 11).Draw(t, "step"); {
		case step == 0:
			check.s.Split("t") // a single key cannot be split
		case step == 1:
			check.s.Merge("t") // nor a single partition merged
		case step == 2:
			c.advance(time.Duration(rapid.IntRange(-5, 50).Draw(t, "ms")) * time.Millisecond)
		case step == 3 && cfg.Dir != "":
			if err := check.s.Close(); err != nil {
				t.Fatal(err)
			}
			check = open()
		default:
			batch := drawBatch(t, c.Now().UnixMilli())
			table, err := check.s.Table("t")
			if err != nil {
				t.Fatal(err)
			}
			if err := table.Apply(batch, false); err != nil {
				t.Fatal(err)
			}
			for _, ch := range batch {
				if ch.Err != nil {
					t.Fatal(ch.Err)
				}
				model.change(ch.Action, ch.Row.PrimaryKey[0].Value.Integer(), ch.Row.Cells, maxVersions)
			}
		}
	}
	if got, want := check.base().text(), model.text(); got != want {
		t.Fatalf("the rows are\n%swant\n%s", got, want)
	}
	if got, want := check.replay(maxVersions).text(), model.text(); got != want {
		t.Fatalf("the log results in\n%swant\n%s", got, want)
	}
}

// drawBatch draws changes of a few rows and columns, so that they conflict.
func drawBatch(t *rapid.T, nowMillis int64) []*Change {
	var batch []*Change
	for range rapid.IntRange(1, 4).Draw(t, "rows") {
		action := rapid.SampledFrom([]Action{PutRow, UpdateRow, UpdateRow, DeleteRow}).Draw(t, "action")
		var cells []plainbuffer.Cell
		for i := range rapid.IntRange(1, 3).Draw(t, "cells") {
			if action == DeleteRow {
				break
			}
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "column")
			stamp := nowMillis + int64(rapid.IntRange(-3, 3).Draw(t, "version"))
			op := rapid.IntRange(0, 5).Draw(t, "op")
			switch {
			case action == UpdateRow && op == 0:
				cells = append(cells, plainbuffer.Cell{Name: name, Op: plainbuffer.DeleteAllVersion})
			case action == UpdateRow && op == 1:
				cells = append(cells, plainbuffer.Cell{Name: name, Op: plainbuffer.DeleteOneVersion, HasTimestamp: true, Timestamp: stamp})
			case op < 4:
				cells = append(cells, text(name, fmt.Sprint(i, op)))
			default:
				cells = append(cells, at(text(name, fmt.Sprint(i, op)), stamp))
			}
		}
		batch = append(batch, change(action, int64(rapid.IntRange(0, 9).Draw(t, "id")), cells...))
	}
	return batch
}
