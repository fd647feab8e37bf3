package ots

import (
	"encoding"
	"errors"
	"math"
	"reflect"
	"time"
	"unicode/utf8"
)

// WriteRow is the opposite of Bind: it calls key with each primary key column of a struct,
// which is a field with the option key, and column with each other column, in the order of the
// fields. They fit the SDK's changes, whose values are of the same types:
//
//	change := &tablestore.PutRowChange{TableName: "orders", PrimaryKey: new(tablestore.PrimaryKey)}
//	err := ots.WriteRow(order, change.PrimaryKey.AddPrimaryKeyColumn, change.AddColumn)
//
// The tags are those of Bind. Integers become INTEGER, floats DOUBLE, bool BOOLEAN, string STRING,
// []byte BINARY, types with MarshalText STRING, and time.Time what its option says; a Value and an
// any are written as what they hold. Nil pointers, nil slices of bytes, nil and the zero Value are left out, which an
// update leaves as they were.
//
// What the service would not take or Bind not return is an error, a *BindError for each field, all of them
// joined; then neither function is called. A float32 is written as the double of the same value.
func WriteRow[T any](v T, key, column func(name string, value any)) error {
	p := planOf(reflect.TypeFor[T]())
	if p.err != nil {
		return p.err
	}
	from := reflect.ValueOf(&v).Elem()
	values := make([]Value, len(p.fields))
	var errs []error
	for i := range p.fields {
		f := &p.fields[i]
		value, fault := f.get(from.FieldByIndex(f.index))
		if fault == "" && f.key {
			fault = keyFault(value)
		}
		if fault != "" {
			errs = append(errs, &BindError{Column: f.column, Kind: value.kind, Field: f.name, Type: f.typ, Reason: fault, writing: true})
		}
		values[i] = value
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for i := range p.fields {
		switch f := &p.fields[i]; {
		case values[i].kind == KindNone:
		case f.key:
			key(f.column, values[i].Any())
		default:
			column(f.column, values[i].Any())
		}
	}
	return nil
}

// keyFault returns why a value cannot be in a primary key, or "".
func keyFault(v Value) string {
	switch v.kind {
	case KindNone:
		return "a primary key column needs a value"
	case KindInteger, KindString, KindBinary:
		return ""
	}
	return "a primary key column takes integer, string and binary"
}

// getter returns the value of a field, of no kind where there is none, or why it cannot be written.
type getter func(from reflect.Value) (v Value, fault string)

// getterOf returns the getter for fields of a type that setterOf accepts.
func getterOf(typ reflect.Type, form string) getter {
	switch {
	case typ.Kind() == reflect.Pointer:
		get := getterOf(typ.Elem(), form)
		return func(from reflect.Value) (Value, string) {
			if from.IsNil() {
				return Value{}, ""
			}
			return get(from.Elem())
		}
	case typ == reflect.TypeFor[time.Time]():
		return func(from reflect.Value) (Value, string) { return timeValue(from.Interface().(time.Time), form) }
	case typ == reflect.TypeFor[Value]():
		return func(from reflect.Value) (Value, string) {
			v := from.Interface().(Value)
			return v, valueFault(v)
		}
	case reflect.PointerTo(typ).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return textOf
	}
	switch typ.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(from reflect.Value) (Value, string) { return IntegerValue(from.Int()), "" }
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return func(from reflect.Value) (Value, string) { return uintValue(from.Uint()) }
	case reflect.Interface:
		return func(from reflect.Value) (Value, string) { return anyValue(from.Interface()) }
	}
	return basicValue
}

// basicValue is the getter of floats, booleans, strings and slices of bytes.
func basicValue(from reflect.Value) (v Value, fault string) {
	switch from.Kind() {
	case reflect.Float32, reflect.Float64:
		v = DoubleValue(from.Float())
	case reflect.Bool:
		v = BooleanValue(from.Bool())
	case reflect.String:
		v = StringValue(from.String())
	case reflect.Slice:
		if !from.IsNil() {
			v = BinaryValue(from.Bytes())
		}
	}
	return v, valueFault(v)
}

// valueFault returns why the service does not take a value, or "" [docs/protocol.md, Table API].
func valueFault(v Value) string {
	switch f := v.Float64(); {
	case v.kind == KindDouble && (math.IsNaN(f) || math.IsInf(f, 0)):
		return "the service takes finite doubles only"
	case v.kind == KindString && !utf8.ValidString(v.data):
		return "the service takes strings in UTF-8 only; use []byte for other bytes"
	}
	return ""
}

func uintValue(n uint64) (Value, string) {
	if n > math.MaxInt64 {
		return Value{}, "more than an INTEGER holds"
	}
	return IntegerValue(int64(n)), ""
}

// anyValue is the value of an any: one of the types that Value.Any returns.
func anyValue(x any) (v Value, fault string) {
	switch x := x.(type) {
	case nil:
	case int64:
		v = IntegerValue(x)
	case int:
		v = IntegerValue(int64(x))
	case float64:
		v = DoubleValue(x)
	case bool:
		v = BooleanValue(x)
	case string:
		v = StringValue(x)
	case []byte:
		v = BinaryValue(x)
	case Value:
		v = x
	default:
		return v, "an any takes int64, int, float64, bool, string, []byte and Value"
	}
	return v, valueFault(v)
}

// textOf is the getter of types with text forms.
func textOf(from reflect.Value) (Value, string) {
	x := from.Interface()
	if p := reflect.New(from.Type()); !from.Type().Implements(reflect.TypeFor[encoding.TextMarshaler]()) { // its pointer may
		p.Elem().Set(from)
		x = p.Interface()
	}
	m, ok := x.(encoding.TextMarshaler)
	if !ok {
		return Value{}, "it has UnmarshalText and no MarshalText"
	}
	text, err := m.MarshalText()
	if err != nil { // which often quotes the value
		return Value{}, "its MarshalText returned an error"
	}
	v := StringValue(string(text))
	return v, valueFault(v)
}

func timeValue(t time.Time, form string) (Value, string) {
	switch form {
	case "unix":
		return IntegerValue(t.Unix()), ""
	case "unixmilli":
		return IntegerValue(t.UnixMilli()), ""
	case "unixmicro":
		return IntegerValue(t.UnixMicro()), ""
	case "unixnano":
		if n := t.UnixNano(); time.Unix(0, n).Equal(t) {
			return IntegerValue(n), ""
		}
		return Value{}, "out of the range of unixnano, the years 1678 to 2261"
	}
	if y := t.Year(); y < 0 || y > 9999 {
		return Value{}, "rfc3339 takes the years 0 to 9999"
	}
	return StringValue(t.Format(time.RFC3339Nano)), ""
}
