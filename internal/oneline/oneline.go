// Package oneline makes foreign texts, such as codes and messages of a service, safe
// to show in a log, a label, a page or a terminal.
package oneline

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text returns text as one line of valid UTF-8: unprintable characters and invalid bytes
// are escaped as in Go. The result is cut at limit bytes, or up to 3 earlier, and ends
// with an ellipsis if it was cut.
func Text(text string, limit int) string {
	if isPlain(text) {
		if len(text) <= limit {
			return text
		}
		return cut(text, limit) + "…"
	}
	var b strings.Builder
	for at := 0; at < len(text); {
		r, size := utf8.DecodeRuneInString(text[at:])
		shown := text[at : at+size]
		if !unicode.IsPrint(r) || r == utf8.RuneError && size == 1 {
			quoted := strconv.Quote(shown)
			shown = quoted[1 : len(quoted)-1]
		}
		if b.Len()+len(shown) > limit {
			return b.String() + "…"
		}
		b.WriteString(shown)
		at += size
	}
	return b.String()
}

// isPlain reports whether text already is one line of valid UTF-8.
func isPlain(text string) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c >= 0x7f {
			return isPlainUnicode(text)
		}
	}
	return true
}

func isPlainUnicode(text string) bool {
	for _, r := range text {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return false
		}
	}
	return true
}

// cut returns the first limit bytes of text, or up to 3 less so as not to cut a character in two.
func cut(text string, limit int) string {
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}
