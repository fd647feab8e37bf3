package subscriber

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// payloads are the examples of docs/payload.md, by their headings there. They
// are what a consumer may rely on: a change of one breaks somebody.
var payloads = map[string]*Record{
	"A row of the base data": {
		Type: Put, PrimaryKey: []Column{{"id", IntegerValue(7)}, {"region", StringValue("eu")}},
		Columns: []Cell{{Name: "amount", Value: DoubleValue(12.5), Timestamp: 1700000000000}, {Name: "paid", Value: BooleanValue(true), Timestamp: 1700000000000}},
	},
	"A put": {
		Type: Put, PrimaryKey: []Column{{"id", IntegerValue(7)}, {"region", StringValue("eu")}},
		Columns:  []Cell{{Name: "amount", Value: DoubleValue(12.5), Timestamp: 1700000000000}, {Name: "note", Value: StringValue("größer als 5 < 6"), Timestamp: 1700000000000}},
		Sequence: Sequence{1, 1700000000123456, 2},
	},
	"An update": {
		Type: Update, PrimaryKey: []Column{{"id", IntegerValue(7)}, {"region", StringValue("eu")}},
		Columns: []Cell{
			{Name: "amount", Value: DoubleValue(11), Timestamp: 1700000001000},
			{Name: "amount", Value: DoubleValue(13), Timestamp: 1700000002000},
			{Name: "note", Type: CellDeleteAllVersions},
			{Name: "price", Type: CellDeleteOneVersion, Timestamp: 1700000000000},
		},
		Origin:   []Cell{{Name: "amount", Value: DoubleValue(12.5), Timestamp: 1700000000000}},
		Sequence: Sequence{1, 1700000002123456, 0},
	},
	"A delete": {
		Type: Delete, PrimaryKey: []Column{{"id", IntegerValue(7)}, {"region", StringValue("eu")}}, Sequence: Sequence{1, 1700000003123456, 0},
	},
	"Values": {
		Type: Put, PrimaryKey: []Column{{"key", BinaryValue([]byte{0, 1, 0xfe, 0xff})}},
		Columns: []Cell{
			{Name: "least", Value: IntegerValue(math.MinInt64)}, {Name: "greatest", Value: IntegerValue(math.MaxInt64)},
			{Name: "double", Value: DoubleValue(0.1)}, {Name: "whole", Value: DoubleValue(3)}, {Name: "large", Value: DoubleValue(1e21)}, {Name: "small", Value: DoubleValue(-1e-7)},
			{Name: "nan", Value: DoubleValue(math.NaN())}, {Name: "infinity", Value: DoubleValue(math.Inf(1))}, {Name: "minus infinity", Value: DoubleValue(math.Inf(-1))},
			{Name: "yes", Value: BooleanValue(true)}, {Name: "string", Value: StringValue("a \"quote\",\na line")}, {Name: "no UTF-8", Value: StringValue("a\xffb")},
			{Name: "binary", Value: BinaryValue([]byte("any bytes"))}, {Name: "empty binary", Value: BinaryValue(nil)},
		},
	},
}

// documented returns the examples of docs/payload.md, by the heading above each.
func documented(t *testing.T) map[string]string {
	doc, err := os.ReadFile("../docs/payload.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := make(map[string]string)
	for _, m := range regexp.MustCompile("(?m)^#+ (.*)\n(?:[^#`\n].*\n|\n|`[^`].*\n)*```json\n((?:.*\n)*?)```").FindAllStringSubmatch(string(doc), -1) {
		examples[m[1]] = m[2]
	}
	return examples
}

func TestJSON_payloads_are_as_documented(t *testing.T) {
	examples := documented(t)
	for heading, r := range payloads {
		msg, err := JSON{}.Unmarshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(msg.Payload) {
			t.Errorf("%s: no JSON: %s", heading, msg.Payload)
		}
		var want bytes.Buffer // the document's examples are broken into lines
		if err := json.Compact(&want, []byte(examples[heading])); err != nil {
			t.Errorf("%s: no such example in docs/payload.md: %v", heading, err)
			continue
		}
		if string(msg.Payload) != want.String() {
			t.Errorf("%s: payload\n%s, documented\n%s", heading, msg.Payload, want.String())
		}
		delete(examples, heading)
	}
	for heading := range examples {
		t.Errorf("docs/payload.md has an example %q that no test makes", heading)
	}
}

func TestJSON_columns_appear_once_with_their_newest_version_at_the_first_place(t *testing.T) {
	r := &Record{Type: Update, PrimaryKey: []Column{{"k", IntegerValue(1)}}, Columns: []Cell{
		{Name: "a", Value: IntegerValue(1), Timestamp: 1},
		{Name: "b", Value: IntegerValue(1), Timestamp: 9},
		{Name: "a", Value: IntegerValue(3), Timestamp: 3},
		{Name: "a", Value: IntegerValue(2), Timestamp: 2},
		{Name: "a", Type: CellDeleteOneVersion, Timestamp: 1},
		{Name: "a", Type: CellDeleteOneVersion, Timestamp: 2},
		{Name: "x", Type: CellDeleteAllVersions}, {Name: "y", Type: CellDeleteAllVersions},
		{Name: "null"},
	}}
	want := `{"type":"update","key":{"k":1},"columns":{"a":3,"b":1,"null":null},"deleted":["x","y"],` +
		`"deleted_versions":[{"column":"a","timestamp":1},{"column":"a","timestamp":2}]}`
	if got := string(appendRecord(nil, r)); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}

func TestJSON_wide_rows_are_written_as_narrow_ones(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cells := make([]Cell, rapid.IntRange(0, wideRow-1).Draw(t, "cells"))
		for i := range cells {
			cells[i] = Cell{
				Name: rapid.StringMatching("[abc]").Draw(t, "name"), Type: CellType(rapid.IntRange(0, 2).Draw(t, "type")),
				Value: IntegerValue(int64(i)), Timestamp: rapid.Int64Range(0, 3).Draw(t, "timestamp"),
			}
		}
		if narrow, wide := string(appendNewest(nil, cells)), string(appendNewestOfMany(nil, cells)); narrow != wide {
			t.Fatalf("narrow {%s}, wide {%s}", narrow, wide)
		}
	})
}

func TestJSON_negative_sequences_keep_their_bits(t *testing.T) {
	r := &Record{Type: Delete, PrimaryKey: []Column{{"k", IntegerValue(1)}}, Sequence: Sequence{-1, -2, -3}}
	got := string(appendRecord(nil, r))
	if want := fmt.Sprintf(`"timestamp":-2,"sequence":"%s"}`, r.Sequence); !strings.HasSuffix(got, want) {
		t.Errorf("got %s, want %s at its end", got, want)
	}
}

// standard encodes with encoding/json, HTML left alone.
func standard(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func FuzzJSON_strings_are_those_of_the_standard_library(f *testing.F) {
	var all strings.Builder
	for r := range rune(0x2100) {
		all.WriteRune(r)
	}
	for _, s := range []string{"", "a", `"\/`, "\x00\x1f\x7f\b\f\n\r\t", "<>&", "\u2028\u2029\ufffd", "\xff\xc3", "a\xe2\x80", "😀", all.String()} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := string(appendString(nil, s))
		if want := standard(s); got != want {
			t.Errorf("%q became %s, encoding/json has %s", s, got, want)
		}
		var back string
		if err := json.Unmarshal([]byte(got), &back); err != nil || utf8.ValidString(s) && back != s {
			t.Errorf("%q came back as %q, %v", s, back, err)
		}
	})
}

func TestJSON_doubles_are_those_of_the_standard_library(t *testing.T) {
	check := func(t interface{ Errorf(string, ...any) }, f float64) {
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return
		}
		got := string(appendDouble(nil, f))
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

func TestJSON_any_record_decodes_to_what_it_held(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &Record{Type: Put, PrimaryKey: []Column{{"id", IntegerValue(rapid.Int64().Draw(t, "id"))}}}
		for i := range rapid.IntRange(0, 5).Draw(t, "columns") {
			var v Value
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				v = IntegerValue(rapid.Int64().Draw(t, "integer"))
			case 1:
				v = DoubleValue(rapid.Float64().Draw(t, "double"))
			case 2:
				v = BooleanValue(rapid.Bool().Draw(t, "boolean"))
			case 3:
				v = StringValue(rapid.String().Draw(t, "string"))
			default:
				v = BinaryValue(rapid.SliceOf(rapid.Byte()).Draw(t, "binary"))
			}
			r.Columns = append(r.Columns, Cell{Name: fmt.Sprintf("%d %s", i, rapid.String().Draw(t, "name")), Value: v, Timestamp: 1})
		}
		var back struct {
			Type    string
			Key     map[string]json.Number
			Columns map[string]json.RawMessage
		}
		payload := appendRecord(nil, r)
		if err := json.Unmarshal(payload, &back); err != nil {
			t.Fatalf("%v: %s", err, payload)
		}
		if id, err := back.Key["id"].Int64(); err != nil || id != r.PrimaryKey[0].Value.Int64() || len(back.Columns) != len(r.Columns) {
			t.Fatalf("%s", payload)
		}
		for _, c := range r.Columns {
			want := c.Value.Any()
			if f, ok := want.(float64); ok && math.IsInf(f, 0) {
				continue // a string, see the documented examples
			}
			if string(back.Columns[c.Name]) != standard(want) {
				t.Fatalf("column %q is %s, want %s", c.Name, back.Columns[c.Name], standard(want))
			}
		}
	})
}

func BenchmarkJSON(b *testing.B) {
	r := benchRecord(5)
	buf := make([]byte, 0, 1024)
	b.Run("payload", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = appendRecord(buf[:0], r)
		}
		b.SetBytes(int64(len(buf)))
	})
	b.Run("message", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := (JSON{}).Unmarshal(r); err != nil {
				b.Fatal(err)
			}
		}
	})
	wide := benchRecord(1000)
	b.Run("1000 columns", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = appendRecord(buf[:0], wide)
		}
	})
}

// benchRecord has so many columns with strings of 20 bytes.
func benchRecord(columns int) *Record {
	r := &Record{
		Table: "orders", Tunnel: "audit", Channel: "c1", Type: Put, Sequence: Sequence{1, 1700000000123456, 2},
		PrimaryKey: []Column{{"id", IntegerValue(1234567)}},
	}
	for i := range columns {
		r.Columns = append(r.Columns, Cell{Name: fmt.Sprintf("column_%d", i), Value: StringValue("twenty bytes of text"), Timestamp: 1700000000000})
	}
	return r
}
