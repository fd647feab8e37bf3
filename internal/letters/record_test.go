package letters

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	_ "github.com/watermill-ots/watermill-ots/internal/nofailfiles"
	"github.com/watermill-ots/watermill-ots/ots"
)

func genValue() *rapid.Generator[ots.Value] {
	return rapid.OneOf(
		rapid.Map(rapid.Int64(), ots.IntegerValue),
		rapid.Map(rapid.Float64(), ots.DoubleValue),
		rapid.Map(rapid.Bool(), ots.BooleanValue),
		rapid.Map(rapid.String(), ots.StringValue),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) ots.Value { return ots.StringValue(string(b)) }),
		rapid.Map(rapid.SliceOf(rapid.Byte()), ots.BinaryValue),
		rapid.Just(ots.Value{}),
		rapid.SampledFrom([]ots.Value{ots.DoubleValue(math.Inf(1)), ots.DoubleValue(math.Inf(-1)), ots.IntegerValue(math.MinInt64)}),
	)
}

func genCells() *rapid.Generator[[]ots.Cell] {
	cell := rapid.Custom(func(t *rapid.T) ots.Cell {
		return ots.Cell{
			Name: rapid.String().Draw(t, "name"), Value: genValue().Draw(t, "value"),
			Type: ots.CellType(rapid.IntRange(0, 2).Draw(t, "type")), Timestamp: rapid.Int64().Draw(t, "timestamp"),
		}
	})
	return rapid.Map(rapid.SliceOfN(cell, 0, 4), func(c []ots.Cell) []ots.Cell {
		if len(c) == 0 {
			return nil // empty and absent are the same
		}
		return c
	})
}

// A letter gives back the very record that failed.
func TestLetter_keeps_any_record(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &ots.Record{
			Instance: "i", Table: "t", Tunnel: "u", Channel: "c", UUID: "id", Attempt: 1,
			Type:     ots.RecordType(rapid.IntRange(1, 3).Draw(t, "type")),
			Sequence: ots.Sequence{Epoch: rapid.Int32().Draw(t, "epoch"), Timestamp: rapid.Int64().Draw(t, "timestamp"), RowIndex: rapid.Int32().Draw(t, "row")},
			Columns:  genCells().Draw(t, "columns"),
			Origin:   genCells().Draw(t, "origin"),
		}
		for _, v := range rapid.SliceOfN(genValue(), 1, 4).Draw(t, "key") {
			r.PrimaryKey = append(r.PrimaryKey, ots.Column{Name: "k", Value: v})
		}
		bytes := rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })
		l := &Letter{
			Pipeline: "p", ID: "x" + bytes.Draw(t, "id"), Identity: bytes.Draw(t, "identity"), Table: "t", Type: bytes.Draw(t, "typ"), Key: bytes.Draw(t, "text"),
			Error: "boom", Attempts: 3, FailedAt: time.UnixMilli(1).UTC(),
			Metadata: rapid.MapOf(bytes, bytes).Draw(t, "metadata"), Payload: rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(t, "payload"), Record: r,
		}
		b, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		got := new(Letter)
		if err := json.Unmarshal(b, got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, l) {
			t.Fatalf("got %+v of %+v", got, l)
		}
		text, err := EncodeRecord(r)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := DecodeRecord(text); err != nil || !reflect.DeepEqual(again, r) {
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
