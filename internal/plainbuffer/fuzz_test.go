package plainbuffer

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
)

// addSeeds gives the fuzzer every tag, kind and cell type to start from.
func addSeeds(f *testing.F) {
	all := AppendHeader(nil)
	for i := range workedExamples {
		f.Add(unhex(f, workedExamples[i].wire))
		all = AppendRow(all, &workedExamples[i].row)
	}
	f.Add(all)
	every := Row{HasSequence: true, Sequence: Sequence{Epoch: -1, Timestamp: math.MaxInt64, RowIndex: 7}}
	for _, v := range ascending {
		every.Cells = append(every.Cells, putAt("c", v, 1))
	}
	f.Add(AppendRow(AppendHeader(nil), &every))
	f.Add(AppendRow(AppendHeader(nil), benchmarkRow()))
	f.Add(unhex(f, "75000000"))
	f.Add(unhex(f, "75000000 02 03 04 01000000 61 0a 20 09 00"))
	f.Add(unhex(f, "75000000 01 02 09 00"))
	f.Add(unhex(f, "75000000 01 0b 07000000 10 02000000 abcd 09 00"))
}

// FuzzRoundTrip checks that what can be decoded can be encoded, and that the
// encoding means the same and is stable.
func FuzzRoundTrip(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		buf := slices.Clip(repairChecksums(data))
		rows, err := DecodeAll(buf)
		if err != nil {
			var se *SyntaxError
			if !errors.As(err, &se) || se.Offset < 0 || se.Offset > len(buf) {
				t.Fatalf("not a syntax error in the buffer: %v", err)
			}
			return
		}
		again := AppendHeader(nil)
		for i := range rows {
			again = AppendRow(again, &rows[i])
		}
		decoded, err := DecodeAll(again)
		if err != nil {
			t.Fatalf("our own encoding %x of %x: %v", again, buf, err)
		}
		third := AppendHeader(nil)
		for i := range decoded {
			if !sameRow(&rows[i], &decoded[i]) {
				t.Fatalf("row %d\n was %+v\n is  %+v", i, rows[i], decoded[i])
			}
			third = AppendRow(third, &decoded[i])
		}
		if len(decoded) != len(rows) || !bytes.Equal(again, third) {
			t.Fatalf("encoding is not stable:\n%x\n%x", again, third)
		}

		// The reusing decoders agree with DecodeAll.
		var row Row
		for p, i := headerSize, 0; p < len(buf); i++ {
			n, err := DecodeRow(buf[p:], &row)
			if err != nil || !sameRow(&row, &rows[i]) || row.KeyBytes != rows[i].KeyBytes {
				t.Fatalf("DecodeRow of row %d: %v, %+v, want %+v", i, err, row, rows[i])
			}
			p += n
		}
		if err := Decode(buf, &row); (err == nil) != (len(rows) == 1) {
			t.Fatalf("Decode of %d rows: %v", len(rows), err)
		}
	})
}

// Where the two decoders may part: by our message, and by the SDK's.
var (
	onlyWeRefuse = []string{
		"unknown value type",          // the SDK reads a value of no type and no payload
		"total length does not match", // the SDK does not look at it
		"primary key column",          // the SDK dereferences nil later
		"data after the only row",     // the SDK drops further rows of a record
		"no row checksum at offset 4", // a header alone: the SDK indexes an empty slice
	}
	onlyTheSDKRefuses = []string{
		"[tablestore] unexpect tag",    // no primary key part; an extension that does not begin with a sequence
		"[tablestore] expect checksum", // an unknown part after the sequence
	}
)

// FuzzDecodeAgainstSDK checks that the official SDK's decoder, which verifies no
// checksum, and ours read the same from the same bytes, and that one refuses what
// the other reads only in the ways listed above.
func FuzzDecodeAgainstSDK(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		buf := repairChecksums(data)

		rows, err := DecodeAll(buf)
		sdkRows, sdkErr := sdkDecodeAll(buf)
		if !mayDiffer(t, buf, err, sdkErr) {
			if len(rows) != len(sdkRows) {
				t.Fatalf("%x: %d rows, the SDK's %d", buf, len(rows), len(sdkRows))
			}
			for i := range rows {
				if got, want := describeRow(&rows[i]), describeSDKRow(sdkRows[i]); got != want {
					t.Fatalf("%x: row %d\n  we %s\n SDK %s", buf, i, got, want)
				}
			}
		}

		var row Row
		err = Decode(buf, &row)
		record, sdkErr := sdkDecodeRecord(buf)
		if !mayDiffer(t, buf, err, sdkErr) {
			if got, want := describeRecord(&row), describeSDKRecord(record); got != want {
				t.Fatalf("%x: record\n  we %s\n SDK %s", buf, got, want)
			}
		}
	})
}

// mayDiffer reports that there are no two results to compare: both decoders
// refused, or one did where it may.
func mayDiffer(t *testing.T, buf []byte, err, sdkErr error) bool {
	t.Helper()
	listed := func(err error, texts []string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(err.Error(), text) })
	}
	switch {
	case err == nil && sdkErr == nil:
		return false
	case sdkErr == nil && !listed(err, onlyWeRefuse):
		t.Fatalf("%x: only we refuse it: %v", buf, err)
	case err == nil && !listed(sdkErr, onlyTheSDKRefuses):
		t.Fatalf("%x: only the SDK refuses it: %v", buf, sdkErr)
	}
	return true
}

func sdkDecodeAll(buf []byte) (rows []*protocol.PlainBufferRow, err error) {
	defer recovered(&err)
	return protocol.ReadRowsWithHeader(bytes.NewReader(buf))
}

func sdkDecodeRecord(buf []byte) (record *tunnel.Record, err error) {
	defer recovered(&err)
	return tunnel.DeserializeRecordFromRawBytes(buf, nil, tunnel.AT_Put)
}

// recovered turns a panic of the SDK into an error.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v", p)
	}
}

// The describe functions write the same facts of both decoders' results in the
// same words, leaving out what the SDK cannot tell: unknown cell types, Null and
// AutoIncrement.

func describeRow(r *Row) string {
	var b strings.Builder
	cells := func(cells []Cell) {
		for _, c := range cells {
			op := c.Op
			if op != DeleteAllVersion && op != DeleteOneVersion {
				op = Put
			}
			fmt.Fprintf(&b, " %q op=%d ts=%t,%d", c.Name, op, c.HasTimestamp, c.Timestamp)
			if c.HasValue {
				typ, v := sdkValue(c.Value)
				fmt.Fprintf(&b, " %d:%s", typ, describeAny(v))
			}
		}
	}
	cells(r.PrimaryKey)
	b.WriteString(" |")
	cells(r.Cells)
	fmt.Fprintf(&b, " | delete=%t sequence=%t,%d,%d,%d", r.Delete, r.HasSequence, r.Sequence.Epoch, r.Sequence.Timestamp, r.Sequence.RowIndex)
	return b.String()
}

func describeSDKRow(r *protocol.PlainBufferRow) string {
	var b strings.Builder
	cells := func(cells []*protocol.PlainBufferCell) {
		for _, c := range cells {
			fmt.Fprintf(&b, " %q op=%d ts=%t,%d", c.CellName, c.CellType, c.HasCellTimestamp, c.CellTimestamp)
			if c.CellValue != nil {
				fmt.Fprintf(&b, " %d:%s", c.CellValue.Type, describeAny(c.CellValue.Value))
			}
		}
	}
	cells(r.PrimaryKey)
	b.WriteString(" |")
	cells(r.Cells)
	var s protocol.RecordSequenceInfo
	if r.Extension != nil {
		s = *r.Extension
	}
	fmt.Fprintf(&b, " | delete=%t sequence=%t,%d,%d,%d", r.HasDeleteMarker, r.Extension != nil, s.Epoch, s.Timestamp, s.RowIndex)
	return b.String()
}

func describeRecord(r *Row) string {
	var b strings.Builder
	for _, c := range r.PrimaryKey {
		_, v := sdkValue(c.Value)
		fmt.Fprintf(&b, " %q=%s", c.Name, describeAny(v))
	}
	b.WriteString(" |")
	for _, c := range r.Cells {
		typ := tunnel.RCT_Put
		switch c.Op {
		case DeleteOneVersion:
			typ = tunnel.RCT_DeleteOneVersion
		case DeleteAllVersion:
			typ = tunnel.RCT_DeleteAllVersions
		}
		var v any
		if c.HasValue {
			_, v = sdkValue(c.Value)
		}
		fmt.Fprintf(&b, " %q=%s type=%d ts=%d", c.Name, describeAny(v), typ, c.Timestamp)
	}
	fmt.Fprintf(&b, " | sequence=%t,%d,%d", r.HasSequence, r.Sequence.Timestamp, r.Sequence.RowIndex)
	return b.String()
}

func describeSDKRecord(r *tunnel.Record) string {
	var b strings.Builder
	for _, c := range r.PrimaryKey.PrimaryKeys {
		fmt.Fprintf(&b, " %q=%s", c.ColumnName, describeAny(c.Value))
	}
	b.WriteString(" |")
	for _, c := range r.Columns {
		fmt.Fprintf(&b, " %q=%s type=%d ts=%d", *c.Name, describeAny(c.Value), c.Type, *c.Timestamp)
	}
	var s tunnel.SequenceInfo
	if r.SequenceInfo != nil {
		s = *r.SequenceInfo
	}
	fmt.Fprintf(&b, " | sequence=%t,%d,%d", r.SequenceInfo != nil, s.Timestamp, s.RowIndex)
	return b.String()
}

// sdkValue returns the SDK's representation of a value.
func sdkValue(v Value) (protocol.ColumnType, any) {
	switch v.Kind() {
	case Integer:
		return protocol.ColumnType_INTEGER, v.Integer()
	case Double:
		return protocol.ColumnType_DOUBLE, v.Double()
	case Boolean:
		return protocol.ColumnType_BOOLEAN, v.Boolean()
	case String:
		return protocol.ColumnType_STRING, v.Str()
	case Binary:
		return protocol.ColumnType_BINARY, v.Bytes()
	case InfMin:
		return protocol.ColumnType_MIN, nil
	case InfMax:
		return protocol.ColumnType_MAX, nil
	}
	return 0, nil
}

// describeAny tells values apart by type and bits.
func describeAny(v any) string {
	if f, ok := v.(float64); ok {
		return fmt.Sprintf("float64:%x", math.Float64bits(f))
	}
	return fmt.Sprintf("%T:%q", v, fmt.Sprint(v))
}
