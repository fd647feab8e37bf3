package ots

// The cells of a change apply in their order, as those of the request did
// [docs/protocol.md, Stream records and sequences]: a put adds a version or replaces
// an equal one, CellDeleteOneVersion removes a version, CellDeleteAllVersions all.

// NetColumns returns what the change left of each column that it touched, at the
// place of the column's first cell: a CellPut with the newest version that is there
// after the change, or CellDeleteAllVersions if the column is gone. The last operation
// wins: a column that was removed and written again is a put, one that was written and
// then removed is gone. Of equal versions the later one counts.
//
// A column of which only single versions were removed is not in it, because the change does
// not tell what is left of it; NetDeletedVersions has them.
//
// The result is r.Columns itself where each column has one cell, as is usual: do not change it.
func (r *Record) NetColumns() []Cell {
	cells := r.Columns
	if ascending(cells) {
		return cells
	}
	net := make([]Cell, 0, len(cells))
	var at map[string]int // place in net by name, for wide rows
	if len(cells) >= wideRow {
		at = make(map[string]int, len(cells))
	}
	for i := range cells {
		c := &cells[i]
		n, known := placeOf(net, at, c.Name)
		if !known {
			n = len(net)
			net = append(net, Cell{Name: c.Name, Type: CellDeleteOneVersion}) // nothing is known of it so far
			if at != nil {
				at[c.Name] = n
			}
		}
		net[n].step(cells, i)
	}
	kept := net[:0]
	for i := range net {
		if net[i].Type != CellDeleteOneVersion {
			kept = append(kept, net[i])
		}
	}
	return kept
}

// NetDeletedVersions returns the CellDeleteOneVersion cells of the change whose version
// the same change did not write again.
func (r *Record) NetDeletedVersions() []Cell {
	var gone []Cell
next:
	for i := range r.Columns {
		c := &r.Columns[i]
		if c.Type != CellDeleteOneVersion {
			continue
		}
		for j := range r.Columns[i+1:] {
			if later := &r.Columns[i+1+j]; later.Type == CellPut && later.Timestamp == c.Timestamp && later.Name == c.Name {
				continue next
			}
		}
		gone = append(gone, *c)
	}
	return gone
}

// wideRow is from how many cells on a map beats looking back.
const wideRow = 32

func placeOf(net []Cell, at map[string]int, name string) (n int, known bool) {
	if at != nil {
		n, known = at[name]
		return n, known
	}
	for n = range net {
		if net[n].Name == name {
			return n, true
		}
	}
	return 0, false
}

// ascending reports whether no column has more than one cell because their names
// grow from cell to cell, and no single version was removed.
func ascending(cells []Cell) bool {
	for i := range cells {
		if cells[i].Type == CellDeleteOneVersion || i > 0 && cells[i-1].Name >= cells[i].Name {
			return false
		}
	}
	return true
}

// step turns the net cell of a column before cell i into the one after it. The type
// CellDeleteOneVersion says that nothing is known of the column so far.
func (net *Cell) step(cells []Cell, i int) {
	c := &cells[i]
	switch {
	case c.Type == CellDeleteOneVersion && net.Type == CellPut && net.Timestamp == c.Timestamp:
		*net = leftOf(cells[:i+1], c.Name)
	case c.Type == CellDeleteAllVersions, c.Type == CellPut && (net.Type != CellPut || c.Timestamp >= net.Timestamp):
		*net = *c
	}
}

// leftOf returns the net cell of a column after cells; CellDeleteOneVersion if they do not tell.
// It compares each put with all later cells: for the rare case alone that a
// change removes the newest version of those that it wrote.
func leftOf(cells []Cell, name string) Cell {
	left := Cell{Name: name, Type: CellDeleteOneVersion}
	for i := range cells {
		c := &cells[i]
		switch {
		case c.Name != name || c.Type == CellDeleteOneVersion:
		case c.Type == CellDeleteAllVersions:
			left = *c
		case removed(c, cells[i+1:]):
		case left.Type != CellPut || c.Timestamp >= left.Timestamp:
			left = *c
		}
	}
	return left
}

// removed reports whether one of the later cells removes the version that c wrote.
func removed(c *Cell, later []Cell) bool {
	for i := range later {
		l := &later[i]
		if l.Name == c.Name && (l.Type == CellDeleteAllVersions || l.Type == CellDeleteOneVersion && l.Timestamp == c.Timestamp) {
			return true
		}
	}
	return false
}

// netValue returns the value that the column holds after cells, if they tell.
func netValue(cells []Cell, name string) (Value, bool) {
	net := Cell{Type: CellDeleteOneVersion}
	for i := range cells {
		if cells[i].Name == name {
			net.step(cells, i)
		}
	}
	return net.Value, net.Type == CellPut
}
