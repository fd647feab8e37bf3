package ots

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// ErrNoRecord is returned by Bind for a message that was not built from a record.
var ErrNoRecord = errors.New("the message has no record")

// Bind fills a struct from the record that the message was built from, whatever
// the message's payload is. A field with the tag `ots:"name"` takes the newest
// value written to the column of that name, primary key columns included.
//
//	type Order struct {
//		ID      int64     `ots:"id,required"`
//		Amount  float64   `ots:"amount"`
//		Note    *string   `ots:"note"`
//		Created time.Time `ots:"created,unixmilli"`
//	}
//
// A column that the record did not write leaves its field unchanged (zero, or a
// nil pointer), unless the tag says required. Note that an update holds only what
// changed, and a delete only the key. Fields without a tag are not filled, except
// that embedded structs without a tag are.
//
//   - Integers take INTEGER, and DOUBLE if it is whole; out of range is an error.
//   - Floats take DOUBLE and INTEGER; inexact is an error (NaN and the infinities are not).
//   - bool takes BOOLEAN, string takes STRING.
//   - []byte takes BINARY and STRING.
//   - A type with UnmarshalText takes STRING.
//   - time.Time takes INTEGER with one of the options unix, unixmilli, unixmicro
//     and unixnano (since 1970, in UTC), and STRING with the option rfc3339.
//   - Value takes every type, and so does any (as Value.Any converts it).
//
// Types derived from these and pointers to them take the same. Strings and bytes
// are copied, so T may be kept; a Value is a view, as in the record.
//
// The option key marks columns of the primary key for WriteRow, the opposite of Bind, and means nothing here.
//
// When Bind returns an error, T is zero. The error joins a *BindError for each field
// that could not be filled, or says what is wrong with T or its tags. Bind may be
// called from any goroutine.
func Bind[T any](msg *message.Message) (T, error) {
	r, ok := RecordFromMessage(msg)
	if !ok {
		var none T
		return none, ErrNoRecord
	}
	return BindRecord[T](r)
}

// BindRecord fills a struct from a record, as Bind does.
func BindRecord[T any](r *Record) (T, error) { return bind[T](r.Column) }

// BindOrigin fills a struct from the row as it was before the change: its primary
// key and the old columns that the table's stream keeps.
func BindOrigin[T any](r *Record) (T, error) {
	before := Record{PrimaryKey: r.PrimaryKey, Columns: r.Origin}
	return bind[T](before.Column)
}

// BindRow fills a struct from the row that was looked up (subscriber.Config.Lookup) and its
// primary key. Where the row is gone or was not looked up only the key is there.
func BindRow[T any](r *Record) (T, error) { return bind[T](r.RowColumn) }

// BindTo is BindRecord for a pointer to a struct, whose type need not be known when the program is
// compiled. It sets the struct as a whole, or returns an error and leaves it alone.
func BindTo(r *Record, to any) error { return bindTo(r.Column, to) }

// BindRowTo is BindRow in the same way.
func BindRowTo(r *Record, to any) error { return bindTo(r.RowColumn, to) }

// CheckBinding reports what is wrong with the type that v points to, a struct, or with its tags.
func CheckBinding(v any) error {
	typ := reflect.TypeOf(v)
	if typ == nil || typ.Kind() != reflect.Pointer {
		return fmt.Errorf("binding to %T: not a pointer to a struct", v)
	}
	return planOf(typ.Elem()).err
}

func bindTo(column func(name string) (Value, bool), to any) error {
	p := reflect.ValueOf(to)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("binding to %T: not a pointer to a struct", to)
	}
	filled := reflect.New(p.Type().Elem()).Elem()
	if err := fill(filled, column); err != nil {
		return err
	}
	p.Elem().Set(filled)
	return nil
}

func bind[T any](column func(name string) (Value, bool)) (T, error) {
	var to, zero T
	if err := fill(reflect.ValueOf(&to).Elem(), column); err != nil {
		return zero, err
	}
	return to, nil
}

// fill fills a struct. After an error some of its fields may be set.
func fill(v reflect.Value, column func(name string) (Value, bool)) error {
	p := planOf(v.Type())
	if p.err != nil {
		return p.err
	}
	var errs []error
	for i := range p.fields {
		f := &p.fields[i]
		value, ok := column(f.column)
		fault := ""
		switch {
		case ok && value.kind != KindNone:
			fault = f.set(v.FieldByIndex(f.index), value)
		case f.required:
			fault = "the record did not write it"
		}
		if fault != "" {
			errs = append(errs, &BindError{Column: f.column, Kind: value.kind, Field: f.name, Type: f.typ, Reason: fault})
		}
	}
	return errors.Join(errs...)
}

// BindError reports a column that does not fit its field. It never holds the value.
type BindError struct {
	Column string
	Kind   Kind   // of the value; KindNone if there is none
	Field  string // such as "Order.Amount", or "Order.Base.ID" for an embedded struct
	Type   reflect.Type
	Reason string

	writing bool // by WriteRow
}

// Error implements error.
func (e *BindError) Error() string {
	if e.writing {
		return fmt.Sprintf("field %s of type %s does not fit column %q: %s", e.Field, e.Type, e.Column, e.Reason)
	}
	if e.Kind == KindNone {
		return fmt.Sprintf("column %q is missing and field %s requires it: %s", e.Column, e.Field, e.Reason)
	}
	return fmt.Sprintf("column %q of type %s does not fit field %s of type %s: %s", e.Column, e.Kind, e.Field, e.Type, e.Reason)
}

// plan describes how a struct type is filled. It is built once for each type.
type plan struct {
	typ    reflect.Type
	fields []boundField
	err    error // of the type or its tags
}

type boundField struct {
	column   string
	name     string // for error texts: qualified with its struct and the structs that embed it
	index    []int
	typ      reflect.Type
	required bool
	key      bool // of the primary key, for WriteRow
	set      setter
	get      getter
}

// setter stores a value. It returns why the value does not fit, or "" if it does.
type setter func(to reflect.Value, v Value) (fault string)

var plans sync.Map // of *plan by reflect.Type

func planOf(typ reflect.Type) *plan {
	if p, ok := plans.Load(typ); ok {
		return p.(*plan)
	}
	p := &plan{typ: typ}
	if typ.Kind() != reflect.Struct {
		p.err = fmt.Errorf("binding to %s: not a struct", typ)
	} else if err := errors.Join(p.add(typ, nil, typ.Name()+".")...); err != nil {
		p.err = fmt.Errorf("binding to %s: %w", typ, err)
	}
	kept, _ := plans.LoadOrStore(typ, p)
	return kept.(*plan)
}

// add plans the fields of the struct at index; prefix goes before their names in
// error texts.
func (p *plan) add(typ reflect.Type, index []int, prefix string) (faults []error) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		at := append(index[:len(index):len(index)], i)
		tag, tagged := f.Tag.Lookup("ots")
		switch {
		case tag == "-":
		case !tagged && f.Anonymous && f.Type.Kind() == reflect.Struct:
			faults = append(faults, p.add(f.Type, at, prefix+f.Name+".")...)
		case !tagged && f.Anonymous && pointsToTags(f.Type):
			faults = append(faults, fmt.Errorf("field %s%s embeds a pointer: embed the struct itself, or tag it %q", prefix, f.Name, "-"))
		case !tagged:
		case !f.IsExported():
			faults = append(faults, fmt.Errorf("field %s%s has a tag and is not exported", prefix, f.Name))
		default:
			b, err := newBoundField(f, tag)
			if err != nil {
				faults = append(faults, fmt.Errorf("field %s%s: %w", prefix, f.Name, err))
			}
			b.index, b.name = at, prefix+f.Name
			p.fields = append(p.fields, b)
		}
	}
	return faults
}

// pointsToTags reports whether typ is a pointer to a struct with tagged fields.
func pointsToTags(typ reflect.Type) bool {
	if typ.Kind() != reflect.Pointer || typ.Elem().Kind() != reflect.Struct {
		return false
	}
	for i := range typ.Elem().NumField() {
		if _, tagged := typ.Elem().Field(i).Tag.Lookup("ots"); tagged {
			return true
		}
	}
	return false
}

func newBoundField(f reflect.StructField, tag string) (boundField, error) {
	b := boundField{typ: f.Type}
	column, options, _ := strings.Cut(tag, ",")
	if b.column = column; column == "" {
		return b, fmt.Errorf("tag %q does not name a column", tag)
	}
	form := ""
	for option := range strings.SplitSeq(options, ",") {
		switch {
		case option == "":
		case option == "required":
			b.required = true
		case option == "key":
			b.key = true
		case timeForms[option] != nil && form == "":
			form = option
		default:
			return b, fmt.Errorf("tag %q: unknown option %q; use required, key, or for a time.Time one of unix, unixmilli, unixmicro, unixnano and rfc3339", tag, option)
		}
	}
	var err error
	b.set, err = setterOf(f.Type, form)
	b.get = getterOf(f.Type, form)
	return b, err
}

// timeForms convert values to times; ok is false for a value of another type or form.
var timeForms = map[string]func(v Value) (t time.Time, ok bool){
	"unix":      epochTime(func(n int64) time.Time { return time.Unix(n, 0) }),
	"unixmilli": epochTime(time.UnixMilli),
	"unixmicro": epochTime(time.UnixMicro),
	"unixnano":  epochTime(func(n int64) time.Time { return time.Unix(0, n) }),
	"rfc3339": func(v Value) (time.Time, bool) {
		t, err := time.Parse(time.RFC3339Nano, v.data)
		return t, err == nil && v.kind == KindString
	},
}

func epochTime(of func(int64) time.Time) func(Value) (time.Time, bool) {
	return func(v Value) (time.Time, bool) { return of(v.Int64()).UTC(), v.kind == KindInteger }
}

// setterOf returns the setter for fields of a type.
func setterOf(typ reflect.Type, form string) (setter, error) {
	switch {
	case typ.Kind() == reflect.Pointer:
		set, err := setterOf(typ.Elem(), form)
		return func(to reflect.Value, v Value) string {
			p := reflect.New(typ.Elem())
			fault := set(p.Elem(), v)
			if fault == "" {
				to.Set(p)
			}
			return fault
		}, err
	case typ == reflect.TypeFor[time.Time]():
		return timeSetter(form)
	case form != "":
		return nil, fmt.Errorf("the option %s is for time.Time, the field is a %s", form, typ)
	case typ == reflect.TypeFor[Value]():
		return func(to reflect.Value, v Value) string { to.Set(reflect.ValueOf(v)); return "" }, nil
	case reflect.PointerTo(typ).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return setText, nil
	}
	switch typ.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return setInt, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return setUint, nil
	case reflect.Float32, reflect.Float64:
		return setFloat, nil
	case reflect.Bool:
		return func(to reflect.Value, v Value) string {
			to.SetBool(v.Bool())
			return wants(v, KindBoolean)
		}, nil
	case reflect.String:
		return func(to reflect.Value, v Value) string {
			to.SetString(strings.Clone(v.data))
			return wants(v, KindString)
		}, nil
	case reflect.Slice:
		if typ.Elem().Kind() == reflect.Uint8 {
			return func(to reflect.Value, v Value) string {
				to.SetBytes(v.Bytes())
				return wants(v, KindBinary, KindString)
			}, nil
		}
	case reflect.Interface:
		if typ.NumMethod() == 0 {
			return func(to reflect.Value, v Value) string {
				if v.kind == KindString {
					v.data = strings.Clone(v.data)
				}
				to.Set(reflect.ValueOf(v.Any()))
				return ""
			}, nil
		}
	}
	return nil, fmt.Errorf("no column fits its type %s", typ)
}

// wants returns "" if v is of one of the kinds, else which kinds the field takes.
func wants(v Value, kinds ...Kind) string {
	names := make([]string, 0, len(kinds))
	for _, k := range kinds {
		if v.kind == k {
			return ""
		}
		names = append(names, k.String())
	}
	return "the field takes " + strings.Join(names, " and ")
}

func setInt(to reflect.Value, v Value) string {
	n, fault := whole(v)
	if fault == "" && to.OverflowInt(n) {
		return "out of the type's range"
	}
	to.SetInt(n)
	return fault
}

func setUint(to reflect.Value, v Value) string {
	n, fault := whole(v)
	if fault == "" && (n < 0 || to.OverflowUint(uint64(n))) {
		return "out of the type's range"
	}
	to.SetUint(uint64(n))
	return fault
}

// whole returns the value of an INTEGER, or of a DOUBLE that is a whole number.
func whole(v Value) (int64, string) {
	if v.kind != KindDouble {
		return v.Int64(), wants(v, KindInteger, KindDouble)
	}
	f := v.Float64()
	switch {
	case f != math.Trunc(f): // NaN, too
		return 0, "not an integer"
	case f < math.MinInt64 || f >= -math.MinInt64:
		return 0, "out of the type's range"
	}
	return int64(f), ""
}

func setFloat(to reflect.Value, v Value) string {
	f := v.Float64()
	if v.kind == KindInteger {
		f = float64(v.Int64())
		if f >= -math.MinInt64 || int64(f) != v.Int64() {
			return "the type cannot hold it exactly"
		}
	} else if fault := wants(v, KindDouble, KindInteger); fault != "" {
		return fault
	}
	to.SetFloat(f)
	if got := to.Float(); got != f && !math.IsNaN(f) {
		return "the type cannot hold it exactly"
	}
	return ""
}

func setText(to reflect.Value, v Value) string {
	if fault := wants(v, KindString); fault != "" {
		return fault
	}
	// The error of UnmarshalText often quotes the value.
	if to.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText(v.Bytes()) != nil {
		return "its UnmarshalText returned an error"
	}
	return ""
}

func timeSetter(form string) (setter, error) {
	if form == "" {
		return nil, errors.New("a time.Time needs an option that says how it is stored: unix, unixmilli, unixmicro, unixnano or rfc3339")
	}
	of := timeForms[form]
	return func(to reflect.Value, v Value) string {
		t, ok := of(v)
		if !ok {
			return "not a time in the form " + form
		}
		to.Set(reflect.ValueOf(t))
		return ""
	}, nil
}
