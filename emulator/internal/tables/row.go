package tables

import (
	"bytes"
	"fmt"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// header begins every PlainBuffer.
var header = plainbuffer.AppendHeader(nil)

// dataSize is the amount of data in a row as the service counts it: names and
// values of its primary key and its columns.
func dataSize(row *plainbuffer.Row) int {
	size := 0
	for i := range row.PrimaryKey {
		size += cellSize(&row.PrimaryKey[i])
	}
	for i := range row.Cells {
		size += cellSize(&row.Cells[i])
	}
	return size
}

// versionsSize is what the row's timestamps add to the size of a request.
func versionsSize(row *plainbuffer.Row) int {
	size := 0
	for i := range row.Cells {
		if row.Cells[i].HasTimestamp {
			size += 8
		}
	}
	return size
}

func cellSize(c *plainbuffer.Cell) int {
	size := len(c.Name)
	if !c.HasValue {
		return size
	}
	switch c.Value.Kind() {
	case plainbuffer.Integer, plainbuffer.Double, plainbuffer.AutoIncrement:
		return size + 8
	case plainbuffer.Boolean:
		return size + 1
	case plainbuffer.String, plainbuffer.Binary:
		return size + len(c.Value.Str())
	}
	return size
}

// keylessRow encodes a row of cells without the primary key's tag: the Java SDK
// refuses that tag if no key follows.
func keylessRow(cells []plainbuffer.Cell) []byte {
	b := plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), &plainbuffer.Row{Cells: cells})
	return append(b[:len(header)], b[len(header)+1:]...) // the checksum covers cells only
}

// decodeRow decodes the row of a request: a header, one row, and zero bytes,
// which the Node.js SDK sends because it overestimates the size of some rows.
// The row contains views of b.
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
