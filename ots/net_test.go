package ots

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// column is the naive state of a column while a change applies.
type column struct {
	versions map[int64]Value
	cleared  bool // whether all of its versions before the change are gone
}

func (c *column) net(name string) (Cell, bool) {
	switch {
	case len(c.versions) > 0:
		newest := slices.Max(slices.Collect(maps.Keys(c.versions)))
		return Cell{Name: name, Value: c.versions[newest], Timestamp: newest}, true
	case c.cleared:
		return Cell{Name: name, Type: CellDeleteAllVersions}, true
	}
	return Cell{}, false
}

func TestNetColumns_are_what_a_row_holds_after_the_cells_were_applied_in_order(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { // prints the seed of a failure
		r := &Record{Type: Update}
		state := make(map[string]*column)
		var names []string
		for i := range rapid.IntRange(0, 2*wideRow).Draw(t, "cells") {
			c := Cell{Name: rapid.StringMatching("[a-e]").Draw(t, "name"), Type: CellType(rapid.IntRange(0, 2).Draw(t, "type"))}
			if c.Type != CellDeleteAllVersions {
				c.Timestamp = rapid.Int64Range(1, 4).Draw(t, "version")
			}
			if state[c.Name] == nil {
				state[c.Name] = &column{versions: make(map[int64]Value)}
				names = append(names, c.Name)
			}
			switch s := state[c.Name]; c.Type {
			case CellPut:
				c.Value = IntegerValue(int64(i))
				s.versions[c.Timestamp] = c.Value
			case CellDeleteOneVersion:
				delete(s.versions, c.Timestamp)
			case CellDeleteAllVersions:
				s.versions, s.cleared = make(map[int64]Value), true
			}
			r.Columns = append(r.Columns, c)
		}
		var want []Cell
		for _, name := range names {
			c, ok := state[name].net(name)
			if ok {
				want = append(want, c)
			}
			if got, found := r.Column(name); found != (ok && c.Type == CellPut) || got != c.Value {
				t.Fatalf("column %s is %v, %t; want %+v", name, got, found, c)
			}
		}
		if got := r.NetColumns(); !slices.Equal(got, want) {
			t.Fatalf("%+v\nleft %+v, want %+v", r.Columns, got, want)
		}
		for _, c := range r.NetDeletedVersions() {
			if _, there := state[c.Name].versions[c.Timestamp]; there || c.Type != CellDeleteOneVersion {
				t.Fatalf("%+v\nversion %d of %s is reported as gone", r.Columns, c.Timestamp, c.Name)
			}
		}
	})
}

func TestNetColumns_of_a_usual_change_are_its_cells(t *testing.T) {
	r := &Record{Columns: []Cell{{Name: "a"}, {Name: "b", Type: CellDeleteAllVersions}, {Name: "c"}}}
	if n := testing.AllocsPerRun(100, func() { r.NetColumns() }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	if got := r.NetColumns(); &got[0] != &r.Columns[0] || len(got) != 3 {
		t.Errorf("got %+v", got)
	}
}

func TestNetDeletedVersions_leave_out_what_the_change_wrote_again(t *testing.T) {
	one := func(version int64) Cell { return Cell{Name: "a", Type: CellDeleteOneVersion, Timestamp: version} }
	r := &Record{Columns: []Cell{one(1), {Name: "a", Timestamp: 1}, {Name: "b", Timestamp: 2}, one(2), {Name: "a", Timestamp: 3}, one(3)}}
	if got, want := r.NetDeletedVersions(), []Cell{one(2), one(3)}; !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
