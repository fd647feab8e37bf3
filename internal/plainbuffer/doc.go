// Package plainbuffer reads and writes Tablestore's PlainBuffer row format.
//
// Decoded names and values are views into the buffer that was decoded: nothing
// is copied, so the buffer must not be changed while a Row, Cell or Value that
// came from it is in use. Views keep the buffer reachable for the garbage
// collector. Encoders append to a slice that the caller owns.
//
// All numbers on the wire are little-endian; there is no varint and no
// alignment. Checksums are CRC-8 with polynomial 0x07.
package plainbuffer
