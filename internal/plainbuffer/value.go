package plainbuffer

import (
	"cmp"
	"math"
	"strings"
	"unsafe"
)

// Kind is the type byte of a value on the wire.
type Kind uint8

// The kinds of values. A primary key holds Integer, String and Binary only;
// InfMin and InfMax stand in key bounds, AutoIncrement in the key of a put that
// leaves the column's number to the service. Null appears in search and SQL
// answers, never in a stored column.
const (
	Integer       Kind = 0x00
	Double        Kind = 0x01
	Boolean       Kind = 0x02
	String        Kind = 0x03
	Null          Kind = 0x06
	Binary        Kind = 0x07
	InfMin        Kind = 0x09
	InfMax        Kind = 0x0A
	AutoIncrement Kind = 0x0B
)

// Value is one column value, without boxing. The zero Value is the integer 0.
// A Value is immutable and may be used concurrently as long as the bytes behind
// it stay unchanged.
//
// Invariants: num is zero unless the kind is Integer, Double or Boolean (then 0
// or 1); data is empty unless the kind is String or Binary. Two Values are
// therefore == exactly when they have the same bits, which distinguishes 0.0 from
// -0.0; Equal does not.
type Value struct {
	kind Kind
	num  uint64 // integer, float bits, bool
	data string // view of a string or binary payload
}

// IntegerValue returns an Integer.
func IntegerValue(n int64) Value { return Value{kind: Integer, num: uint64(n)} }

// DoubleValue returns a Double. Every bit pattern survives encoding, NaN's
// payload included.
func DoubleValue(f float64) Value { return Value{kind: Double, num: math.Float64bits(f)} }

// BooleanValue returns a Boolean.
func BooleanValue(b bool) Value {
	v := Value{kind: Boolean}
	if b {
		v.num = 1
	}
	return v
}

// StringValue returns a String. Tablestore requires UTF-8, which is not checked here.
func StringValue(s string) Value { return Value{kind: String, data: s} }

// BinaryValue returns a Binary that is a view of b: b must not be changed while
// the Value is in use.
func BinaryValue(b []byte) Value { return Value{kind: Binary, data: view(b)} }

// Special returns a value that consists of its kind alone: Null, InfMin, InfMax
// or AutoIncrement. It panics for any other kind.
func Special(k Kind) Value {
	switch k {
	case Null, InfMin, InfMax, AutoIncrement:
		return Value{kind: k}
	}
	panic("plainbuffer: Special called with a kind that has a payload")
}

// Kind returns the value's kind.
func (v Value) Kind() Kind { return v.kind }

// Integer returns the number of an Integer, and a meaningless number for other kinds.
func (v Value) Integer() int64 { return int64(v.num) }

// Double returns the number of a Double, and a meaningless number for other kinds.
func (v Value) Double() float64 { return math.Float64frombits(v.num) }

// Boolean returns the value of a Boolean, and a meaningless value for other kinds.
func (v Value) Boolean() bool { return v.num != 0 }

// Str returns the payload of a String or Binary as a view, "" for other kinds.
func (v Value) Str() string { return v.data }

// Bytes returns the payload of a String or Binary as a view that must not be
// written to; appending to it copies. Other kinds give an empty slice. It is
// never nil, because a nil []byte often means "no value".
func (v Value) Bytes() []byte {
	if v.data == "" {
		return []byte{}
	}
	return unsafe.Slice(unsafe.StringData(v.data), len(v.data))
}

// Compare returns -1, 0 or +1 in key order: InfMin before everything, InfMax
// after everything, Integer by number, String and Binary by bytes, a prefix
// first. Double is ordered as by cmp.Compare: NaN first and equal to itself,
// -0 equal to 0. Values of different kinds are ordered by kind, never by number.
func (v Value) Compare(w Value) int {
	if v.kind != w.kind {
		return cmp.Compare(rank(v.kind), rank(w.kind))
	}
	switch v.kind {
	case String, Binary:
		return strings.Compare(v.data, w.data)
	case Double:
		return cmp.Compare(v.Double(), w.Double())
	default:
		return cmp.Compare(int64(v.num), int64(w.num))
	}
}

// Equal reports whether v and w compare as equal.
func (v Value) Equal(w Value) bool { return v.Compare(w) == 0 }

// rank is the place of a kind in key order: the kind's own byte, except for the
// two infinities.
func rank(k Kind) byte {
	switch k {
	case InfMin:
		return 0x00
	case InfMax:
		return 0xFF
	}
	return byte(k) + 1
}

// view returns b's bytes as a string without copying.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
