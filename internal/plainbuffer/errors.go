package plainbuffer

import (
	"errors"
	"fmt"
)

// ErrChecksum is matched by every *ChecksumError.
var ErrChecksum = errors.New("plainbuffer: checksum mismatch")

// SyntaxError reports that a buffer is not valid PlainBuffer: a misplaced tag, a
// length that does not fit, an unknown kind of value, missing or surplus bytes.
type SyntaxError struct {
	Offset int // of the first offending byte in the buffer that was decoded
	Msg    string
}

// Error returns the message with its offset.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("plainbuffer: %s at offset %d", e.Msg, e.Offset)
}

// ChecksumError reports that a cell or row is well formed but was corrupted.
// errors.Is(err, ErrChecksum) matches it.
type ChecksumError struct {
	Offset   int    // of the stored checksum in the buffer that was decoded
	Part     string // "cell" or "row"
	Stored   byte
	Computed byte
}

// Error returns the part that is damaged, both checksums and the offset.
func (e *ChecksumError) Error() string {
	return fmt.Sprintf("%v of a %s at offset %d: stored 0x%02x, computed 0x%02x",
		ErrChecksum, e.Part, e.Offset, e.Stored, e.Computed)
}

// Unwrap returns ErrChecksum.
func (e *ChecksumError) Unwrap() error { return ErrChecksum }
