package subscriber

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"github.com/ThreeDotsLabs/watermill/message"
)

// JSON is the default Unmarshaler. Its payload is one JSON object:
//
//	{
//	  "type": "update",                    put, update or delete
//	  "key": {"id": 7, "region": "eu"},    primary key columns, in key order
//	  "columns": {"amount": 12.5},         newest value written to each column
//	  "deleted": ["note"],                 columns removed
//	  "deleted_versions": [{"column": "n", "timestamp": 1700000000000}],
//	  "origin": {"amount": 11},            values before the change
//	  "timestamp": 1700000000123456,       µs since 1970
//	  "sequence": "00000000:00060a24182d2240:00000002"
//	}
//
// type, key and columns are always there, the rest only when there is something
// to say; base data has no timestamp and no sequence. Integers are exact (use
// json.Number where they may exceed 2^53), binary values are base64 (standard
// alphabet, padded), doubles that JSON cannot hold are the strings "NaN",
// "Infinity" and "-Infinity", and bytes of a string that are no UTF-8 become U+FFFD.
type JSON struct{}

var _ Unmarshaler = JSON{}

// Unmarshal makes a message with the JSON payload and the metadata of this package. It never fails.
func (JSON) Unmarshal(r *Record) (*message.Message, error) {
	// One piece of memory holds the payload and, behind its capacity, the texts of the metadata.
	b := appendRecord(make([]byte, 0, sizeHint(r)), r)
	msg := message.NewMessage("", b[:len(b):len(b)])
	setMetadataIn(msg, r, b)
	return msg, nil
}

// sizeHint is what a record's payload and its metadata need, unless there is
// much to escape.
func sizeHint(r *Record) int {
	const (
		fixed  = 136 // all but keys and cells
		quotes = 6   // around and between a name and its value
	)
	n := fixed
	for i := range r.PrimaryKey {
		n += len(r.PrimaryKey[i].Name) + 2*(r.PrimaryKey[i].Value.textSize()+quotes) // payload and metadata
	}
	for _, cells := range [...][]Cell{r.Columns, r.Origin} {
		for i := range cells {
			n += len(cells[i].Name) + cells[i].Value.textSize() + quotes
		}
	}
	return n
}

// textSize is about how many bytes v takes in JSON.
func (v Value) textSize() int {
	switch v.kind {
	case KindString:
		return len(v.data)
	case KindBinary:
		return base64.StdEncoding.EncodedLen(len(v.data))
	}
	return 20 // of the longest integer
}

func appendRecord(b []byte, r *Record) []byte {
	b = appendUpToKey(b, r.Type)
	for i := range r.PrimaryKey {
		b = appendNamed(b, i == 0, r.PrimaryKey[i].Name, r.PrimaryKey[i].Value)
	}
	b = append(b, keyUpToColumns...)
	b = appendNewest(b, r.Columns)
	b = append(b, '}')
	if hasType(r.Columns, CellDeleteAllVersions) {
		b = append(b, `,"deleted":[`...)
		b = appendDeleted(b, r.Columns)
		b = append(b, ']')
	}
	if hasType(r.Columns, CellDeleteOneVersion) {
		b = append(b, `,"deleted_versions":[`...)
		b = appendDeletedVersions(b, r.Columns)
		b = append(b, ']')
	}
	if len(r.Origin) > 0 {
		b = append(b, `,"origin":{`...)
		b = appendNewest(b, r.Origin)
		b = append(b, '}')
	}
	b = appendSequence(b, r.Sequence)
	return append(b, '}')
}

// keyUpToColumns stands between the members of "key" and those of "columns".
const keyUpToColumns = `},"columns":{`

// appendUpToKey writes all that stands before the members of "key".
func appendUpToKey(b []byte, t RecordType) []byte {
	b = append(b, `{"type":"`...)
	b = append(b, t.String()...)
	return append(b, `","key":{`...)
}

// appendSequence writes the members "timestamp" and "sequence", with a comma
// before each; base data has none.
func appendSequence(b []byte, s Sequence) []byte {
	if s.IsZero() {
		return b
	}
	b = append(b, `,"timestamp":`...)
	b = strconv.AppendInt(b, s.Timestamp, 10)
	b = append(b, `,"sequence":"`...)
	b = appendHex(b, uint64(uint32(s.Epoch)), 8)
	b = append(b, ':')
	b = appendHex(b, uint64(s.Timestamp), 16)
	b = append(b, ':')
	b = appendHex(b, uint64(uint32(s.RowIndex)), 8)
	return append(b, '"')
}

func hasType(cells []Cell, t CellType) bool {
	for i := range cells {
		if cells[i].Type == t {
			return true
		}
	}
	return false
}

// wideRow is from how many cells on a map beats looking back.
const wideRow = 32

// appendNewest writes each put column once, with its newest version, at the
// place of its first cell.
func appendNewest(b []byte, cells []Cell) []byte {
	if ascending(cells) {
		first := true
		for i := range cells {
			if cells[i].Type == CellPut {
				b = appendMember(b, &first, &cells[i])
			}
		}
		return b
	}
	if len(cells) >= wideRow {
		return appendNewestOfMany(b, cells)
	}
	first := true
	for i := range cells {
		if cells[i].Type != CellPut || seenBefore(cells, i) {
			continue
		}
		best := i
		for j := i + 1; j < len(cells); j++ {
			if cells[j].Type == CellPut && cells[j].Timestamp > cells[best].Timestamp && cells[j].Name == cells[i].Name {
				best = j
			}
		}
		b = appendMember(b, &first, &cells[best])
	}
	return b
}

// ascending reports whether no column has more than one cell because their
// names grow from cell to cell, as is usual.
func ascending(cells []Cell) bool {
	for i := 1; i < len(cells); i++ {
		if cells[i-1].Name >= cells[i].Name {
			return false
		}
	}
	return true
}

func appendNewestOfMany(b []byte, cells []Cell) []byte {
	newest := make(map[string]*Cell, len(cells)) // of the columns that are not written yet
	for i := range cells {
		c := &cells[i]
		if best := newest[c.Name]; c.Type == CellPut && (best == nil || c.Timestamp > best.Timestamp) {
			newest[c.Name] = c
		}
	}
	first := true
	for i := range cells {
		if best := newest[cells[i].Name]; best != nil && cells[i].Type == CellPut {
			b = appendMember(b, &first, best)
			delete(newest, best.Name)
		}
	}
	return b
}

func appendMember(b []byte, first *bool, c *Cell) []byte {
	b = appendNamed(b, *first, c.Name, c.Value)
	*first = false
	return b
}

// appendNamed writes a member of an object.
func appendNamed(b []byte, first bool, name string, v Value) []byte {
	if !first {
		b = append(b, ',')
	}
	b = appendString(b, name)
	b = append(b, ':')
	return appendValue(b, v)
}

func seenBefore(cells []Cell, i int) bool {
	for j := range cells[:i] {
		if cells[j].Type == CellPut && cells[j].Name == cells[i].Name {
			return true
		}
	}
	return false
}

func appendDeleted(b []byte, cells []Cell) []byte {
	first := true
	for i := range cells {
		if cells[i].Type != CellDeleteAllVersions {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendString(b, cells[i].Name)
	}
	return b
}

func appendDeletedVersions(b []byte, cells []Cell) []byte {
	first := true
	for i := range cells {
		if cells[i].Type != CellDeleteOneVersion {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, `{"column":`...)
		b = appendString(b, cells[i].Name)
		b = append(b, `,"timestamp":`...)
		b = strconv.AppendInt(b, cells[i].Timestamp, 10)
		b = append(b, '}')
	}
	return b
}

// appendKey writes the primary key's values as a JSON array.
func appendKey(b []byte, key []Column) []byte {
	b = append(b, '[')
	for i := range key {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendValue(b, key[i].Value)
	}
	return append(b, ']')
}

func appendValue(b []byte, v Value) []byte {
	switch v.kind {
	case KindInteger:
		return strconv.AppendInt(b, int64(v.num), 10)
	case KindDouble:
		return appendDouble(b, math.Float64frombits(v.num))
	case KindBoolean:
		return strconv.AppendBool(b, v.num == 1)
	case KindString:
		return appendString(b, v.data)
	case KindBinary:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, unsafe.Slice(unsafe.StringData(v.data), len(v.data)))
		return append(b, '"')
	}
	return append(b, "null"...)
}

func appendDouble(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(b, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(b, `"-Infinity"`...)
	}
	// The format of encoding/json (ES6): exponents only where plain digits would be long.
	if abs := math.Abs(f); abs == 0 || abs >= 1e-6 && abs < 1e21 {
		return strconv.AppendFloat(b, f, 'f', -1, 64)
	}
	b = strconv.AppendFloat(b, f, 'e', -1, 64)
	if n := len(b); b[n-4] == 'e' && b[n-2] == '0' { // e-09 is e-9 there
		b[n-2] = b[n-1]
		b = b[:n-1]
	}
	return b
}

const hexDigits = "0123456789abcdef"

func appendHex(b []byte, v uint64, digits int) []byte {
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		b = append(b, hexDigits[v>>shift&0xf])
	}
	return b
}

// appendString writes s as encoding/json does with SetEscapeHTML(false): <, >
// and & are left alone, as payloads are no HTML.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := plainPrefix(s); i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			b = append(b, s[start:i]...)
			b = appendEscaped(b, c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		// U+2028 and U+2029 are escaped as in encoding/json: JavaScript took them for line ends.
		if r == utf8.RuneError && size == 1 || r == '\u2028' || r == '\u2029' {
			b = append(b, s[start:i]...)
			b = append(b, `\u`...)
			b = appendHex(b, uint64(r), 4)
			i += size
			start = i
			continue
		}
		i += size
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// plainPrefix returns how many bytes at the start of s are certain to need no
// escape: it looks at eight at once.
func plainPrefix(s string) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x80 * ones
	)
	n := 0
	for ; len(s)-n >= 8; n += 8 {
		w := binary.LittleEndian.Uint64(unsafe.Slice(unsafe.StringData(s[n:]), 8))
		quote, backslash := w^'"'*ones, w^'\\'*ones
		// Of bytes up to 0x7f, those below c get a high bit by subtracting c, and lend
		// to the next one: that may send plain bytes the slow way, never the reverse.
		if (w|(w-' '*ones)|(quote-ones)|(backslash-ones))&highs != 0 {
			break
		}
	}
	return n
}

func appendEscaped(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\b':
		return append(b, '\\', 'b')
	case '\f':
		return append(b, '\\', 'f')
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	case '\t':
		return append(b, '\\', 't')
	}
	b = append(b, `\u00`...)
	return append(b, hexDigits[c>>4], hexDigits[c&0xf])
}
