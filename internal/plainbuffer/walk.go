package plainbuffer

import "fmt"

// Walk reads a row that Decode has accepted before, cell by cell, for callers that do
// not need a Row. Like DecodeAgain it does not verify checksums again.
//
// The parts of a row are read in this order: the primary key with Next, the columns with
// Columns and Next, the sequence with Sequence. Before a part, all earlier parts must
// have been read.
type Walk struct {
	buf []byte
	at  int
}

// WalkAgain returns a Walk at the beginning of buf's only row.
func WalkAgain(buf []byte) Walk {
	w := Walk{buf: buf, at: headerSize}
	w.skip(tagRowPK)
	return w
}

// Next reads the next cell of the part that the walk is in. It is false when
// there is none. The cell's name and value are views of the buffer.
func (w *Walk) Next(c *Cell) bool {
	if tagAt(w.buf, w.at) != tagCell {
		return false
	}
	*c = Cell{}
	next, err := decodeCell(w.buf, w.at, c, false)
	w.moveTo(next, err)
	return true
}

// Columns moves from the primary key to the columns.
func (w *Walk) Columns() { w.skip(tagRowData) }

// Sequence returns the row's sequence, the zero Sequence if it has none.
func (w *Walk) Sequence() (s Sequence) {
	w.skip(tagDeleteRow)
	if tagAt(w.buf, w.at) != tagExtension {
		return s
	}
	s, _, next, err := decodeExtension(w.buf, w.at)
	w.moveTo(next, err)
	return s
}

func (w *Walk) skip(tag byte) {
	if tagAt(w.buf, w.at) == tag {
		w.at++
	}
}

func (w *Walk) moveTo(next int, err error) {
	if err != nil {
		panic(fmt.Sprintf("plainbuffer: a row that was decoded does not decode again: %v", err))
	}
	w.at = next
}
