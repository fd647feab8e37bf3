package oneline_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/watermill-ots/watermill-ots/internal/oneline"
)

func TestText(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"OTSServerBusy", "OTSServerBusy"},
		{`"quotes" and \`, `"quotes" and \`},
		{"服务忙", "服务忙"},
		{"two\nlines\r", `two\nlines\r`},
		{"a\x00b", `a\x00b`},
		{"\xff\xfe", `\xff\xfe`},
		{"\x1b[31m", `\x1b[31m`},
		{"\u202egnp", `\u202egnp`}, // reverses the text
		{"�", "�"},
		{strings.Repeat("a", 20), strings.Repeat("a", 20)},
		{strings.Repeat("a", 21), strings.Repeat("a", 20) + "…"},
		{strings.Repeat("é", 11), strings.Repeat("é", 10) + "…"},
		{"a" + strings.Repeat("é", 10), "a" + strings.Repeat("é", 9) + "…"},
		{strings.Repeat("\xff", 21), strings.Repeat(`\xff`, 5) + "…"},
		{"é\n" + strings.Repeat("é", 10), `é\n` + strings.Repeat("é", 8) + "…"},
	} {
		if got := oneline.Text(c.text, 20); got != c.want {
			t.Errorf("%q became %q, want %q", c.text, got, c.want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("a\x00b\xffé\n", 5)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = max(0, limit%1000)
		got := oneline.Text(text, limit)
		if !utf8.ValidString(got) || len(got) > limit+len("…") || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q became %q", text, got)
		}
	})
}
