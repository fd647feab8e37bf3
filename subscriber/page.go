package subscriber

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// page is one read response, decoded: its records are views into the body.
//
// A page stays in memory until its last record is settled and nobody holds a
// record of it any more.
type page struct {
	records []Record
	keys    []string // ordering key of each record: the primary key's bytes
	next    string   // token to read on from, or the finish token
	more    *bool    // may_more_record, when the service says it
	size    int      // bytes of the body

	asked time.Time // when it was asked for
}

// pageDecoder decodes the pages of one channel. Not for concurrent use.
type pageDecoder struct {
	origin Record // Instance, Table, Tunnel, Channel, copied into each record
	row    plainbuffer.Row
	cells  int // cells of the last page, to size the slab of the next one
	count  int
}

// errPage marks an answer that is no ReadRecordsResponse.
var errPage = errors.New("malformed page")

// Field numbers of the tunnel messages [facts 2.1].
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
	p := &page{size: len(body), records: make([]Record, 0, d.count), keys: make([]string, 0, d.count)}
	slab := &cellSlab{cells: make([]Cell, 0, d.cells), columns: make([]Column, 0, d.count)}
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
			if err := d.record(p, slab, raw, value+n-len(raw)); err != nil {
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
	d.count, d.cells = max(len(p.records), 1), max(len(slab.cells), 1)
	return p, nil
}

func pageError(offset int, err error) error {
	return fmt.Errorf("%w at byte %d: %w", errPage, offset, err)
}

// cellSlab holds the cells of a page in few allocations. Slices of it stay
// valid when it grows: older ones keep the array they were cut from.
type cellSlab struct {
	cells   []Cell
	columns []Column
}

// record decodes one Record message, which begins at offset base of the body.
func (d *pageDecoder) record(p *page, slab *cellSlab, raw []byte, base int) error {
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
	typ := RecordType(action)
	if action > uint64(Delete) || typ < Put {
		return pageError(base, fmt.Errorf("record %d: unknown action type %d", len(p.records), action))
	}
	if err := plainbuffer.Decode(row, &d.row); err != nil {
		return pageError(rowAt, fmt.Errorf("record %d: %w", len(p.records), err))
	}
	if len(d.row.PrimaryKey) == 0 {
		return pageError(rowAt, fmt.Errorf("record %d: no primary key", len(p.records)))
	}
	r := d.origin
	r.Type = typ
	r.PrimaryKey = slab.key(d.row.PrimaryKey)
	r.Columns = slab.row(d.row.Cells)
	if d.row.HasSequence {
		r.Sequence = Sequence(d.row.Sequence)
	}
	p.keys = append(p.keys, d.row.KeyBytes)
	if len(origin) > 0 {
		if err := plainbuffer.Decode(origin, &d.row); err != nil {
			return pageError(originAt, fmt.Errorf("origin of record %d: %w", len(p.records), err))
		}
		r.Origin = slab.row(d.row.Cells)
	}
	p.records = append(p.records, r)
	return nil
}

func (s *cellSlab) key(cells []plainbuffer.Cell) []Column {
	start := len(s.columns)
	for i := range cells {
		s.columns = append(s.columns, Column{Name: cells[i].Name, Value: fromWire(cells[i].Value)})
	}
	return s.columns[start:len(s.columns):len(s.columns)]
}

func (s *cellSlab) row(cells []plainbuffer.Cell) []Cell {
	if len(cells) == 0 {
		return nil
	}
	start := len(s.cells)
	for i := range cells {
		c := Cell{Name: cells[i].Name, Type: CellPut, Timestamp: cells[i].Timestamp}
		switch cells[i].Op {
		case plainbuffer.DeleteAllVersion:
			c.Type = CellDeleteAllVersions
		case plainbuffer.DeleteOneVersion:
			c.Type = CellDeleteOneVersion
		default: // as in the SDK: a type that is not known counts as a put
			if cells[i].HasValue { // without one the value is none, not the integer 0
				c.Value = fromWire(cells[i].Value)
			}
		}
		s.cells = append(s.cells, c)
	}
	return s.cells[start:len(s.cells):len(s.cells)]
}
