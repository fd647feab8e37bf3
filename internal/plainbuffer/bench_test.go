package plainbuffer

import (
	"fmt"
	"strings"
	"testing"
)

// benchmarkRow is a typical stream record: an integer key, five columns of
// twenty bytes, timestamps and a sequence.
func benchmarkRow() *Row {
	row := &Row{
		PrimaryKey:  []Cell{{Name: "id", Value: IntegerValue(123456789), HasValue: true}},
		HasSequence: true,
		Sequence:    Sequence{Epoch: 1, Timestamp: 1700000000123456, RowIndex: 2},
	}
	for i := range 5 {
		row.Cells = append(row.Cells, Cell{
			Name:  fmt.Sprintf("col%d", i),
			Value: StringValue(strings.Repeat(string(rune('a'+i)), 20)), HasValue: true,
			Timestamp: 1700000000123, HasTimestamp: true,
		})
	}
	return row
}

func BenchmarkDecode(b *testing.B) {
	buf := AppendRow(AppendHeader(nil), benchmarkRow())
	var row Row
	b.ReportAllocs()
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if err := Decode(buf, &row); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendRow(b *testing.B) {
	row := benchmarkRow()
	buf := AppendRow(nil, row)
	b.ReportAllocs()
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		buf = AppendRow(buf[:0], row)
	}
}

// BenchmarkChecksum compares folding with the usual table lookup a byte.
func BenchmarkChecksum(b *testing.B) {
	var table [256]byte
	for i := range table {
		table[i] = referenceCRC([]byte{byte(i)})
	}
	for _, n := range []int{4, 25, 100, 4096} {
		buf := make([]byte, n)
		var sum byte
		b.Run(fmt.Sprintf("fold/%dB", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				sum ^= crc(0).bytes(buf).sum()
			}
		})
		b.Run(fmt.Sprintf("table/%dB", n), func(b *testing.B) {
			b.SetBytes(int64(n))
			for b.Loop() {
				var crc byte
				for _, x := range buf {
					crc = table[crc^x]
				}
				sum ^= crc
			}
		})
	}
}

func BenchmarkCompare(b *testing.B) {
	v := StringValue(strings.Repeat("a", 20))
	w := StringValue(strings.Repeat("a", 19) + "b")
	for b.Loop() {
		if v.Compare(w) >= 0 {
			b.Fatal("wrong order")
		}
	}
}

func BenchmarkAppendOrderedKey(b *testing.B) {
	key := []Cell{{Value: StringValue("customer-0001")}, {Value: IntegerValue(42)}}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendOrderedKey(buf[:0], key)
	}
}
