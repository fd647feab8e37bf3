package ots

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"
	"unsafe"
)

// KeyText is the primary key as a JSON array of its values, in key order, such
// as ["u1",7]: the form in metadata, logs and dead letters.
func (r *Record) KeyText() string {
	return string(r.AppendKeyText(make([]byte, 0, 48)))
}

// AppendKeyText appends what KeyText returns to b.
func (r *Record) AppendKeyText(b []byte) []byte {
	b = append(b, '[')
	for i := range r.PrimaryKey {
		if i > 0 {
			b = append(b, ',')
		}
		b = r.PrimaryKey[i].Value.AppendJSON(b)
	}
	return append(b, ']')
}

// AppendJSON appends v as JSON to b: integers exactly, binary in base64 (standard
// alphabet, padded), doubles that JSON cannot hold as the strings "NaN", "Infinity" and
// "-Infinity", bytes of a string that are not UTF-8 as U+FFFD, the zero Value as null.
func (v Value) AppendJSON(b []byte) []byte {
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
// and & are not escaped, because payloads are not HTML.
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

// plainPrefix returns how many bytes at the start of s certainly need no escape. It
// checks eight bytes at a time.
func plainPrefix(s string) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x80 * ones
	)
	n := 0
	for ; len(s)-n >= 8; n += 8 {
		w := binary.LittleEndian.Uint64(unsafe.Slice(unsafe.StringData(s[n:]), 8))
		quote, backslash := w^'"'*ones, w^'\\'*ones
		// Subtracting c sets the high bit of bytes below c. A borrow may set it for the
		// next byte too: plain bytes may take the slow path, never the reverse.
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
