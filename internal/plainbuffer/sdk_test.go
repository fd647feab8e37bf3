package plainbuffer

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"pgregory.net/rapid"
)

func TestDecode_agrees_with_the_sdk(t *testing.T) {
	t.Run("on_any_row", rapid.MakeCheck(func(t *rapid.T) {
		row := drawRow().Draw(t, "row")
		compareWithSDK(t, AppendRow(AppendHeader(nil), &row))
	}))

	// Changed bytes, checksums made right again, reach further into the decoders
	// than random buffers do.
	t.Run("on_any_row_with_changed_bytes", rapid.MakeCheck(func(t *rapid.T) {
		row := drawRow().Draw(t, "row")
		buf := AppendRow(AppendHeader(nil), &row)
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			i := rapid.IntRange(0, len(buf)-1).Draw(t, "offset")
			switch b := rapid.ByteMax(0x10).Draw(t, "byte"); rapid.IntRange(0, 2).Draw(t, "change") {
			case 0:
				buf[i] = b
			case 1:
				buf = slices.Insert(buf, i, b)
			case 2:
				buf = slices.Delete(buf, i, min(i+1, len(buf)))
			}
			if len(buf) == 0 {
				return
			}
		}
		compareWithSDK(t, repairChecksums(buf))
	}))
}

// TestEncode_writes_what_the_sdk_writes compares with the requests of the
// official SDK, byte for byte.
func TestEncode_writes_what_the_sdk_writes(t *testing.T) {
	name := rapid.StringN(0, 10, -1)
	keyValue := rapid.OneOf(
		rapid.Map(rapid.Int64(), func(n int64) any { return n }),
		rapid.Map(rapid.String(), func(s string) any { return s }),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) any { return b }),
	)
	value := rapid.OneOf(
		keyValue,
		rapid.Map(rapid.Float64(), func(f float64) any { return f }),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }),
	)
	// Only a bound may hold infinities: in a put the SDK writes them as
	// AUTO_INCREMENT.
	drawKey := func(t *rapid.T, bound bool) (*tablestore.PrimaryKey, []Cell) {
		sdk := new(tablestore.PrimaryKey)
		var ours []Cell
		for range rapid.IntRange(1, 4).Draw(t, "key columns") {
			n := name.Draw(t, "key name")
			switch kind := rapid.IntRange(0, 5).Draw(t, "key kind"); {
			case bound && kind == 0:
				sdk.AddPrimaryKeyColumnWithMinValue(n)
				ours = append(ours, pk(n, Special(InfMin)))
			case bound && kind == 1:
				sdk.AddPrimaryKeyColumnWithMaxValue(n)
				ours = append(ours, pk(n, Special(InfMax)))
			case kind == 2:
				sdk.AddPrimaryKeyColumnWithAutoIncrement(n)
				ours = append(ours, pk(n, Special(AutoIncrement)))
			default:
				v := keyValue.Draw(t, "key value")
				sdk.AddPrimaryKeyColumn(n, v)
				ours = append(ours, pk(n, valueOf(v)))
			}
		}
		return sdk, ours
	}
	check := func(t *rapid.T, got, want []byte) {
		if !bytes.Equal(got, want) {
			t.Fatalf("\n we %x\nSDK %x", got, want)
		}
	}

	t.Run("for_keys", rapid.MakeCheck(func(t *rapid.T) {
		sdk, ours := drawKey(t, true)
		check(t, AppendPrimaryKey(nil, ours), sdk.Build(false))
		check(t, AppendRow(AppendHeader(nil), &Row{PrimaryKey: ours, Delete: true}), sdk.Build(true))
	}))

	t.Run("for_puts", rapid.MakeCheck(func(t *rapid.T) {
		sdk, ours := new(tablestore.PutRowChange), Row{}
		sdk.PrimaryKey, ours.PrimaryKey = drawKey(t, false)
		for range rapid.IntRange(0, 5).Draw(t, "columns") {
			n, v := name.Draw(t, "name"), value.Draw(t, "value")
			if rapid.Bool().Draw(t, "has timestamp") {
				ms := rapid.Int64Min(1).Draw(t, "timestamp") // the SDK takes 0 for none
				sdk.AddColumnWithTimestamp(n, v, ms)
				ours.Cells = append(ours.Cells, putAt(n, valueOf(v), ms))
			} else {
				sdk.AddColumn(n, v)
				ours.Cells = append(ours.Cells, put(n, valueOf(v)))
			}
		}
		check(t, AppendRow(AppendHeader(nil), &ours), sdk.Serialize())
	}))

	t.Run("for_updates", rapid.MakeCheck(func(t *rapid.T) {
		sdk, ours := new(tablestore.UpdateRowChange), Row{}
		sdk.PrimaryKey, ours.PrimaryKey = drawKey(t, false)
		for range rapid.IntRange(0, 5).Draw(t, "columns") {
			n, c := name.Draw(t, "name"), Cell{}
			switch rapid.IntRange(0, 4).Draw(t, "update") {
			case 0:
				v := value.Draw(t, "value")
				sdk.PutColumn(n, v)
				c = put(n, valueOf(v))
			case 1:
				v, ms := value.Draw(t, "value"), rapid.Int64().Draw(t, "timestamp")
				sdk.PutColumnWithTimestamp(n, v, ms)
				c = putAt(n, valueOf(v), ms)
			case 2:
				sdk.DeleteColumn(n)
				c = Cell{Name: n, Op: DeleteAllVersion}
			case 3:
				ms := rapid.Int64().Draw(t, "timestamp")
				sdk.DeleteColumnWithTimestamp(n, ms)
				c = Cell{Name: n, Op: DeleteOneVersion, HasTimestamp: true, Timestamp: ms}
			case 4:
				by := rapid.Int64().Draw(t, "by")
				sdk.IncrementColumn(n, by)
				c = Cell{Name: n, Op: Increment, Value: IntegerValue(by), HasValue: true}
			}
			ours.Cells = append(ours.Cells, c)
		}
		check(t, AppendRow(AppendHeader(nil), &ours), sdk.Serialize())
	}))
}

// valueOf converts a value of the SDK's API.
func valueOf(v any) Value {
	switch v := v.(type) {
	case int64:
		return IntegerValue(v)
	case float64:
		return DoubleValue(v)
	case bool:
		return BooleanValue(v)
	case string:
		return StringValue(v)
	case []byte:
		return BinaryValue(v)
	}
	panic(fmt.Sprintf("no value for %T", v))
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

// failer is the part of testing.T and rapid.T that compareWithSDK needs.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// compareWithSDK decodes buf with both decoders, as rows and as a tunnel record.
func compareWithSDK(t failer, buf []byte) {
	t.Helper()
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
}

// mayDiffer reports that there are no two results to compare: both decoders
// refused, or one did where it may.
func mayDiffer(t failer, buf []byte, err, sdkErr error) bool {
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
// same words, leaving out what the SDK does not return: unknown cell types, Null and
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
