package plainbuffer

import (
	"encoding/binary"
	"fmt"
)

const (
	header     = 0x75
	headerSize = 4

	tagRowPK             = 0x01
	tagRowData           = 0x02
	tagCell              = 0x03
	tagCellName          = 0x04
	tagCellValue         = 0x05
	tagCellType          = 0x06
	tagCellTimestamp     = 0x07
	tagDeleteRow         = 0x08
	tagRowChecksum       = 0x09
	tagCellChecksum      = 0x0A
	tagExtension         = 0x0B
	tagSequence          = 0x0C
	tagSequenceEpoch     = 0x0D
	tagSequenceTimestamp = 0x0E
	tagSequenceRowIndex  = 0x0F

	// sequenceSize is the length of a sequence: three tags, epoch, timestamp and
	// row index.
	sequenceSize = 3 + 4 + 8 + 4
)

// Decode decodes a buffer that is a header and exactly one row, as a tunnel
// record is. Errors and views are as for DecodeRow.
func Decode(buf []byte, row *Row) error { return decodeOnly(buf, row, true) }

// DecodeAgain decodes a buffer that Decode has accepted before. It does not verify
// checksums again.
func DecodeAgain(buf []byte, row *Row) error { return decodeOnly(buf, row, false) }

func decodeOnly(buf []byte, row *Row, verify bool) error {
	row.Reset()
	p, err := decodeHeader(buf)
	if err == nil {
		p, err = decodeRow(buf, p, row, verify)
	}
	if err == nil && p < len(buf) {
		err = syntaxError(p, "data after the only row")
	}
	if err != nil {
		row.Reset()
	}
	return err
}

// DecodeAll decodes a buffer that is a header and any number of rows, including
// none. Errors and views are as for DecodeRow; with an error it returns no rows.
func DecodeAll(buf []byte) ([]Row, error) {
	p, err := decodeHeader(buf)
	if err != nil {
		return nil, err
	}
	var rows []Row
	for p < len(buf) {
		var row Row
		if p, err = decodeRow(buf, p, &row, true); err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// DecodeRow decodes the row at the start of buf, which has no header, and
// returns the row's length. It overwrites row and reuses its slices; the names and
// values of the decoded row are views of buf.
//
// Every length is checked and every checksum verified. The error is a
// *SyntaxError or a *ChecksumError, offsets counting from the start of buf; the
// row is then empty.
func DecodeRow(buf []byte, row *Row) (int, error) {
	row.Reset()
	n, err := decodeRow(buf, 0, row, true)
	if err != nil {
		row.Reset()
	}
	return n, err
}

// DecodeVariant decodes a buffer that is exactly one value in the form of
// AppendVariant. The value is a view of buf; the error is a *SyntaxError.
func DecodeVariant(buf []byte) (Value, error) {
	v, p, err := decodeValue(buf, 0)
	if err != nil {
		return Value{}, err
	}
	if p < len(buf) {
		return Value{}, syntaxError(p, "data after the value")
	}
	return v, nil
}

func decodeHeader(buf []byte) (int, error) {
	if len(buf) < headerSize || binary.LittleEndian.Uint32(buf) != header {
		return 0, syntaxError(0, "no header")
	}
	return headerSize, nil
}

// decodeRow decodes the row at buf[p:] into an empty row and returns the offset
// after it. Without verify checksums are skipped. An error leaves the row half filled.
func decodeRow(buf []byte, p int, row *Row, verify bool) (next int, err error) {
	var sum crc
	if tagAt(buf, p) == tagRowPK {
		p++
		start := p
		if row.PrimaryKey, p, sum, err = decodeCells(buf, p, row.PrimaryKey, sum, verify); err != nil {
			return 0, err
		}
		for i := range row.PrimaryKey {
			if !row.PrimaryKey[i].HasValue {
				return 0, syntaxError(start, "primary key column %d without a value", i)
			}
		}
		row.KeyBytes = view(buf[start:p])
	}
	if tagAt(buf, p) == tagRowData {
		if row.Cells, p, sum, err = decodeCells(buf, p+1, row.Cells, sum, verify); err != nil {
			return 0, err
		}
	}
	var deleted byte
	if tagAt(buf, p) == tagDeleteRow {
		row.Delete = true
		deleted = 1
		p++
	}
	if tagAt(buf, p) == tagExtension {
		if row.Sequence, row.HasSequence, p, err = decodeExtension(buf, p); err != nil {
			return 0, err
		}
	}
	if tagAt(buf, p) != tagRowChecksum || len(buf)-p < 2 {
		return 0, syntaxError(p, "no row checksum")
	}
	if computed := sum.byte(deleted).sum(); verify && buf[p+1] != computed {
		return 0, &ChecksumError{Offset: p + 1, Part: "row", Stored: buf[p+1], Computed: computed}
	}
	return p + 2, nil
}

// tagAt returns the byte at p, or 0, which is not a tag, at the end of buf.
func tagAt(buf []byte, p int) byte {
	if p < len(buf) {
		return buf[p]
	}
	return 0
}

// decodeCells appends the cells at buf[p:] to cells. It returns the offset after
// them and sum continued with their checksums.
func decodeCells(buf []byte, p int, cells []Cell, sum crc, verify bool) ([]Cell, int, crc, error) {
	for tagAt(buf, p) == tagCell {
		cells = append(cells, Cell{})
		next, err := decodeCell(buf, p, &cells[len(cells)-1], verify)
		if err != nil {
			return cells, 0, 0, err
		}
		sum = sum.byte(buf[next-1])
		p = next
	}
	return cells, p, sum, nil
}

// decodeCell decodes the cell whose tag is at buf[p]. The byte before the offset
// it returns is the cell's checksum.
func decodeCell(buf []byte, p int, c *Cell, verify bool) (int, error) {
	p++
	if tagAt(buf, p) != tagCellName {
		return 0, syntaxError(p, "no cell name")
	}
	name, p, err := decodeBytes(buf, p+1)
	if err != nil {
		return 0, err
	}
	c.Name = view(name)
	valueAt, valueEnd := p, p
	if tagAt(buf, p) == tagCellValue {
		if len(buf)-p < 1+4 {
			return 0, syntaxError(p+1, "value cut short")
		}
		total := binary.LittleEndian.Uint32(buf[p+1:])
		start := p + 1 + 4
		if c.Value, p, err = decodeValue(buf, start); err != nil {
			return 0, err
		}
		if uint64(total) != uint64(p-start) {
			return 0, syntaxError(start-4, "total length does not match the value")
		}
		c.HasValue = true
		valueAt, valueEnd = start, p
	}
	hasOp := tagAt(buf, p) == tagCellType
	if hasOp {
		if len(buf)-p < 2 {
			return 0, syntaxError(p+1, "cell type cut short")
		}
		c.Op = Op(buf[p+1])
		p += 2
	}
	if tagAt(buf, p) == tagCellTimestamp {
		if len(buf)-p < 1+8 {
			return 0, syntaxError(p+1, "timestamp cut short")
		}
		c.Timestamp = int64(binary.LittleEndian.Uint64(buf[p+1:]))
		c.HasTimestamp = true
		p += 1 + 8
	}
	if tagAt(buf, p) != tagCellChecksum || len(buf)-p < 2 {
		return 0, syntaxError(p, "no cell checksum")
	}
	if !verify {
		return p + 2, nil
	}
	sum := crc(0).bytes(name).bytes(buf[valueAt:valueEnd])
	if c.HasTimestamp {
		sum = sum.uint64(uint64(c.Timestamp))
	}
	if hasOp {
		sum = sum.byte(byte(c.Op))
	}
	if computed := sum.sum(); buf[p+1] != computed {
		return 0, &ChecksumError{Offset: p + 1, Part: "cell", Stored: buf[p+1], Computed: computed}
	}
	return p + 2, nil
}

// decodeBytes decodes a length and that many bytes.
func decodeBytes(buf []byte, p int) ([]byte, int, error) {
	if len(buf)-p < 4 {
		return nil, 0, syntaxError(p, "length cut short")
	}
	n := binary.LittleEndian.Uint32(buf[p:])
	if uint64(n) > uint64(len(buf)-p-4) {
		return nil, 0, syntaxError(p, "length %d exceeds the buffer", n)
	}
	p += 4
	return buf[p : p+int(n)], p + int(n), nil
}

// decodeValue decodes a type byte and its payload.
func decodeValue(buf []byte, p int) (v Value, next int, err error) {
	if p >= len(buf) {
		return Value{}, 0, syntaxError(p, "no value type")
	}
	v.kind = Kind(buf[p])
	p++
	switch v.kind {
	case Integer, Double:
		if len(buf)-p < 8 {
			return Value{}, 0, syntaxError(p, "number cut short")
		}
		v.num = binary.LittleEndian.Uint64(buf[p:])
		return v, p + 8, nil
	case Boolean:
		if len(buf)-p < 1 {
			return Value{}, 0, syntaxError(p, "boolean cut short")
		}
		// Any byte but 0 is true, as in the official SDKs.
		if buf[p] != 0 {
			v.num = 1
		}
		return v, p + 1, nil
	case String, Binary:
		b, p, err := decodeBytes(buf, p)
		if err != nil {
			return Value{}, 0, err
		}
		v.data = view(b)
		return v, p, nil
	case Null, InfMin, InfMax, AutoIncrement:
		return v, p, nil
	}
	return Value{}, 0, syntaxError(p-1, "unknown value type 0x%02x", byte(v.kind))
}

// decodeExtension decodes the extension whose tag is at buf[p].
//
// Neither official SDK checks the length of the extension or of the sequence: only
// the tags delimit them. The same holds here, so that a tunnel that the SDKs can read
// does not stop here. Only unknown parts are skipped by their length; their tags are
// higher than the known ones.
func decodeExtension(buf []byte, p int) (seq Sequence, hasSequence bool, next int, err error) {
	if len(buf)-p < 1+4 {
		return seq, false, 0, syntaxError(p+1, "length cut short")
	}
	p += 1 + 4
	for {
		switch tag := tagAt(buf, p); {
		case tag == tagSequence && !hasSequence:
			s := p + 1 + 4
			if len(buf)-p < 1+4+sequenceSize {
				return seq, false, 0, syntaxError(p, "sequence cut short")
			}
			if buf[s] != tagSequenceEpoch || buf[s+5] != tagSequenceTimestamp || buf[s+14] != tagSequenceRowIndex {
				return seq, false, 0, syntaxError(s, "sequence with other tags than epoch, timestamp, row index")
			}
			hasSequence = true
			seq = Sequence{
				Epoch:     int32(binary.LittleEndian.Uint32(buf[s+1:])),
				Timestamp: int64(binary.LittleEndian.Uint64(buf[s+6:])),
				RowIndex:  int32(binary.LittleEndian.Uint32(buf[s+15:])),
			}
			p = s + sequenceSize
		case tag > tagSequenceRowIndex:
			if _, p, err = decodeBytes(buf, p+1); err != nil {
				return seq, false, 0, err
			}
		default:
			return seq, hasSequence, p, nil
		}
	}
}

func syntaxError(offset int, format string, args ...any) error {
	return &SyntaxError{Offset: offset, Msg: fmt.Sprintf(format, args...)}
}
