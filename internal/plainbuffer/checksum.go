package plainbuffer

import (
	"encoding/binary"
	"math/bits"
)

// crc is the running CRC-8 of PlainBuffer: polynomial 0x07, initial value 0,
// neither reflected nor inverted. The zero crc is the one of zero bytes.
//
// The checksum of a string of bytes is the string, read as a polynomial over
// GF(2) with the first byte's high bit leading, times x^8, modulo
// P = x^8 + x^2 + x + 1. A crc holds the string modulo P without the x^8, and
// not fully reduced: appending n bytes to a string multiplies it by x^8n, and
// squaring x^8 = x^2 + x + 1 gives sparse forms of the powers that matter,
//
//	x^16 = x^4 + x^2 + 1    x^32 = x^8 + x^4 + 1    x^64 = x^16 + x^8 + 1   (mod P)
//
// so that eight bytes cost a few shifts and one fold. With the usual table lookup for
// each byte, every byte has to wait for the previous one.
//
// Invariant: a crc is below 2^40, so that three bytes, or the factors x^32 and x^64 in
// the forms above, do not overflow.
type crc uint64

// fold brings a polynomial of any degree below 64 back under 2^40.
func fold(c uint64) crc {
	high := c >> 32
	return crc(high<<8 ^ high<<4 ^ high ^ c&(1<<32-1))
}

// byte appends one byte.
func (c crc) byte(b byte) crc { return fold(uint64(c)<<8 ^ uint64(b)) }

// uint64 appends the eight bytes of x, lowest first.
func (c crc) uint64(x uint64) crc {
	s := uint64(c)
	return fold(s<<16 ^ s<<8 ^ s ^ bits.ReverseBytes64(x))
}

// bytes appends b.
func (c crc) bytes(b []byte) crc {
	for len(b) >= 8 {
		c = c.uint64(binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	s := uint64(c)
	if len(b) >= 4 {
		s = uint64(fold(s<<8 ^ s<<4 ^ s ^ uint64(binary.BigEndian.Uint32(b))))
		b = b[4:]
	}
	for _, x := range b { // at most three
		s = s<<8 ^ uint64(x)
	}
	return fold(s)
}

// sum returns the checksum of the bytes appended so far.
func (c crc) sum() byte {
	s := uint64(c.byte(0)) // times x^8: below 2^32
	high := s >> 16
	s = high<<4 ^ high<<2 ^ high ^ s&0xFFFF // below 2^20
	high = s >> 8
	s = high<<2 ^ high<<1 ^ high ^ s&0xFF // below 2^14
	high = s >> 8
	return byte(high<<2 ^ high<<1 ^ high ^ s)
}
