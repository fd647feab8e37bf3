package plainbuffer

import "fmt"

// Walk reads a row that Decode has accepted before, cell by cell, for those who
// have no use for a Row. Like DecodeAgain it does not compute checksums once more.
//
// The parts of a row come in this order: the primary key with Next, the columns
// with Columns and Next, the sequence with Sequence. Who begins with a part has
// read all of those before it.
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
	w.goOn(next, err)
	return true
}

// Columns goes on from the primary key to the columns.
func (w *Walk) Columns() { w.skip(tagRowData) }

// Sequence returns the row's sequence, the zero Sequence if it has none.
func (w *Walk) Sequence() (s Sequence) {
	w.skip(tagDeleteRow)
	if tagAt(w.buf, w.at) != tagExtension {
		return s
	}
	s, _, next, err := decodeExtension(w.buf, w.at)
	w.goOn(next, err)
	return s
}

func (w *Walk) skip(tag byte) {
	if tagAt(w.buf, w.at) == tag {
		w.at++
	}
}

func (w *Walk) goOn(next int, err error) {
	if err != nil {
		panic(fmt.Sprintf("plainbuffer: a row that was decoded does not decode again: %v", err))
	}
	w.at = next
}
