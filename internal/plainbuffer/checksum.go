package plainbuffer

import "encoding/binary"

// PlainBuffer's checksum is CRC-8 with polynomial 0x07, initial value 0, neither
// reflected nor inverted. One table lookup a byte makes each byte wait for the
// one before, about five cycles. crcTables[k][b] is the checksum of b followed by
// k zero bytes; because a CRC is linear, the checksum of eight bytes is the xor
// of eight independent lookups ("slicing by eight"), which the CPU overlaps.
var crcTables = makeCRCTables()

func makeCRCTables() (t [8][256]byte) {
	for i := range t[0] {
		x := byte(i)
		for range 8 {
			carry := x >> 7
			x = x<<1 ^ carry*0x07
		}
		t[0][i] = x
	}
	for k := 1; k < len(t); k++ {
		for i := range t[k] {
			t[k][i] = t[0][t[k-1][i]]
		}
	}
	return t
}

// crcByte continues crc with one byte.
func crcByte(crc, b byte) byte { return crcTables[0][crc^b] }

// crcUint64 continues crc with the eight bytes of x, lowest first.
func crcUint64(crc byte, x uint64) byte {
	t := &crcTables
	x ^= uint64(crc)
	return t[7][byte(x)] ^ t[6][byte(x>>8)] ^ t[5][byte(x>>16)] ^ t[4][byte(x>>24)] ^
		t[3][byte(x>>32)] ^ t[2][byte(x>>40)] ^ t[1][byte(x>>48)] ^ t[0][byte(x>>56)]
}

// crcUint32 continues crc with the four bytes of x, lowest first.
func crcUint32(crc byte, x uint32) byte {
	t := &crcTables
	x ^= uint32(crc)
	return t[3][byte(x)] ^ t[2][byte(x>>8)] ^ t[1][byte(x>>16)] ^ t[0][byte(x>>24)]
}

// crcBytes continues crc with b.
func crcBytes(crc byte, b []byte) byte {
	for len(b) >= 8 {
		crc = crcUint64(crc, binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	if len(b) >= 4 {
		crc = crcUint32(crc, binary.LittleEndian.Uint32(b))
		b = b[4:]
	}
	for _, x := range b {
		crc = crcByte(crc, x)
	}
	return crc
}
