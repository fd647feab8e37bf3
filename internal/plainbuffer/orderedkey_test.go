package plainbuffer

import (
	"bytes"
	"cmp"
	"testing"

	"pgregory.net/rapid"

	_ "github.com/watermill-ots/watermill-ots/internal/nofailfiles"
)

// compareKeys is the key order by its definition: column by column, a prefix first.
func compareKeys(a, b []Cell) int {
	for i := range min(len(a), len(b)) {
		if c := a[i].Value.Compare(b[i].Value); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

func TestAppendOrderedKey(t *testing.T) {
	t.Run("sorts_single_columns_as_compare_does", func(t *testing.T) {
		for _, v := range ascending {
			for _, w := range ascending {
				a := AppendOrderedKey(nil, []Cell{pk("", v)})
				b := AppendOrderedKey(nil, []Cell{pk("", w)})
				if got, want := bytes.Compare(a, b), v.Compare(w); got != want {
					t.Errorf("%+v (%x) against %+v (%x): %d, want %d", v, a, w, b, got, want)
				}
			}
		}
	})

	t.Run("sorts_keys_of_several_columns_column_by_column", rapid.MakeCheck(func(t *rapid.T) {
		// Few distinct values, so that columns are often equal and strings often
		// prefixes of each other.
		value := rapid.OneOf(
			rapid.SampledFrom(ascending),
			rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte{0x00, 0x01, 0xFF}), 0, 4), BinaryValue),
			rapid.Map(rapid.Int64(), IntegerValue),
			rapid.Map(rapid.Float64(), DoubleValue),
		)
		key := rapid.SliceOfN(rapid.Map(value, func(v Value) Cell { return pk("k", v) }), 0, 4)
		a, b := key.Draw(t, "a"), key.Draw(t, "b")
		if n := rapid.IntRange(0, len(a)).Draw(t, "columns in common"); n > 0 {
			b = append(a[:n:n], b...)
		}
		x, y := AppendOrderedKey(nil, a), AppendOrderedKey(nil, b)
		if got, want := bytes.Compare(x, y), compareKeys(a, b); got != want {
			t.Fatalf("%x against %x: %d, want %d", x, y, got, want)
		}
	}))

	t.Run("ignores_names_and_appends_after_what_is_there", func(t *testing.T) {
		a := AppendOrderedKey([]byte("index/"), []Cell{pk("a", IntegerValue(1)), pk("b", StringValue("x"))})
		b := AppendOrderedKey([]byte("index/"), []Cell{pk("c", IntegerValue(1)), pk("d", StringValue("x"))})
		if !bytes.Equal(a, b) || !bytes.HasPrefix(a, []byte("index/")) {
			t.Errorf("%x and %x", a, b)
		}
	})
}
