package plainbuffer

import (
	"math"
	"testing"
)

func TestValue(t *testing.T) {
	t.Run("accessors_return_what_the_constructor_took", func(t *testing.T) {
		if v := IntegerValue(math.MinInt64); v.Kind() != Integer || v.Integer() != math.MinInt64 {
			t.Errorf("integer: %+v", v)
		}
		if v := DoubleValue(-0.5); v.Kind() != Double || v.Double() != -0.5 {
			t.Errorf("double: %+v", v)
		}
		if v := BooleanValue(true); v.Kind() != Boolean || !v.Boolean() {
			t.Errorf("true: %+v", v)
		}
		if v := BooleanValue(false); v.Kind() != Boolean || v.Boolean() {
			t.Errorf("false: %+v", v)
		}
		if v := StringValue("hi"); v.Kind() != String || v.Str() != "hi" || string(v.Bytes()) != "hi" {
			t.Errorf("string: %+v", v)
		}
		if v := BinaryValue([]byte{0, 255}); v.Kind() != Binary || v.Str() != "\x00\xff" || string(v.Bytes()) != "\x00\xff" {
			t.Errorf("binary: %+v", v)
		}
		for _, k := range []Kind{Null, InfMin, InfMax, AutoIncrement} {
			if v := Special(k); v.Kind() != k || v.Str() != "" || v.Integer() != 0 {
				t.Errorf("special %d: %+v", k, v)
			}
		}
	})

	t.Run("the_zero_value_is_integer_0", func(t *testing.T) {
		if (Value{}) != IntegerValue(0) {
			t.Error("they differ")
		}
	})

	t.Run("bytes_are_never_nil_and_appending_copies", func(t *testing.T) {
		for _, v := range []Value{BinaryValue(nil), StringValue(""), IntegerValue(1)} {
			if b := v.Bytes(); b == nil || len(b) != 0 {
				t.Errorf("Bytes of %+v = %#v, want empty and not nil", v, b)
			}
		}
		whole := []byte("abcd")
		v := BinaryValue(whole[:2])
		if _ = append(v.Bytes(), 'X'); string(whole) != "abcd" {
			t.Errorf("append wrote through the view: %q", whole)
		}
	})

	t.Run("special_panics_for_a_kind_with_a_payload", func(t *testing.T) {
		for _, k := range []Kind{Integer, Double, Boolean, String, Binary, 0x42} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("no panic for kind %d", k)
					}
				}()
				Special(k)
			}()
		}
	})
}

// ascending lists values in strictly ascending order, all kinds included.
var ascending = []Value{
	Special(InfMin),
	IntegerValue(math.MinInt64), IntegerValue(-1), IntegerValue(0), IntegerValue(1), IntegerValue(256), IntegerValue(math.MaxInt64),
	DoubleValue(math.NaN()), DoubleValue(math.Inf(-1)), DoubleValue(-1.5), DoubleValue(-math.SmallestNonzeroFloat64),
	DoubleValue(0), DoubleValue(math.SmallestNonzeroFloat64), DoubleValue(1), DoubleValue(math.MaxFloat64), DoubleValue(math.Inf(1)),
	BooleanValue(false), BooleanValue(true),
	StringValue(""), StringValue("\x00"), StringValue("\x00\x00"), StringValue("\x00\xff"), StringValue("\x01"), StringValue("a"), StringValue("a\x00"), StringValue("a\x00b"), StringValue("aa"), StringValue("b"), StringValue("é"), StringValue("\xff"),
	Special(Null),
	BinaryValue(nil), BinaryValue([]byte{0}), BinaryValue([]byte{0, 1}), BinaryValue([]byte{255}), BinaryValue([]byte{255, 255}),
	Special(AutoIncrement),
	Special(InfMax),
}

func TestCompare(t *testing.T) {
	t.Run("is_the_key_order", func(t *testing.T) {
		for i, v := range ascending {
			for j, w := range ascending {
				want := 0
				if i < j {
					want = -1
				} else if i > j {
					want = 1
				}
				if got := v.Compare(w); got != want {
					t.Errorf("%+v compared with %+v = %d, want %d", v, w, got, want)
				}
				if v.Equal(w) != (i == j) {
					t.Errorf("%+v equal to %+v = %t", v, w, i != j)
				}
			}
		}
	})

	t.Run("equal_ignores_the_sign_of_zero_and_a_nans_payload", func(t *testing.T) {
		if !DoubleValue(0).Equal(DoubleValue(math.Copysign(0, -1))) {
			t.Error("0 and -0 differ")
		}
		if !DoubleValue(math.NaN()).Equal(DoubleValue(math.Float64frombits(0xFFF8000000000001))) {
			t.Error("two NaNs differ")
		}
	})
}
