package tables

import (
	"bytes"
	"fmt"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// header begins every PlainBuffer.
var header = plainbuffer.AppendHeader(nil)

// decodeRow decodes the row of a request: a header, one row, and zero bytes,
// which the Node.js SDK sends because it overestimates the size of some rows.
// The row keeps views of b.
func decodeRow(b []byte, row *plainbuffer.Row) error {
	rest, ok := bytes.CutPrefix(b, header)
	if !ok {
		return fmt.Errorf("no PlainBuffer header in %d bytes", len(b))
	}
	n, err := plainbuffer.DecodeRow(rest, row)
	if err != nil {
		return err
	}
	if len(bytes.Trim(rest[n:], "\x00")) > 0 {
		return fmt.Errorf("data after the row, at offset %d", len(header)+n)
	}
	return nil
}
