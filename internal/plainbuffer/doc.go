// Package plainbuffer reads and writes Tablestore's PlainBuffer row format.
//
// Decoded names and values are views into the buffer that was decoded: nothing
// is copied, so the buffer must not be changed while a Row, Cell or Value that
// came from it is in use. Views keep the buffer in memory. Encoders append to a slice
// that the caller owns. The functions keep no state and start no goroutine: calls that
// do not share a Row or a destination may run concurrently.
//
// # What is accepted
//
// Everything that the official Go and Java SDKs write. Reading is slightly stricter than
// in the SDKs: a checksum that does not match, a value whose total length contradicts
// its payload, a value of unknown kind, a primary key column without a value and bytes
// after a single row are errors here. A missing primary key, unknown parts of the
// extension and unknown cell types are not.
//
// All numbers on the wire are little-endian; there is no varint and no
// alignment. Checksums are CRC-8 with polynomial 0x07.
package plainbuffer
