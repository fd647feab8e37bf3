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

	"pgregory.net/rapid"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/ots"
)

// payloads are the examples of docs/payload.md, by their headings there. They
// are what a consumer may rely on: a change of one breaks consumers.
var payloads = map[string]*ots.Record{
	"A row of the base data": {
		Type: ots.Put, PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(7)}, {Name: "region", Value: ots.StringValue("eu")}},
		Columns: []ots.Cell{{Name: "amount", Value: ots.DoubleValue(12.5), Timestamp: 1700000000000}, {Name: "paid", Value: ots.BooleanValue(true), Timestamp: 1700000000000}},
	},
	"A put": {
		Type: ots.Put, PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(7)}, {Name: "region", Value: ots.StringValue("eu")}},
		Columns:  []ots.Cell{{Name: "amount", Value: ots.DoubleValue(12.5), Timestamp: 1700000000000}, {Name: "note", Value: ots.StringValue("größer als 5 < 6"), Timestamp: 1700000000000}},
		Sequence: ots.Sequence{Epoch: 1, Timestamp: 1700000000123456, RowIndex: 2},
	},
	"An update": {
		Type: ots.Update, PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(7)}, {Name: "region", Value: ots.StringValue("eu")}},
		Columns: []ots.Cell{
			{Name: "amount", Value: ots.DoubleValue(11), Timestamp: 1700000001000},
			{Name: "amount", Value: ots.DoubleValue(13), Timestamp: 1700000002000},
			{Name: "note", Type: ots.CellDeleteAllVersions},
			{Name: "price", Type: ots.CellDeleteOneVersion, Timestamp: 1700000000000},
		},
		Origin:   []ots.Cell{{Name: "amount", Value: ots.DoubleValue(12.5), Timestamp: 1700000000000}},
		Sequence: ots.Sequence{Epoch: 1, Timestamp: 1700000002123456, RowIndex: 0},
	},
	"Whole rows": {
		Type: ots.Update, PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(7)}, {Name: "region", Value: ots.StringValue("eu")}},
		Columns:  []ots.Cell{{Name: "amount", Value: ots.DoubleValue(13), Timestamp: 1700000002000}},
		RowState: ots.RowFound, Row: []ots.Cell{{Name: "amount", Value: ots.DoubleValue(13), Timestamp: 1700000002000}, {Name: "paid", Value: ots.BooleanValue(true), Timestamp: 1700000000000}},
		Sequence: ots.Sequence{Epoch: 1, Timestamp: 1700000002123456, RowIndex: 0},
	},
	"A delete": {
		Type: ots.Delete, PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(7)}, {Name: "region", Value: ots.StringValue("eu")}}, Sequence: ots.Sequence{Epoch: 1, Timestamp: 1700000003123456, RowIndex: 0},
	},
	"Values": {
		Type: ots.Put, PrimaryKey: []ots.Column{{Name: "key", Value: ots.BinaryValue([]byte{0, 1, 0xfe, 0xff})}},
		Columns: []ots.Cell{
			{Name: "least", Value: ots.IntegerValue(math.MinInt64)}, {Name: "greatest", Value: ots.IntegerValue(math.MaxInt64)},
			{Name: "double", Value: ots.DoubleValue(0.1)}, {Name: "whole", Value: ots.DoubleValue(3)}, {Name: "large", Value: ots.DoubleValue(1e21)}, {Name: "small", Value: ots.DoubleValue(-1e-7)},
			{Name: "nan", Value: ots.DoubleValue(math.NaN())}, {Name: "infinity", Value: ots.DoubleValue(math.Inf(1))}, {Name: "minus infinity", Value: ots.DoubleValue(math.Inf(-1))},
			{Name: "yes", Value: ots.BooleanValue(true)}, {Name: "string", Value: ots.StringValue("a \"quote\",\na line")}, {Name: "no UTF-8", Value: ots.StringValue("a\xffb")},
			{Name: "binary", Value: ots.BinaryValue([]byte("any bytes"))}, {Name: "empty binary", Value: ots.BinaryValue(nil)},
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
	r := &ots.Record{Type: ots.Update, PrimaryKey: []ots.Column{{Name: "k", Value: ots.IntegerValue(1)}}, Columns: []ots.Cell{
		{Name: "a", Value: ots.IntegerValue(1), Timestamp: 1},
		{Name: "b", Value: ots.IntegerValue(1), Timestamp: 9},
		{Name: "a", Value: ots.IntegerValue(3), Timestamp: 3},
		{Name: "a", Value: ots.IntegerValue(2), Timestamp: 2},
		{Name: "a", Type: ots.CellDeleteOneVersion, Timestamp: 1},
		{Name: "a", Type: ots.CellDeleteOneVersion, Timestamp: 2},
		{Name: "x", Type: ots.CellDeleteAllVersions}, {Name: "y", Type: ots.CellDeleteAllVersions},
		{Name: "null"},
	}}
	want := `{"type":"update","key":{"k":1},"columns":{"a":3,"b":1,"null":null},"deleted":["x","y"],` +
		`"deleted_versions":[{"column":"a","timestamp":1},{"column":"a","timestamp":2}]}`
	if got := string(appendRecord(nil, r)); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}

func TestFormats_last_operation_on_a_column_wins(t *testing.T) {
	put := ots.Cell{Name: "a", Value: ots.IntegerValue(4), Timestamp: 9}
	gone := ots.Cell{Name: "a", Type: ots.CellDeleteAllVersions}
	version := ots.Cell{Name: "a", Type: ots.CellDeleteOneVersion, Timestamp: 9}
	for _, c := range []struct {
		what        string
		cells       []ots.Cell
		json, after string
	}{
		{"put, then removed", []ots.Cell{put, gone}, `"columns":{},"deleted":["a"]`, `{"k":1,"a":null}`},
		{"removed, then put", []ots.Cell{gone, put}, `"columns":{"a":4}`, `{"k":1,"a":4}`},
		{"put, then its version removed", []ots.Cell{put, version}, `"columns":{},"deleted_versions":[{"column":"a","timestamp":9}]`, `{"k":1}`},
		{"version removed, then put again", []ots.Cell{version, put}, `"columns":{"a":4}`, `{"k":1,"a":4}`},
	} {
		r := &ots.Record{Type: ots.Update, PrimaryKey: []ots.Column{{Name: "k", Value: ots.IntegerValue(1)}}, Columns: c.cells, Sequence: ots.Sequence{Timestamp: 1}}
		want := `{"type":"update","key":{"k":1},` + c.json + `,"timestamp":1,"sequence":"` + r.Sequence.String() + `"}`
		if got := string(appendRecord(nil, r)); got != want {
			t.Errorf("%s: JSON\n%s, want\n%s", c.what, got, want)
		}
		if got := payload(t, CloudEvents{}, r); !strings.Contains(got, `"data":`+want) {
			t.Errorf("%s: the CloudEvent\n%s\nlacks\n%s", c.what, got, want)
		}
		if got := payload(t, Debezium{}, r); !strings.Contains(got, `"after":`+c.after+`,`) {
			t.Errorf("%s: the envelope\n%s\nlacks after %s", c.what, got, c.after)
		}
	}
}

func TestJSON_negative_sequences_keep_their_bits(t *testing.T) {
	r := &ots.Record{Type: ots.Delete, PrimaryKey: []ots.Column{{Name: "k", Value: ots.IntegerValue(1)}}, Sequence: ots.Sequence{Epoch: -1, Timestamp: -2, RowIndex: -3}}
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

func TestJSON_any_record_decodes_to_what_it_held(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &ots.Record{Type: ots.Put, PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(rapid.Int64().Draw(t, "id"))}}}
		for i := range rapid.IntRange(0, 5).Draw(t, "columns") {
			var v ots.Value
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				v = ots.IntegerValue(rapid.Int64().Draw(t, "integer"))
			case 1:
				v = ots.DoubleValue(rapid.Float64().Draw(t, "double"))
			case 2:
				v = ots.BooleanValue(rapid.Bool().Draw(t, "boolean"))
			case 3:
				v = ots.StringValue(rapid.String().Draw(t, "string"))
			default:
				v = ots.BinaryValue(rapid.SliceOf(rapid.Byte()).Draw(t, "binary"))
			}
			r.Columns = append(r.Columns, ots.Cell{Name: fmt.Sprintf("%d %s", i, rapid.String().Draw(t, "name")), Value: v, Timestamp: 1})
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

// benchRecord has a number of columns with strings of 20 bytes.
func benchRecord(columns int) *ots.Record {
	r := &ots.Record{
		Table: "orders", Tunnel: "audit", Channel: "c1", Type: ots.Put, Sequence: ots.Sequence{Epoch: 1, Timestamp: 1700000000123456, RowIndex: 2},
		PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(1234567)}},
	}
	for i := range columns {
		r.Columns = append(r.Columns, ots.Cell{Name: fmt.Sprintf("column_%d", i), Value: ots.StringValue("twenty bytes of text"), Timestamp: 1700000000000})
	}
	return r
}

func TestValue_of_the_wire_keeps_kind_and_content(t *testing.T) {
	for want, wire := range map[ots.Value]plainbuffer.Value{
		ots.IntegerValue(-1):            plainbuffer.IntegerValue(-1),
		ots.DoubleValue(0.1):            plainbuffer.DoubleValue(0.1),
		ots.BooleanValue(true):          plainbuffer.BooleanValue(true),
		ots.BooleanValue(false):         plainbuffer.BooleanValue(false),
		ots.StringValue("s"):            plainbuffer.StringValue("s"),
		ots.BinaryValue([]byte{1}):      plainbuffer.BinaryValue([]byte{1}),
		(ots.Value{}):                   plainbuffer.Special(plainbuffer.Null),
		ots.DoubleValue(math.Inf(-1)):   plainbuffer.DoubleValue(math.Inf(-1)),
		ots.IntegerValue(math.MinInt64): plainbuffer.IntegerValue(math.MinInt64),
	} {
		if got := fromWire(wire); got != want {
			t.Errorf("got %v %v, want %v %v", got.Kind(), got, want.Kind(), want)
		}
	}
}
