package ots

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// standard encodes with encoding/json, without escaping HTML.
func standard(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func FuzzAppendJSON_strings_are_those_of_the_standard_library(f *testing.F) {
	var all strings.Builder
	for r := range rune(0x2100) {
		all.WriteRune(r)
	}
	for _, s := range []string{"", "a", `"\/`, "\x00\x1f\x7f\b\f\n\r\t", "<>&", "\u2028\u2029\ufffd", "\xff\xc3", "a\xe2\x80", "😀", all.String()} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := string(StringValue(s).AppendJSON(nil))
		if want := standard(s); got != want {
			t.Errorf("%q became %s, encoding/json has %s", s, got, want)
		}
		var back string
		if err := json.Unmarshal([]byte(got), &back); err != nil || utf8.ValidString(s) && back != s {
			t.Errorf("%q came back as %q, %v", s, back, err)
		}
	})
}

func TestAppendJSON_doubles_are_those_of_the_standard_library(t *testing.T) {
	check := func(t interface{ Errorf(string, ...any) }, f float64) {
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return
		}
		got := string(DoubleValue(f).AppendJSON(nil))
		if want := standard(f); got != want {
			t.Errorf("%b became %s, encoding/json has %s", f, got, want)
		}
		var back float64
		if err := json.Unmarshal([]byte(got), &back); err != nil || math.Float64bits(back) != math.Float64bits(f) {
			t.Errorf("%b came back as %b, %v", f, back, err)
		}
	}
	for _, f := range []float64{0, math.Copysign(0, -1), 1, 1e20, 1e21, 1e22, 1e-6, 1e-7, 9.99e-7, 1e-10, 1e100, -1e-9, math.MaxFloat64, math.SmallestNonzeroFloat64, 1 << 53} {
		check(t, f)
	}
	rapid.Check(t, func(t *rapid.T) { check(t, math.Float64frombits(rapid.Uint64().Draw(t, "bits"))) })
}
