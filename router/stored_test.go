package router

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

func genValue() *rapid.Generator[subscriber.Value] {
	return rapid.OneOf(
		rapid.Map(rapid.Int64(), subscriber.IntegerValue),
		rapid.Map(rapid.Float64(), subscriber.DoubleValue),
		rapid.Map(rapid.Bool(), subscriber.BooleanValue),
		rapid.Map(rapid.String(), subscriber.StringValue),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) subscriber.Value { return subscriber.StringValue(string(b)) }),
		rapid.Map(rapid.SliceOf(rapid.Byte()), subscriber.BinaryValue),
		rapid.Just(subscriber.Value{}),
		rapid.SampledFrom([]subscriber.Value{subscriber.DoubleValue(math.Inf(1)), subscriber.DoubleValue(math.Inf(-1)), subscriber.IntegerValue(math.MinInt64)}),
	)
}

func genCells() *rapid.Generator[[]subscriber.Cell] {
	cell := rapid.Custom(func(t *rapid.T) subscriber.Cell {
		return subscriber.Cell{
			Name: rapid.String().Draw(t, "name"), Value: genValue().Draw(t, "value"),
			Type: subscriber.CellType(rapid.IntRange(0, 2).Draw(t, "type")), Timestamp: rapid.Int64().Draw(t, "timestamp"),
		}
	})
	return rapid.Map(rapid.SliceOfN(cell, 0, 4), func(c []subscriber.Cell) []subscriber.Cell {
		if len(c) == 0 {
			return nil // empty and absent are the same
		}
		return c
	})
}

// A dead letter gives back the very record that failed.
func TestDeadLetter_keeps_any_record(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &subscriber.Record{
			Instance: "i", Table: "t", Tunnel: "u", Channel: "c", UUID: "id", Attempt: 1,
			Type:     subscriber.RecordType(rapid.IntRange(1, 3).Draw(t, "type")),
			Sequence: subscriber.Sequence{Epoch: rapid.Int32().Draw(t, "epoch"), Timestamp: rapid.Int64().Draw(t, "timestamp"), RowIndex: rapid.Int32().Draw(t, "row")},
			Columns:  genCells().Draw(t, "columns"),
			Origin:   genCells().Draw(t, "origin"),
		}
		for _, v := range rapid.SliceOfN(genValue(), 1, 4).Draw(t, "key") {
			r.PrimaryKey = append(r.PrimaryKey, subscriber.Column{Name: "k", Value: v})
		}
		l := &DeadLetter{
			Pipeline: "p", ID: "id", Table: "t", Error: "boom", Attempts: 3, FailedAt: time.UnixMilli(1).UTC(),
			Metadata: map[string]string{"a": "b"}, Payload: rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(t, "payload"), Record: r,
		}
		b, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseDeadLetter(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, l) {
			t.Fatalf("got %+v of %+v", got.Record, l.Record)
		}
		text, err := encodeRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := decodeRecord(text); err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("a row gives %+v, %v", again, err)
		}
	})
}

func TestStoredValue_refuses_what_it_did_not_write(t *testing.T) {
	for _, s := range []storedValue{{Kind: "integer", Text: "x"}, {Kind: "double", Text: "x"}, {Kind: "boolean", Text: "x"}, {Kind: "mood", Text: "good"}} {
		if v, err := s.restore(); err == nil {
			t.Errorf("%+v gives %v", s, v)
		}
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{
		{"short", 10, "short"}, {"exactly", 7, "exactly"}, {"longer", 3, "lon"},
		{"aé", 2, "a"}, {"a\xffb", 10, "a\uFFFDb"}, {strings.Repeat("é", 3), 4, "éé"},
	} {
		if got := clip(c.in, c.n); got != c.want {
			t.Errorf("%q to %d bytes: %q, want %q", c.in, c.n, got, c.want)
		}
	}
}
