package ots

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/ThreeDotsLabs/watermill/message"
	"pgregory.net/rapid"

	_ "github.com/watermill-ots/watermill-ots/internal/nofailfiles"
)

type base struct {
	ID int64 `ots:"id,required"`
}

type state string

type order struct {
	base
	Int8     int8            `ots:"int8"`
	Uint16   uint16          `ots:"uint16"`
	Float32  float32         `ots:"float32"`
	Float64  float64         `ots:"float64"`
	Paid     bool            `ots:"paid"`
	Note     string          `ots:"note"`
	State    state           `ots:"state"`
	Bytes    []byte          `ots:"bytes"`
	JSON     json.RawMessage `ots:"json"`
	Address  netip.Addr      `ots:"address"`
	Seconds  time.Time       `ots:"seconds,unix"`
	Millis   time.Time       `ots:"millis,unixmilli"`
	Micros   *time.Time      `ots:"micros,required,unixmicro"`
	Nanos    time.Time       `ots:"nanos,unixnano"`
	Text     time.Time       `ots:"text,rfc3339"`
	Pointer  *string         `ots:"pointer"`
	Pointer2 **int           `ots:"pointer2"`
	Absent   *string         `ots:"absent"`
	Removed  *string         `ots:"removed"`
	Value    Value           `ots:"value"`
	Any      any             `ots:"any"`
	Ignored  string
	Skipped  string `ots:"-"`
}

func boundRecord() *Record {
	at := time.Date(2026, 11, 25, 12, 30, 15, 123456789, time.UTC)
	r := &Record{Type: Put, PrimaryKey: []Column{{"id", IntegerValue(7)}}}
	for name, v := range map[string]Value{
		"int8": IntegerValue(-128), "uint16": DoubleValue(65535), "float32": DoubleValue(0.5), "float64": IntegerValue(1 << 53),
		"paid": BooleanValue(true), "note": StringValue("größer"), "state": StringValue("open"), "bytes": BinaryValue([]byte{0, 1}), "json": StringValue(`{"a":1}`),
		"address": StringValue("192.0.2.1"), "seconds": IntegerValue(at.Unix()), "millis": IntegerValue(at.UnixMilli()), "micros": IntegerValue(at.UnixMicro()),
		"nanos": IntegerValue(at.UnixNano()), "text": StringValue(at.Format(time.RFC3339Nano)), "pointer": StringValue("p"), "pointer2": IntegerValue(2),
		"value": DoubleValue(1.5), "any": StringValue("text"), "Ignored": StringValue("x"), "Skipped": StringValue("x"), "-": StringValue("x"),
	} {
		r.Columns = append(r.Columns, Cell{Name: name, Value: v, Timestamp: 1})
	}
	r.Columns = append(r.Columns,
		Cell{Name: "note", Value: StringValue("older"), Timestamp: 0},
		Cell{Name: "removed", Type: CellDeleteAllVersions},
	)
	return r
}

func TestBind_fills_every_type_of_field(t *testing.T) {
	msg := message.NewMessage("1", nil)
	WithRecord(msg, boundRecord())
	got, err := Bind[order](msg)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 25, 12, 30, 15, 123456789, time.UTC)
	micros, pointer, two := at.Truncate(time.Microsecond), "p", 2
	indirect := &two
	want := order{
		base: base{ID: 7}, Int8: -128, Uint16: 65535, Float32: 0.5, Float64: 1 << 53, Paid: true, Note: "größer", State: "open",
		Bytes: []byte{0, 1}, JSON: json.RawMessage(`{"a":1}`), Address: netip.MustParseAddr("192.0.2.1"),
		Seconds: at.Truncate(time.Second), Millis: at.Truncate(time.Millisecond), Micros: &micros, Nanos: at, Text: at,
		Pointer: &pointer, Pointer2: &indirect, Value: DoubleValue(1.5), Any: "text",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
}

func TestBind_lossy_conversions_are_errors_that_name_everything_but_the_value(t *testing.T) {
	type numbers struct {
		Int8    int8       `ots:"int8"`
		Int     int        `ots:"int"`
		Int64   int64      `ots:"int64"`
		Uint    *uint      `ots:"uint"`
		Uint8   uint8      `ots:"uint8"`
		Float32 float32    `ots:"float32"`
		Float64 float64    `ots:"float64"`
		Bool    bool       `ots:"bool"`
		String  string     `ots:"string"`
		Bytes   []byte     `ots:"bytes"`
		Address netip.Addr `ots:"address"`
		Time    time.Time  `ots:"time,unix"`
		Text    time.Time  `ots:"text,rfc3339"`
	}
	const exact = "the type cannot hold it exactly"
	const outOfRange = "out of the type's range"
	for _, c := range []struct {
		column string
		value  Value
		want   string // after "of type "; empty: it fits
	}{
		{"int8", IntegerValue(128), "int8: " + outOfRange},
		{"int8", DoubleValue(-129), "int8: " + outOfRange},
		{"int8", DoubleValue(-128), ""},
		{"int", DoubleValue(0.5), "int: not an integer"},
		{"int", DoubleValue(math.NaN()), "int: not an integer"},
		{"int", StringValue("7"), "int: the field takes integer and double"},
		{"int64", DoubleValue(math.Inf(1)), "int64: " + outOfRange},
		{"int64", DoubleValue(1 << 63), "int64: " + outOfRange},
		{"int64", DoubleValue(-(1 << 63)), ""},
		{"int64", IntegerValue(math.MinInt64), ""},
		{"uint", IntegerValue(-1), "*uint: " + outOfRange},
		{"uint", IntegerValue(math.MaxInt64), ""},
		{"uint8", IntegerValue(256), "uint8: " + outOfRange},
		{"uint8", DoubleValue(255), ""},
		{"float32", DoubleValue(0.1), "float32: " + exact},
		{"float32", DoubleValue(1e300), "float32: " + exact},
		{"float32", DoubleValue(math.Inf(-1)), ""},
		{"float32", DoubleValue(math.NaN()), ""},
		{"float32", IntegerValue(1<<24 + 1), "float32: " + exact},
		{"float32", BooleanValue(true), "float32: the field takes double and integer"},
		{"float64", IntegerValue(1<<53 + 1), "float64: " + exact},
		{"float64", IntegerValue(math.MaxInt64), "float64: " + exact},
		{"float64", IntegerValue(math.MinInt64), ""},
		{"bool", IntegerValue(1), "bool: the field takes boolean"},
		{"string", BinaryValue([]byte("x")), "string: the field takes string"},
		{"string", StringValue("\xff"), ""},
		{"bytes", IntegerValue(1), "[]uint8: the field takes binary and string"},
		{"bytes", StringValue("x"), ""},
		{"address", StringValue("secret"), "netip.Addr: its UnmarshalText returned an error"},
		{"address", IntegerValue(1), "netip.Addr: the field takes string"},
		{"time", StringValue("1"), "time.Time: not a time in the form unix"},
		{"text", StringValue("secret"), "time.Time: not a time in the form rfc3339"},
		{"text", BinaryValue([]byte("2026-11-25T12:00:00Z")), "time.Time: not a time in the form rfc3339"},
	} {
		r := &Record{Type: Put, Columns: []Cell{{Name: c.column, Value: c.value}}}
		got, err := BindRecord[numbers](r)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s %v: %v", c.value.Kind(), c.value, err)
			}
			continue
		}
		field := "numbers." + strings.ToUpper(c.column[:1]) + c.column[1:]
		want := `column "` + c.column + `" of type ` + c.value.Kind().String() + ` does not fit field ` + field + " of type " + c.want
		if err == nil || err.Error() != want {
			t.Errorf("%s %v: the error is\n%v, want\n%s", c.value.Kind(), c.value, err, want)
		}
		var bind *BindError
		if !errors.As(err, &bind) || bind.Column != c.column || bind.Kind != c.value.Kind() {
			t.Errorf("the error is %#v", err)
		}
		if !reflect.DeepEqual(got, numbers{}) {
			t.Errorf("with an error T is %+v", got)
		}
	}
}

func TestBind_reports_every_field_that_cannot_be_filled(t *testing.T) {
	type pair struct {
		A int    `ots:"a,required"`
		B string `ots:"b"`
		C string `ots:"c,required"`
	}
	r := &Record{Type: Update, Columns: []Cell{{Name: "b", Value: IntegerValue(1)}, {Name: "c"}}}
	_, err := BindRecord[pair](r)
	want := `column "a" is missing and field pair.A requires it: the record did not write it
column "b" of type integer does not fit field pair.B of type string: the field takes string
column "c" is missing and field pair.C requires it: the record did not write it`
	if err == nil || err.Error() != want {
		t.Errorf("the error is\n%v, want\n%s", err, want)
	}
}

func TestBind_types_and_tags_that_cannot_work_are_errors(t *testing.T) {
	type unexported struct {
		id int `ots:"id"`
	}
	_ = unexported{}.id
	r := &Record{Type: Put}
	check := func(err error, want string) {
		t.Helper()
		if err == nil || err.Error() != want {
			t.Errorf("the error is\n%v, want\n%s", err, want)
		}
	}
	_, err := BindRecord[int](r)
	check(err, "binding to int: not a struct")
	_, err = BindRecord[*order](r)
	check(err, "binding to *ots.order: not a struct")
	_, err = BindRecord[unexported](r)
	check(err, "binding to ots.unexported: field unexported.id has a tag and is not exported")
	type faulty struct {
		*base
		A int       `ots:""`
		B int       `ots:"b,omitempty"`
		C time.Time `ots:"c"`
		D int       `ots:"d,unix"`
		E []int     `ots:"e"`
		F *chan int `ots:"f"`
		G time.Time `ots:"g,unix,unixmilli"`
	}
	_, err = BindRecord[faulty](r)
	options := "; use required, key, or for a time.Time one of unix, unixmilli, unixmicro, unixnano and rfc3339"
	check(err, `binding to ots.faulty: field faulty.base embeds a pointer: embed the struct itself, or tag it "-"
field faulty.A: tag "" does not name a column
field faulty.B: tag "b,omitempty": unknown option "omitempty"`+options+`
field faulty.C: a time.Time needs an option that says how it is stored: unix, unixmilli, unixmicro, unixnano or rfc3339
field faulty.D: the option unix is for time.Time, the field is a int
field faulty.E: no column fits its type []int
field faulty.F: no column fits its type chan int
field faulty.G: tag "g,unix,unixmilli": unknown option "unixmilli"`+options)
}

func TestBind_needs_a_record(t *testing.T) {
	if _, err := Bind[order](message.NewMessage("1", nil)); !errors.Is(err, ErrNoRecord) {
		t.Errorf("the error is %v", err)
	}
}

func TestBindOrigin_fills_from_before_the_change(t *testing.T) {
	type row struct {
		ID     int64  `ots:"id"`
		Amount *int64 `ots:"amount"`
		Note   string `ots:"note"`
	}
	r := &Record{
		Type: Update, PrimaryKey: []Column{{"id", IntegerValue(7)}}, Columns: []Cell{{Name: "amount", Value: IntegerValue(13)}, {Name: "note", Value: StringValue("new")}},
		Origin: []Cell{{Name: "amount", Value: IntegerValue(12)}},
	}
	got, err := BindOrigin[row](r)
	if err != nil || got.ID != 7 || got.Amount == nil || *got.Amount != 12 || got.Note != "" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestBind_copies_what_it_fills_in(t *testing.T) {
	body := []byte("textbytes") // a record's texts are views of the page that was read
	page := unsafe.String(unsafe.SliceData(body), len(body))
	type row struct {
		Text  string `ots:"s"`
		Bytes []byte `ots:"b"`
		Any   any    `ots:"s"`
	}
	got, err := BindRecord[row](&Record{Columns: []Cell{{Name: "s", Value: StringValue(page[:4])}, {Name: "b", Value: BinaryValueOf(page[4:])}}})
	if err != nil {
		t.Fatal(err)
	}
	clear(body)
	if want := (row{"text", []byte("bytes"), "text"}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestBind_may_be_called_from_any_goroutine(t *testing.T) {
	type fresh struct { // not bound by another test: its plan is built here
		ID int64 `ots:"id"`
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if got, err := BindRecord[fresh](boundRecord()); err != nil || got.ID != 7 {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	all.Wait()
}

func TestBind_integer_that_fits_is_exact_and_one_that_does_not_is_an_error(t *testing.T) {
	type row struct {
		Int16   *int16   `ots:"v"`
		Uint32  *uint32  `ots:"v"`
		Float32 *float32 `ots:"v"`
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(rapid.Int64(), rapid.Int64Range(-1<<17, 1<<33)).Draw(t, "n")
		for _, v := range []Value{IntegerValue(n), DoubleValue(float64(n))} {
			_, err := BindRecord[row](&Record{Columns: []Cell{{Name: "v", Value: v}}})
			failed := make(map[string]bool)
			if joined, ok := err.(interface{ Unwrap() []error }); ok {
				for _, e := range joined.Unwrap() {
					failed[e.(*BindError).Field] = true
				}
			}
			if v.Kind() == KindDouble && (n > 1<<53 || n < -1<<53) {
				continue // the double is not equal to n
			}
			for field, fits := range map[string]bool{
				"row.Int16":   n >= math.MinInt16 && n <= math.MaxInt16,
				"row.Uint32":  n >= 0 && n <= math.MaxUint32,
				"row.Float32": float64(float32(asFloat(v))) == asFloat(v) && (v.Kind() == KindDouble || int64(asFloat(v)) == n && n != math.MaxInt64),
			} {
				if failed[field] == fits {
					t.Fatalf("%s %v: %s failed: %v", v.Kind(), v, field, failed[field])
				}
			}
		}
	})
}

// asFloat is the nearest float of a number.
func asFloat(v Value) float64 {
	if v.Kind() == KindInteger {
		return float64(v.Int64())
	}
	return v.Float64()
}

func BenchmarkBind(b *testing.B) {
	type row struct {
		ID int64  `ots:"id"`
		C0 string `ots:"column_0"`
		C1 string `ots:"column_1"`
		C2 string `ots:"column_2"`
		C3 string `ots:"column_3"`
		C4 string `ots:"column_4"`
	}
	r := &Record{PrimaryKey: []Column{{"id", IntegerValue(1234567)}}}
	for i := range 5 {
		r.Columns = append(r.Columns, Cell{Name: fmt.Sprintf("column_%d", i), Value: StringValue("twenty bytes of text")})
	}
	msg := message.NewMessage("1", nil)
	WithRecord(msg, r)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Bind[row](msg); err != nil {
			b.Fatal(err)
		}
	}
}
