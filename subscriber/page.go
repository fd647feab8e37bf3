package subscriber

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/ots"
)

// page is one read response. All of it was checked when it came; a record is
// decoded when it is delivered, so that a page that waits costs little more
// than its body.
//
// A page stays in memory until its last record is settled and no record
// of it is in use any more. What holds a record of it pins no other page.
type page struct {
	origin  *ots.Record // Instance, Table, Tunnel and Channel of its records
	body    []byte
	rows    []rowView
	keys    []string      // ordering key of each record: the primary key's bytes
	base    bool          // its first record has no sequence
	newest  int64         // change time of the last record, µs since 1970; 0 for none
	next    string        // token to read on from, or the finish token
	lookups []lookedUpRow // of each record; nil where no row is looked up
	more    *bool         // may_more_record, when the service says it
	size    int           // bytes of the body

	asked time.Time // when it was asked for
	came  time.Time // when it had come
}

// rowView is where a record is in the body of its page.
type rowView struct {
	at, size             uint32
	originAt, originSize uint32
	typ                  ots.RecordType
}

// record decodes a single record, without the row that was looked up. Decoding a page in order is faster.
func (p *page) record(i int) *ots.Record {
	r := new(ots.Record)
	new(recordDecoder).decode(p, i, r)
	return r
}

// recordDecoder decodes records, one at a time. Their cells come out of
// blocks, if they are to. Not for concurrent use.
//
// Invariant: a block holds cells of one page only. A cell's name and value are
// views of its page, and a block stays in memory as long as one of its cells does: a
// record that is kept would pin the pages of all that share its block.
type recordDecoder struct {
	block   int // cells of a block, at most; 0: each record's cells are on their own
	row     plainbuffer.Row
	page    *page // whose cells the blocks hold
	left    int   // records of the page from the one being decoded on
	cells   []ots.Cell
	columns []ots.Column
}

// blockCells is the usual size of a block: some dozen records.
const blockCells = 256

// reuse lets the next record take the memory of those before it: the caller
// knows that nothing refers to them any more.
func (s *recordDecoder) reuse() {
	clear(s.cells) // or they would pin their page
	clear(s.columns)
	s.page, s.cells, s.columns = nil, s.cells[:0], s.columns[:0]
}

// forget drops the blocks: records that were decoded keep theirs, the decoder pins no page.
func (s *recordDecoder) forget() { s.page, s.cells, s.columns = nil, nil, nil }

// turnTo begins a page, whose cells get blocks of their own. Memory without a cell in it is used on.
func (s *recordDecoder) turnTo(p *page) {
	s.page = p
	if len(s.cells) > 0 {
		s.cells = nil
	}
	if len(s.columns) > 0 {
		s.columns = nil
	}
}

// decode decodes record i of a page into r.
func (s *recordDecoder) decode(p *page, i int, r *ots.Record) {
	if s.page != p {
		s.turnTo(p)
	}
	s.left = len(p.rows) - i
	v := &p.rows[i]
	*r = *p.origin
	r.Type = v.typ
	s.again(p.body[v.at : v.at+v.size])
	r.PrimaryKey = s.key(s.row.PrimaryKey)
	r.Columns = s.cellsOf(s.row.Cells)
	if s.row.HasSequence {
		r.Sequence = ots.Sequence(s.row.Sequence)
	}
	if v.originSize > 0 {
		s.again(p.body[v.originAt : v.originAt+v.originSize])
		r.Origin = s.cellsOf(s.row.Cells)
	}
	s.row.Reset() // its cells are views of the page
}

// decodeRow adds what was looked up to record i of a page, which was decoded into r.
func (s *recordDecoder) decodeRow(p *page, i int, r *ots.Record) {
	if p.lookups == nil {
		return
	}
	l := &p.lookups[i]
	if r.RowState = l.state; len(l.row) > 0 {
		s.again(l.row)
		r.Row = s.cellsOf(s.row.Cells)
		s.row.Reset()
	}
}

// sizeOf returns how many cells a block gets that begins with a record of n: at most
// what the rest of the page takes if its records are alike.
func (s *recordDecoder) sizeOf(n, block int) int { return max(n, min(block, n*s.left)) }

func (s *recordDecoder) again(row []byte) {
	if err := plainbuffer.DecodeAgain(row, &s.row); err != nil {
		panic(fmt.Sprintf("a row that was decoded does not decode again: %v", err))
	}
}

// pageDecoder checks the pages of one channel. Not for concurrent use.
type pageDecoder struct {
	origin ots.Record // Instance, Table, Tunnel, Channel, copied into each record
	row    plainbuffer.Row
	count  int // records of the last page, to size the next one
}

// leastRecord is fewer bytes than any record takes in a page. A page of few records that
// follows a large one gets no more memory than it can use.
const leastRecord = 32

// errPage marks an answer that is not a ReadRecordsResponse.
var errPage = errors.New("malformed page")

// Field numbers of the tunnel messages [docs/protocol.md, Tunnel messages].
const (
	fieldRecords       = 1 // ReadRecordsResponse
	fieldNextToken     = 2
	fieldMayMoreRecord = 3

	fieldActionType   = 1 // Record
	fieldRecord       = 2
	fieldOriginRecord = 3
)

// decode parses a ReadRecordsResponse. It checks everything, checksums
// included, so that a corrupt page is refused as a whole and can be read again;
// the error names the record and the offset in the body.
func (d *pageDecoder) decode(body []byte) (*page, error) {
	if len(body) > math.MaxUint32 {
		return nil, pageError(0, errors.New("larger than 4 GiB"))
	}
	defer d.row.Reset() // its cells are views of the last record: a channel that is idle would pin its last page
	count := min(d.count, len(body)/leastRecord)
	p := &page{origin: &d.origin, body: body, size: len(body), rows: make([]rowView, 0, count), keys: make([]string, 0, count)}
	hasNext := false
	for off := 0; off < len(body); {
		num, typ, n := protowire.ConsumeTag(body[off:])
		if n < 0 {
			return nil, pageError(off, protowire.ParseError(n))
		}
		value := off + n
		switch {
		case num == fieldRecords && typ == protowire.BytesType:
			raw, n := protowire.ConsumeBytes(body[value:])
			if n < 0 {
				return nil, pageError(value, protowire.ParseError(n))
			}
			if err := d.record(p, raw, value+n-len(raw)); err != nil {
				return nil, err
			}
			off = value + n
		case num == fieldNextToken && typ == protowire.BytesType:
			token, n := protowire.ConsumeString(body[value:])
			if n < 0 {
				return nil, pageError(value, protowire.ParseError(n))
			}
			p.next, hasNext, off = token, true, value+n
		case num == fieldMayMoreRecord && typ == protowire.VarintType:
			v, n := protowire.ConsumeVarint(body[value:])
			if n < 0 {
				return nil, pageError(value, protowire.ParseError(n))
			}
			more := protowire.DecodeBool(v)
			p.more, off = &more, value+n
		default: // a field that a later version of the service adds
			n := protowire.ConsumeFieldValue(num, typ, body[value:])
			if n < 0 {
				return nil, pageError(value, protowire.ParseError(n))
			}
			off = value + n
		}
	}
	if !hasNext || p.next == "" {
		return nil, pageError(len(body), errors.New("no next_token"))
	}
	d.count = max(len(p.rows), 1)
	return p, nil
}

func pageError(offset int, err error) error {
	return fmt.Errorf("%w at byte %d: %w", errPage, offset, err)
}

// record checks one Record message, which begins at offset base of the body.
func (d *pageDecoder) record(p *page, raw []byte, base int) error {
	var action uint64
	var row, origin []byte
	rowAt, originAt := 0, 0
	for off := 0; off < len(raw); {
		num, typ, n := protowire.ConsumeTag(raw[off:])
		if n < 0 {
			return pageError(base+off, protowire.ParseError(n))
		}
		off += n
		switch {
		case num == fieldActionType && typ == protowire.VarintType:
			action, n = protowire.ConsumeVarint(raw[off:])
		case num == fieldRecord && typ == protowire.BytesType:
			row, n = protowire.ConsumeBytes(raw[off:])
			rowAt = base + off + n - len(row)
		case num == fieldOriginRecord && typ == protowire.BytesType:
			origin, n = protowire.ConsumeBytes(raw[off:])
			originAt = base + off + n - len(origin)
		default:
			n = protowire.ConsumeFieldValue(num, typ, raw[off:])
		}
		if n < 0 {
			return pageError(base+off, protowire.ParseError(n))
		}
		off += n
	}
	typ := ots.RecordType(action)
	if action > uint64(ots.Delete) || typ < ots.Put {
		return pageError(base, fmt.Errorf("record %d: unknown action type %d", len(p.rows), action))
	}
	if err := plainbuffer.Decode(row, &d.row); err != nil {
		return pageError(rowAt, fmt.Errorf("record %d: %w", len(p.rows), err))
	}
	if len(d.row.PrimaryKey) == 0 {
		return pageError(rowAt, fmt.Errorf("record %d: no primary key", len(p.rows)))
	}
	p.keys = append(p.keys, d.row.KeyBytes)
	if len(p.rows) == 0 {
		p.base = !d.row.HasSequence || ots.Sequence(d.row.Sequence).IsZero()
	}
	p.newest = d.row.Sequence.Timestamp
	if len(origin) > 0 {
		if err := plainbuffer.Decode(origin, &d.row); err != nil {
			return pageError(originAt, fmt.Errorf("origin of record %d: %w", len(p.rows), err))
		}
	}
	p.rows = append(p.rows, rowView{at: uint32(rowAt), size: uint32(len(row)), originAt: uint32(originAt), originSize: uint32(len(origin)), typ: typ})
	return nil
}

func (s *recordDecoder) key(cells []plainbuffer.Cell) []ots.Column {
	if len(cells) > cap(s.columns)-len(s.columns) {
		s.columns = make([]ots.Column, 0, s.sizeOf(len(cells), s.block/4))
	}
	start := len(s.columns)
	for i := range cells {
		s.columns = append(s.columns, ots.Column{Name: cells[i].Name, Value: fromWire(cells[i].Value)})
	}
	return s.columns[start:len(s.columns):len(s.columns)]
}

func (s *recordDecoder) cellsOf(cells []plainbuffer.Cell) []ots.Cell {
	if len(cells) == 0 {
		return nil
	}
	if len(cells) > cap(s.cells)-len(s.cells) {
		s.cells = make([]ots.Cell, 0, s.sizeOf(len(cells), s.block))
	}
	start := len(s.cells)
	for i := range cells {
		c := ots.Cell{Name: cells[i].Name, Type: ots.CellPut, Timestamp: cells[i].Timestamp}
		switch cells[i].Op {
		case plainbuffer.DeleteAllVersion:
			c.Type = ots.CellDeleteAllVersions
		case plainbuffer.DeleteOneVersion:
			c.Type = ots.CellDeleteOneVersion
		default: // as in the SDK: a type that is not known counts as a put
			if cells[i].HasValue { // without one the value is none, not the integer 0
				c.Value = fromWire(cells[i].Value)
			}
		}
		s.cells = append(s.cells, c)
	}
	return s.cells[start:len(s.cells):len(s.cells)]
}
