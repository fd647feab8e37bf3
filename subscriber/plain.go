package subscriber

import (
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/ots"
)

// plainJSON makes messages of plain records straight from the wire. They are
// those that JSON makes of a Record, by a shorter way.
//
// A record is plain when it holds a value for each of its columns, the columns
// are in the order of their names, and it has neither columns of before the change nor a row that was looked up. Most are.
//
// Not for concurrent use.
type plainJSON struct {
	text []byte // of the message before; its memory is used again
}

// mostPlainText is how much memory is kept for the next text.
const mostPlainText = 64 << 10

// message returns the message of record i of a page, without its UUID, and the record's
// sequence. It is false for a record that is not plain.
func (j *plainJSON) message(p *page, i int) (msg *message.Message, seq ots.Sequence, ok bool) {
	v := &p.rows[i]
	if v.originSize > 0 || p.lookups != nil && p.lookups[i].state != ots.RowUnknown {
		return nil, seq, false
	}
	row := p.body[v.at : v.at+v.size]
	b, seq, ok := appendPlain(j.text[:0], v.typ, row)
	if !ok {
		return nil, seq, false
	}
	payload := len(b)
	if !seq.IsZero() {
		b = strconv.AppendInt(b, seq.Timestamp, 10)
	}
	timestamp := len(b)
	b = appendPlainKey(b, row)
	if cap(b) <= mostPlainText {
		j.text = b
	}
	// One piece of memory, and no more than is needed, holds the payload and the texts of the metadata.
	own := append([]byte(nil), b...)
	msg = message.NewMessage("", own[:payload:payload])
	setMetadataTexts(msg, p.origin, v.typ, textOf(own[payload:timestamp]), textOf(own[timestamp:]))
	return msg, seq, true
}

// appendPlain is appendRecord for the row of a plain record. It is false, and
// what it has appended of no use, when the record is not plain.
func appendPlain(b []byte, typ ots.RecordType, row []byte) (_ []byte, seq ots.Sequence, ok bool) {
	w := plainbuffer.WalkAgain(row)
	var c plainbuffer.Cell
	b = appendUpToKey(b, typ)
	for first := true; w.Next(&c); first = false {
		b = appendNamed(b, first, c.Name, fromWire(c.Value))
	}
	b = append(b, keyUpToColumns...)
	w.Columns()
	last := ""
	for first := true; w.Next(&c); first = false {
		if c.Op != plainbuffer.Put || !c.HasValue || !first && c.Name <= last {
			return b, seq, false
		}
		b = appendNamed(b, first, c.Name, fromWire(c.Value))
		last = c.Name
	}
	b = append(b, '}')
	seq = ots.Sequence(w.Sequence())
	return append(appendSequence(b, seq), '}'), seq, true
}

// appendPlainKey is ots.Record.AppendKeyText for the row of a record.
func appendPlainKey(b []byte, row []byte) []byte {
	w := plainbuffer.WalkAgain(row)
	var c plainbuffer.Cell
	b = append(b, '[')
	for first := true; w.Next(&c); first = false {
		if !first {
			b = append(b, ',')
		}
		b = fromWire(c.Value).AppendJSON(b)
	}
	return append(b, ']')
}
