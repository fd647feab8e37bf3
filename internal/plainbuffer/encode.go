package plainbuffer

import "encoding/binary"

// AppendHeader appends the four bytes that begin every buffer of rows.
func AppendHeader(dst []byte) []byte {
	return binary.LittleEndian.AppendUint32(dst, header)
}

// AppendRow appends one row, checksums included, without a header. The primary
// key's tag is written even when there is no key, as in the old image of a
// change, because the official Go SDK refuses a tunnel record without it. Names
// and payloads must be shorter than 4 GiB, the limit of the format.
func AppendRow(dst []byte, row *Row) []byte {
	var sum crc
	dst = append(dst, tagRowPK)
	for i := range row.PrimaryKey {
		dst = appendCell(dst, &row.PrimaryKey[i])
		sum = sum.byte(dst[len(dst)-1])
	}
	if len(row.Cells) > 0 {
		dst = append(dst, tagRowData)
		for i := range row.Cells {
			dst = appendCell(dst, &row.Cells[i])
			sum = sum.byte(dst[len(dst)-1])
		}
	}
	var deleted byte
	if row.Delete {
		dst = append(dst, tagDeleteRow)
		deleted = 1
	}
	if row.HasSequence {
		dst = appendSequence(dst, row.Sequence)
	}
	return append(dst, tagRowChecksum, sum.byte(deleted).sum())
}

// AppendPrimaryKey appends a whole buffer, header included, with one row that is
// only a primary key: the form of GetRow's key and of GetRange's bounds.
func AppendPrimaryKey(dst []byte, key []Cell) []byte {
	return AppendRow(AppendHeader(dst), &Row{PrimaryKey: key})
}

// AppendVariant appends a value in the form that filters, conditions and
// partition ranges use: as in a cell, but without the total length.
func AppendVariant(dst []byte, v Value) []byte {
	dst = append(dst, byte(v.kind))
	switch v.kind {
	case Integer, Double:
		dst = binary.LittleEndian.AppendUint64(dst, v.num)
	case Boolean:
		dst = append(dst, byte(v.num))
	case String, Binary:
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(v.data)))
		dst = append(dst, v.data...)
	}
	return dst
}

// appendCell appends one cell; its last byte is the cell's checksum.
func appendCell(dst []byte, c *Cell) []byte {
	dst = append(dst, tagCell, tagCellName)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(c.Name)))
	start := len(dst)
	dst = append(dst, c.Name...)
	sum := crc(0).bytes(dst[start:])
	if c.HasValue {
		dst = append(dst, tagCellValue, 0, 0, 0, 0)
		start = len(dst)
		dst = AppendVariant(dst, c.Value)
		binary.LittleEndian.PutUint32(dst[start-4:], uint32(len(dst)-start))
		sum = sum.bytes(dst[start:])
	}
	// The type precedes the timestamp on the wire and follows it in the checksum.
	if c.Op != Put {
		dst = append(dst, tagCellType, byte(c.Op))
	}
	if c.HasTimestamp {
		dst = append(dst, tagCellTimestamp)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(c.Timestamp))
		sum = sum.uint64(uint64(c.Timestamp))
	}
	if c.Op != Put {
		sum = sum.byte(byte(c.Op))
	}
	return append(dst, tagCellChecksum, sum.sum())
}

// appendSequence appends the extension that places a stream record. Row
// checksums do not cover it.
func appendSequence(dst []byte, s Sequence) []byte {
	dst = append(dst, tagExtension)
	dst = binary.LittleEndian.AppendUint32(dst, 1+4+sequenceSize)
	dst = append(dst, tagSequence)
	dst = binary.LittleEndian.AppendUint32(dst, sequenceSize)
	dst = append(dst, tagSequenceEpoch)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(s.Epoch))
	dst = append(dst, tagSequenceTimestamp)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.Timestamp))
	dst = append(dst, tagSequenceRowIndex)
	return binary.LittleEndian.AppendUint32(dst, uint32(s.RowIndex))
}
