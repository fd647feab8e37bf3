package plainbuffer

import (
	"testing"

	"pgregory.net/rapid"
)

// drawKeyValue draws a value that a primary key or a bound of a range may hold.
func drawKeyValue() *rapid.Generator[Value] {
	return rapid.OneOf(
		rapid.Map(rapid.Int64(), IntegerValue),
		rapid.Map(rapid.String(), StringValue),
		rapid.Map(rapid.SliceOf(rapid.Byte()), BinaryValue),
		rapid.SampledFrom([]Value{Special(InfMin), Special(InfMax), Special(AutoIncrement)}),
	)
}

func drawValue() *rapid.Generator[Value] {
	return rapid.OneOf(
		drawKeyValue(),
		rapid.Map(rapid.Uint64(), func(bits uint64) Value { return Value{kind: Double, num: bits} }), // NaNs with payloads too
		rapid.Map(rapid.Bool(), BooleanValue),
		rapid.Just(Special(Null)),
	)
}

// drawCell draws any cell that the format can express, sensible or not.
func drawCell() *rapid.Generator[Cell] {
	return rapid.Custom(func(t *rapid.T) Cell {
		c := Cell{Name: rapid.String().Draw(t, "name")}
		if c.HasValue = rapid.Bool().Draw(t, "has value"); c.HasValue {
			c.Value = drawValue().Draw(t, "value")
		}
		c.Op = rapid.SampledFrom([]Op{Put, Put, DeleteAllVersion, DeleteOneVersion, Increment, 0x7F}).Draw(t, "op")
		if c.HasTimestamp = rapid.Bool().Draw(t, "has timestamp"); c.HasTimestamp {
			c.Timestamp = rapid.Int64().Draw(t, "timestamp")
		}
		return c
	})
}

func drawRow() *rapid.Generator[Row] {
	key := rapid.Custom(func(t *rapid.T) Cell {
		return pk(rapid.String().Draw(t, "name"), drawKeyValue().Draw(t, "value"))
	})
	return rapid.Custom(func(t *rapid.T) Row {
		r := Row{
			PrimaryKey: rapid.SliceOfN(key, 0, 4).Draw(t, "primary key"),
			Cells:      rapid.SliceOfN(drawCell(), 0, 6).Draw(t, "cells"),
			Delete:     rapid.Bool().Draw(t, "delete"),
		}
		if r.HasSequence = rapid.Bool().Draw(t, "has sequence"); r.HasSequence {
			r.Sequence = Sequence{
				Epoch:     rapid.Int32().Draw(t, "epoch"),
				Timestamp: rapid.Int64().Draw(t, "timestamp"),
				RowIndex:  rapid.Int32().Draw(t, "row index"),
			}
		}
		return r
	})
}

func TestRoundTrip(t *testing.T) {
	t.Run("decoding_gives_back_what_was_encoded", rapid.MakeCheck(func(t *rapid.T) {
		rows := rapid.SliceOfN(drawRow(), 0, 3).Draw(t, "rows")
		buf := AppendHeader(nil)
		for i := range rows {
			buf = AppendRow(buf, &rows[i])
		}
		got, err := DecodeAll(buf)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(rows) {
			t.Fatalf("%d rows, want %d", len(got), len(rows))
		}
		for i := range rows {
			if !sameRow(&got[i], &rows[i]) {
				t.Fatalf("row %d\n got %+v\nwant %+v", i, got[i], rows[i])
			}
		}
	}))

	t.Run("of_a_primary_key", rapid.MakeCheck(func(t *rapid.T) {
		want := drawRow().Draw(t, "row").PrimaryKey
		var row Row
		if err := Decode(AppendPrimaryKey(nil, want), &row); err != nil {
			t.Fatal(err)
		}
		if !sameRow(&row, &Row{PrimaryKey: want}) {
			t.Fatalf("\n got %+v\nwant %+v", row, want)
		}
	}))

	t.Run("of_a_variant", rapid.MakeCheck(func(t *rapid.T) {
		want := drawValue().Draw(t, "value")
		if got, err := DecodeVariant(AppendVariant(nil, want)); err != nil || got != want {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
	}))

	t.Run("equal_keys_and_only_they_have_equal_key_bytes", rapid.MakeCheck(func(t *rapid.T) {
		a := drawRow().Draw(t, "a")
		b := drawRow().Draw(t, "b")
		if rapid.Bool().Draw(t, "same key") {
			b.PrimaryKey = a.PrimaryKey
		}
		var x, y Row
		if err := Decode(AppendRow(AppendHeader(nil), &a), &x); err != nil {
			t.Fatal(err)
		}
		if err := Decode(AppendRow(AppendHeader(nil), &b), &y); err != nil {
			t.Fatal(err)
		}
		same := sameRow(&Row{PrimaryKey: a.PrimaryKey}, &Row{PrimaryKey: b.PrimaryKey})
		if (x.KeyBytes == y.KeyBytes) != same {
			t.Fatalf("key bytes %x and %x of keys that are the same: %t", x.KeyBytes, y.KeyBytes, same)
		}
	}))
}
