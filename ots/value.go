package ots

import (
	"math"
	"strconv"
)

// Kind is the type of a Value.
type Kind uint8

// The types of Tablestore values. The zero Value has KindNone.
const (
	KindNone Kind = iota
	KindInteger
	KindDouble
	KindBoolean
	KindString
	KindBinary
)

// String returns the service's name of the type, in lower case.
func (k Kind) String() string {
	switch k {
	case KindNone:
		return "none"
	case KindInteger:
		return "integer"
	case KindDouble:
		return "double"
	case KindBoolean:
		return "boolean"
	case KindString:
		return "string"
	case KindBinary:
		return "binary"
	}
	return "Kind(" + strconv.Itoa(int(k)) + ")"
}

// Value is one column value. It is small, comparable with ==, and passed by value.
type Value struct {
	kind Kind
	num  uint64 // integer, IEEE-754 bits or 0/1
	data string // string or binary
}

// IntegerValue returns an integer Value.
func IntegerValue(v int64) Value { return Value{kind: KindInteger, num: uint64(v)} }

// DoubleValue returns a double Value.
func DoubleValue(v float64) Value { return Value{kind: KindDouble, num: math.Float64bits(v)} }

// BooleanValue returns a boolean Value.
func BooleanValue(v bool) Value {
	if v {
		return Value{kind: KindBoolean, num: 1}
	}
	return Value{kind: KindBoolean}
}

// StringValue returns a string Value.
func StringValue(v string) Value { return Value{kind: KindString, data: v} }

// BinaryValue returns a binary Value with a copy of v.
func BinaryValue(v []byte) Value { return Value{kind: KindBinary, data: string(v)} }

// BinaryValueOf returns a binary Value of the bytes of v. Unlike BinaryValue it copies nothing.
func BinaryValueOf(v string) Value { return Value{kind: KindBinary, data: v} }

// Kind returns the type of v.
func (v Value) Kind() Kind { return v.kind }

// Int64 returns an integer; of any other kind, 0.
func (v Value) Int64() int64 {
	if v.kind != KindInteger {
		return 0
	}
	return int64(v.num)
}

// Float64 returns a double; of any other kind, 0.
func (v Value) Float64() float64 {
	if v.kind != KindDouble {
		return 0
	}
	return math.Float64frombits(v.num)
}

// Bool returns a boolean; of any other kind, false.
func (v Value) Bool() bool { return v.kind == KindBoolean && v.num == 1 }

// String returns a string as it is, and any other value as readable text: numbers
// and booleans in Go syntax, binary as its bytes. Use Kind to distinguish them.
func (v Value) String() string {
	switch v.kind {
	case KindInteger:
		return strconv.FormatInt(int64(v.num), 10)
	case KindDouble:
		return strconv.FormatFloat(math.Float64frombits(v.num), 'g', -1, 64)
	case KindBoolean:
		return strconv.FormatBool(v.num == 1)
	}
	return v.data
}

// Bytes returns a copy of a binary value or of a string's bytes; of any other kind, nil.
func (v Value) Bytes() []byte {
	if v.kind != KindBinary && v.kind != KindString {
		return nil
	}
	return []byte(v.data)
}

// Any returns the value as int64, float64, bool, string or []byte (a copy), or
// nil for the zero Value.
func (v Value) Any() any {
	switch v.kind {
	case KindInteger:
		return int64(v.num)
	case KindDouble:
		return math.Float64frombits(v.num)
	case KindBoolean:
		return v.num == 1
	case KindString:
		return v.data
	case KindBinary:
		return []byte(v.data)
	}
	return nil
}
