package ots

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestValue_accessors_by_kind(t *testing.T) {
	for name, c := range map[string]struct {
		value   Value
		kind    Kind
		integer int64
		double  float64
		boolean bool
		text    string
		bytes   []byte
		any     any
	}{
		"none":        {Value{}, KindNone, 0, 0, false, "", nil, nil},
		"integer":     {IntegerValue(-7), KindInteger, -7, 0, false, "-7", nil, int64(-7)},
		"least":       {IntegerValue(math.MinInt64), KindInteger, math.MinInt64, 0, false, "-9223372036854775808", nil, int64(math.MinInt64)},
		"greatest":    {IntegerValue(math.MaxInt64), KindInteger, math.MaxInt64, 0, false, "9223372036854775807", nil, int64(math.MaxInt64)},
		"one":         {IntegerValue(1), KindInteger, 1, 0, false, "1", nil, int64(1)},
		"double":      {DoubleValue(2.5), KindDouble, 0, 2.5, false, "2.5", nil, 2.5},
		"true":        {BooleanValue(true), KindBoolean, 0, 0, true, "true", nil, true},
		"false":       {BooleanValue(false), KindBoolean, 0, 0, false, "false", nil, false},
		"string":      {StringValue("é"), KindString, 0, 0, false, "é", []byte("é"), "é"},
		"empty":       {StringValue(""), KindString, 0, 0, false, "", []byte{}, ""},
		"binary":      {BinaryValue([]byte{0, 255}), KindBinary, 0, 0, false, "\x00\xff", []byte{0, 255}, []byte{0, 255}},
		"empty bytes": {BinaryValue(nil), KindBinary, 0, 0, false, "", []byte{}, []byte{}},
	} {
		v := c.value
		if v.Kind() != c.kind || v.Int64() != c.integer || v.Float64() != c.double || v.Bool() != c.boolean || v.String() != c.text ||
			!reflect.DeepEqual(v.Bytes(), c.bytes) || !reflect.DeepEqual(v.Any(), c.any) {
			t.Errorf("%s: kind %v, %d, %g, %t, %q, %#v, %#v", name, v.Kind(), v.Int64(), v.Float64(), v.Bool(), v.String(), v.Bytes(), v.Any())
		}
	}
}

func TestValue_is_comparable_and_owns_its_bytes(t *testing.T) {
	if StringValue("a") == BinaryValue([]byte("a")) || IntegerValue(1) == BooleanValue(true) || (Value{}) == IntegerValue(0) {
		t.Error("values of different kinds are equal")
	}
	if nan := DoubleValue(math.NaN()); nan != DoubleValue(math.NaN()) || !math.IsNaN(nan.Float64()) {
		t.Error("a NaN is not itself")
	}
	in := []byte("abc")
	v := BinaryValue(in)
	in[0] = 'x'
	v.Bytes()[1] = 'y'
	v.Any().([]byte)[2] = 'z'
	if v != BinaryValue([]byte("abc")) {
		t.Errorf("the value changed to %q", v.String())
	}
}

func TestRecord_column_is_what_the_change_left_or_the_key(t *testing.T) {
	r := &Record{
		PrimaryKey: []Column{{"id", IntegerValue(7)}, {"region", StringValue("eu")}},
		Columns: []Cell{
			{Name: "a", Value: IntegerValue(1), Timestamp: 10},
			{Name: "a", Value: IntegerValue(3), Timestamp: 30},
			{Name: "a", Value: IntegerValue(2), Timestamp: 20},
			{Name: "a", Type: CellDeleteOneVersion, Timestamp: 40},
			{Name: "gone", Type: CellDeleteAllVersions},
			{Name: "none"},
			{Name: "tie", Value: IntegerValue(1), Timestamp: 5},
			{Name: "tie", Value: IntegerValue(2), Timestamp: 5},
		},
		Origin: []Cell{{Name: "a", Value: IntegerValue(0), Timestamp: 9}},
	}
	for name, want := range map[string]Value{"id": IntegerValue(7), "region": StringValue("eu"), "a": IntegerValue(3), "none": {}, "tie": IntegerValue(2)} {
		if got, ok := r.Column(name); !ok || got != want {
			t.Errorf("%s is %v, %t; want %v", name, got, ok, want)
		}
	}
	for _, name := range []string{"gone", "absent", "A", ""} {
		if got, ok := r.Column(name); ok || got != (Value{}) {
			t.Errorf("%q is %v, %t", name, got, ok)
		}
	}
	if got, ok := r.OriginColumn("a"); !ok || got != IntegerValue(0) {
		t.Errorf("origin is %v, %t", got, ok)
	}
	if _, ok := r.OriginColumn("id"); ok {
		t.Error("the key is returned as an origin column")
	}
}

func TestSequence_text_sorts_as_the_sequence_does(t *testing.T) {
	if got, want := (Sequence{1, 1700000000123456, 2}).String(), "00000001:00060a2418202240:00000002"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if !(Sequence{}).IsZero() || (Sequence{RowIndex: 1}).IsZero() || (Sequence{Epoch: 1}).IsZero() {
		t.Error("IsZero is wrong for the zero sequence or for another one")
	}
	rapid.Check(t, func(t *rapid.T) { // prints the seed of a failure
		// What the service sends is not negative.
		gen := func(label string) Sequence {
			return Sequence{rapid.Int32Range(0, 3).Draw(t, label+" epoch"), rapid.Int64Range(0, math.MaxInt64).Draw(t, label+" time"), rapid.Int32Range(0, math.MaxInt32).Draw(t, label+" row")}
		}
		a, b := gen("a"), gen("b")
		if rapid.Bool().Draw(t, "same time") {
			b.Timestamp = a.Timestamp
		}
		if got, want := a.Less(b), a.String() < b.String(); got != want {
			t.Fatalf("%v before %v: %t", a, b, got)
		}
		if a.Less(b) && b.Less(a) || a.Less(a) {
			t.Fatalf("no order: %v, %v", a, b)
		}
	})
}

func TestEnums_have_names(t *testing.T) {
	for got, want := range map[string]string{
		Put.String(): "put", Update.String(): "update", Delete.String(): "delete", RecordType(9).String(): "RecordType(9)",
		CellPut.String(): "put", CellDeleteOneVersion.String(): "delete-one-version", CellDeleteAllVersions.String(): "delete-all-versions", CellType(9).String(): "CellType(9)",
		KindNone.String(): "none", KindInteger.String(): "integer", KindDouble.String(): "double", KindBoolean.String(): "boolean",
		KindString.String(): "string", KindBinary.String(): "binary", Kind(9).String(): "Kind(9)",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestKeyText_is_a_JSON_array_in_key_order(t *testing.T) {
	r := &Record{PrimaryKey: []Column{{"b", StringValue(`u"1`)}, {"a", IntegerValue(7)}, {"c", BinaryValue([]byte{0xff})}}}
	if got := r.KeyText(); got != `["u\"1",7,"/w=="]` {
		t.Errorf("got %s", got)
	}
	if got := (&Record{PrimaryKey: []Column{{"k", StringValue(strings.Repeat("x", 100))}}}).KeyText(); len(got) != 104 {
		t.Errorf("got %s", got)
	}
}
