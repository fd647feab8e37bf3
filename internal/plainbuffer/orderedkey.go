package plainbuffer

import (
	"encoding/binary"
	"math"
	"strings"
)

// AppendOrderedKey appends an encoding of a primary key whose bytes.Compare
// order is the key order: column by column, each as Value.Compare orders it. A
// key that is a prefix of another comes first. InfMin and InfMax may stand in
// any column, so bounds of a range are encoded like keys. Names are not encoded. The
// encoding is for an index in a store; it is not part of PlainBuffer.
//
// Each column is a byte for its kind's rank, then
//
//	Integer          big-endian with the sign bit flipped
//	Double           big-endian bits, flipped so that they sort as numbers
//	Boolean          0 or 1
//	String, Binary   the bytes, 0x00 written as 0x00 0xFF, ended by 0x00 0x00
func AppendOrderedKey(dst []byte, key []Cell) []byte {
	for i := range key {
		v := key[i].Value
		dst = append(dst, rank(v.kind))
		switch v.kind {
		case Integer:
			dst = binary.BigEndian.AppendUint64(dst, v.num^1<<63)
		case Double:
			dst = binary.BigEndian.AppendUint64(dst, orderedDouble(v.Double()))
		case Boolean:
			dst = append(dst, byte(v.num))
		case String, Binary:
			dst = appendEscaped(dst, v.data)
		}
	}
	return dst
}

// appendEscaped appends s so that no encoded string is a prefix of another and
// the end of a string sorts before any continuation of it.
func appendEscaped(dst []byte, s string) []byte {
	for {
		i := strings.IndexByte(s, 0)
		if i < 0 {
			break
		}
		dst = append(dst, s[:i]...)
		dst = append(dst, 0x00, 0xFF)
		s = s[i+1:]
	}
	dst = append(dst, s...)
	return append(dst, 0x00, 0x00)
}

// orderedDouble maps f to a number that sorts as cmp.Compare sorts f. NaN maps to
// zero: the bits that would map to it are a NaN's.
func orderedDouble(f float64) uint64 {
	if f != f {
		return 0
	}
	bits := math.Float64bits(f + 0) // -0 + 0 is +0
	if bits>>63 != 0 {
		return ^bits
	}
	return bits | 1<<63
}
