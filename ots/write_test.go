package ots

import (
	"errors"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// written has a field of each kind that Bind fills.
type written struct {
	ID     int64      `ots:"id,required,key"`
	Region string     `ots:"region,key"`
	Small  int8       `ots:"small"`
	Count  uint32     `ots:"count"`
	Amount float64    `ots:"amount"`
	Ratio  float32    `ots:"ratio"`
	Paid   bool       `ots:"paid"`
	Note   *string    `ots:"note"`
	Raw    []byte     `ots:"raw"`
	Addr   netip.Addr `ots:"addr"`
	Milli  time.Time  `ots:"milli,unixmilli"`
	Nano   *time.Time `ots:"nano,unixnano"`
	Text   time.Time  `ots:"text,rfc3339"`
	Value  Value      `ots:"value"`
	Any    any        `ots:"any"`
	Left   string     // without a tag
}

// rowOf is the record of a put of what WriteRow writes.
func rowOf(t *rapid.T, v written) *Record {
	r := &Record{Type: Put}
	value := func(x any) Value {
		v, fault := anyValue(x)
		if fault != "" {
			t.Fatalf("%v: %s", x, fault)
		}
		return v
	}
	err := WriteRow(v,
		func(name string, x any) { r.PrimaryKey = append(r.PrimaryKey, Column{name, value(x)}) },
		func(name string, x any) {
			r.Columns = append(r.Columns, Cell{Name: name, Value: value(x), Timestamp: 1})
		})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWriteRow_Bind_returns_what_was_written(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { // prints the seed of a failure
		at := time.UnixMilli(rapid.Int64Range(0, 1<<41).Draw(t, "time")).UTC()
		want := written{
			ID: rapid.Int64().Draw(t, "id"), Region: rapid.String().Draw(t, "region"), Small: rapid.Int8().Draw(t, "small"), Count: rapid.Uint32().Draw(t, "count"),
			Amount: rapid.Float64().Draw(t, "amount"), Ratio: rapid.Float32().Draw(t, "ratio"), Paid: rapid.Bool().Draw(t, "paid"),
			Raw: rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "raw"), Addr: netip.AddrFrom4([4]byte{127, 0, 0, rapid.Byte().Draw(t, "addr")}),
			Milli: at, Text: at, Value: IntegerValue(7), Any: "text",
		}
		if rapid.Bool().Draw(t, "optional") {
			note := rapid.String().Draw(t, "note")
			want.Note, want.Nano = &note, &at
		}
		r := rowOf(t, want)
		got, err := BindRecord[written](r)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
		if len(r.PrimaryKey) != 2 || r.PrimaryKey[0].Name != "id" || r.PrimaryKey[1].Name != "region" {
			t.Fatalf("the key is %v", r.PrimaryKey)
		}
		if _, wrote := r.Column("note"); wrote != (want.Note != nil) {
			t.Fatalf("a nil pointer is written: %t", wrote)
		}
	})
}

func TestWriteRow_what_the_service_does_not_take_is_an_error_that_hides_the_value(t *testing.T) {
	type faulty struct {
		Key   *string   `ots:"k,key"`
		Flag  bool      `ots:"flag,key"`
		Big   uint64    `ots:"big"`
		NaN   float64   `ots:"nan"`
		Bytes string    `ots:"bytes"`
		When  time.Time `ots:"when,unixnano"`
		Any   any       `ots:"any"`
	}
	called := false
	call := func(string, any) { called = true }
	err := WriteRow(faulty{Big: math.MaxUint64, NaN: math.NaN(), Bytes: "secret\xff", When: time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), Any: struct{}{}}, call, call)
	if err == nil || called {
		t.Fatalf("error %v, called %t", err, called)
	}
	for _, want := range []string{
		`field faulty.Key of type *string does not fit column "k": a primary key column needs a value`,
		`column "flag": a primary key column takes integer`, `column "big": more than an INTEGER`, `column "nan": the service takes finite`,
		`column "bytes": the service takes strings in UTF-8`, `column "when": out of the range`, `column "any": an any takes`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	var b *BindError
	if !errors.As(err, &b) || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}
