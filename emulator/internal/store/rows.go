package store

import (
	"bytes"
	"encoding/binary"
	"sort"
)

const (
	// leafEntries and leafBytes bound a leaf. Together they keep the cost of
	// an insert (shifting offsets) and of a split (copying bytes) small, and
	// the number of pointers the garbage collector sees at about three for
	// some hundred rows.
	leafEntries = 256
	leafBytes   = 64 << 10
)

// rows is an ordered set of encoded rows: a sorted slice of leaves, each of
// which holds its entries as bytes. It is not safe for concurrent use; the
// partition's lock guards it.
//
// Invariants:
//   - keys ascend strictly over all leaves;
//   - no leaf is empty;
//   - bytes of an entry are never changed once written, so slices that get and
//     at return stay valid after later changes.
type rows struct {
	leaves []*leaf
	count  int
	bytes  int64 // of keys and rows that are not deleted
}

// leaf holds entries in data (uvarint key length, key, uvarint row length,
// row), in any order, and their offsets in key order.
type leaf struct {
	data  []byte
	offs  []uint32
	alive int // bytes of data that offs refers to
}

// entry returns the i-th entry in key order, and its length in data.
func (l *leaf) entry(i int) (key, row []byte, size int) {
	b := l.data[l.offs[i]:]
	n, w := binary.Uvarint(b)
	key = b[w : w+int(n) : w+int(n)]
	size = w + int(n)
	n, w = binary.Uvarint(b[size:])
	size += w
	row = b[size : size+int(n) : size+int(n)]
	return key, row, size + int(n)
}

func (l *leaf) key(i int) []byte {
	b := l.data[l.offs[i]:]
	n, w := binary.Uvarint(b)
	return b[w : w+int(n)]
}

// search returns the index of the first entry whose key is >= key.
func (l *leaf) search(key []byte) (i int, found bool) {
	lo, hi := 0, len(l.offs)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch bytes.Compare(l.key(mid), key) {
		case 0:
			return mid, true
		case -1:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}

// write appends an entry's bytes and returns their offset and length.
func (l *leaf) write(key, row []byte) (off uint32, size int) {
	start := len(l.data)
	l.data = binary.AppendUvarint(l.data, uint64(len(key)))
	l.data = append(l.data, key...)
	l.data = binary.AppendUvarint(l.data, uint64(len(row)))
	l.data = append(l.data, row...)
	size = len(l.data) - start
	l.alive += size
	return uint32(start), size
}

// part returns a new leaf with the entries lo to hi, without the bytes of
// deleted ones.
func (l *leaf) part(lo, hi int) *leaf {
	size := 0
	for i := lo; i < hi; i++ {
		_, _, n := l.entry(i)
		size += n
	}
	p := &leaf{data: make([]byte, 0, size), offs: make([]uint32, 0, hi-lo), alive: size}
	for i := lo; i < hi; i++ {
		_, _, n := l.entry(i)
		p.offs = append(p.offs, uint32(len(p.data)))
		p.data = append(p.data, l.data[l.offs[i]:int(l.offs[i])+n]...)
	}
	return p
}

// find returns the leaf that holds key, or would hold it.
func (r *rows) find(key []byte) int {
	// Keys often arrive in ascending order.
	if last := len(r.leaves) - 1; bytes.Compare(r.leaves[last].key(0), key) <= 0 {
		return last
	}
	n := sort.Search(len(r.leaves), func(i int) bool { return bytes.Compare(r.leaves[i].key(0), key) > 0 })
	return max(n-1, 0)
}

// get returns the row with that key.
func (r *rows) get(key []byte) (row []byte, ok bool) {
	if len(r.leaves) == 0 {
		return nil, false
	}
	l := r.leaves[r.find(key)]
	i, found := l.search(key)
	if !found {
		return nil, false
	}
	_, row, _ = l.entry(i)
	return row, true
}

// put inserts or replaces a row and returns views of the stored key and row.
func (r *rows) put(key, row []byte) (k, v []byte) {
	n := 0
	if len(r.leaves) == 0 {
		r.leaves = append(r.leaves, &leaf{})
	} else {
		n = r.find(key)
	}
	l := r.leaves[n]
	i, found := l.search(key)
	if found {
		oldKey, oldRow, size := l.entry(i)
		r.bytes -= int64(len(oldKey) + len(oldRow))
		l.alive -= size
		l.offs[i], _ = l.write(key, row)
	} else {
		// Keys that arrive in ascending order leave full leaves behind;
		// splitting in the middle would leave half-empty ones.
		if i == len(l.offs) && n == len(r.leaves)-1 && l.full() {
			l = &leaf{}
			r.leaves = append(r.leaves, l)
			n, i = n+1, 0
		}
		off, _ := l.write(key, row)
		l.offs = append(l.offs, 0)
		copy(l.offs[i+1:], l.offs[i:])
		l.offs[i] = off
		r.count++
	}
	r.bytes += int64(len(key) + len(row))
	k, v, _ = l.entry(i)
	r.fit(n)
	return k, v
}

func (l *leaf) full() bool { return len(l.offs) >= leafEntries || len(l.data) >= leafBytes }

// fit compacts or splits leaf n if it has outgrown its bounds.
func (r *rows) fit(n int) {
	l := r.leaves[n]
	switch {
	case len(l.data) > leafBytes && l.alive < len(l.data)/2:
		r.leaves[n] = l.part(0, len(l.offs))
	case (len(l.offs) > leafEntries || len(l.data) > leafBytes) && len(l.offs) > 1:
		half := len(l.offs) / 2
		r.leaves = append(r.leaves, nil)
		copy(r.leaves[n+2:], r.leaves[n+1:])
		r.leaves[n], r.leaves[n+1] = l.part(0, half), l.part(half, len(l.offs))
	}
}

// delete removes the row with that key.
func (r *rows) delete(key []byte) bool {
	if len(r.leaves) == 0 {
		return false
	}
	n := r.find(key)
	l := r.leaves[n]
	i, found := l.search(key)
	if !found {
		return false
	}
	k, v, size := l.entry(i)
	r.bytes -= int64(len(k) + len(v))
	r.count--
	l.alive -= size
	l.offs = append(l.offs[:i], l.offs[i+1:]...)
	if len(l.offs) == 0 {
		r.leaves = append(r.leaves[:n], r.leaves[n+1:]...)
	}
	return true
}

// load appends a row whose key is greater than all existing keys.
func (r *rows) load(key, row []byte) {
	if len(r.leaves) == 0 || r.leaves[len(r.leaves)-1].full() {
		r.leaves = append(r.leaves, &leaf{})
	}
	l := r.leaves[len(r.leaves)-1]
	off, _ := l.write(key, row)
	l.offs = append(l.offs, off)
	r.count++
	r.bytes += int64(len(key) + len(row))
}

// place is a position in rows. The next change invalidates it.
type place struct{ leaf, entry int }

// seek returns the place of the first row whose key is >= key, or the first
// of all for a nil key.
func (r *rows) seek(key []byte) place {
	if key == nil || len(r.leaves) == 0 {
		return place{}
	}
	n := r.find(key)
	i, _ := r.leaves[n].search(key)
	if i == len(r.leaves[n].offs) {
		return place{n + 1, 0}
	}
	return place{n, i}
}

// at returns the row at p, and false past either end.
func (r *rows) at(p place) (key, row []byte, ok bool) {
	if p.leaf < 0 || p.leaf >= len(r.leaves) {
		return nil, nil, false
	}
	key, row, _ = r.leaves[p.leaf].entry(p.entry)
	return key, row, true
}

// next and prev return the places next to p.
func (r *rows) next(p place) place {
	if p.entry++; p.entry >= len(r.leaves[p.leaf].offs) {
		return place{p.leaf + 1, 0}
	}
	return p
}

func (r *rows) prev(p place) place {
	if p.entry > 0 {
		return place{p.leaf, p.entry - 1}
	}
	if p.leaf == 0 {
		return place{-1, 0}
	}
	return place{p.leaf - 1, len(r.leaves[p.leaf-1].offs) - 1}
}

// cut moves all rows with keys >= key into a new set.
func (r *rows) cut(key []byte) *rows {
	right := &rows{}
	p := r.seek(key)
	if p.leaf >= len(r.leaves) {
		return right
	}
	if p.entry == 0 {
		right.leaves = append(right.leaves, r.leaves[p.leaf:]...)
		r.leaves = r.leaves[:p.leaf:p.leaf]
	} else {
		l := r.leaves[p.leaf]
		right.leaves = append([]*leaf{l.part(p.entry, len(l.offs))}, r.leaves[p.leaf+1:]...)
		r.leaves = append(r.leaves[:p.leaf:p.leaf], l.part(0, p.entry))
	}
	r.recount()
	right.recount()
	return right
}

// join appends the rows of right, all of whose keys are greater.
func (r *rows) join(right *rows) {
	r.leaves = append(r.leaves, right.leaves...)
	r.count += right.count
	r.bytes += right.bytes
}

func (r *rows) recount() {
	r.count, r.bytes = 0, 0
	for _, l := range r.leaves {
		r.count += len(l.offs)
		for i := range l.offs {
			k, v, _ := l.entry(i)
			r.bytes += int64(len(k) + len(v))
		}
	}
}
