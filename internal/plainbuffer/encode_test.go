package plainbuffer

import (
	"encoding/hex"
	"math"
	"strings"
	"testing"
)

// unhex decodes hexadecimal digits, ignoring the spaces between them.
func unhex(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pk and put abbreviate cells.
func pk(name string, v Value) Cell  { return Cell{Name: name, Value: v, HasValue: true} }
func put(name string, v Value) Cell { return Cell{Name: name, Value: v, HasValue: true} }
func putAt(name string, v Value, ms int64) Cell {
	return Cell{Name: name, Value: v, HasValue: true, HasTimestamp: true, Timestamp: ms}
}

const idIs7 = "03 04 02000000 6964 05 09000000 00 0700000000000000 0a 60"

// workedExamples are buffers that the official Go SDK wrote or, if they have a sequence
// or a delete marker, read.
var workedExamples = []struct {
	name string
	row  Row
	wire string
}{
	{
		name: "put_row",
		row: Row{
			PrimaryKey: []Cell{pk("id", IntegerValue(7))},
			Cells:      []Cell{putAt("a", StringValue("hi"), 1700000000123)},
		},
		wire: "75000000 01" + idIs7 + "02 03 04 01000000 61 05 07000000 03 02000000 6869 07 7b68e5cf8b010000 0a e1 09 93",
	},
	{
		name: "tunnel_record",
		row: Row{
			PrimaryKey:  []Cell{pk("id", IntegerValue(7))},
			Cells:       []Cell{putAt("a", StringValue("hi"), 1700000000123)},
			HasSequence: true,
			Sequence:    Sequence{Epoch: 1, Timestamp: 1700000000123456, RowIndex: 2},
		},
		wire: "7500000001030402000000696405090000000007000000000000000a60020304010000006105070000000302000000686907" +
			"7b68e5cf8b0100000ae10b180000000c130000000d010000000e40222018240a06000f020000000993",
	},
	{
		name: "delete_row",
		row:  Row{PrimaryKey: []Cell{pk("id", IntegerValue(7))}, Delete: true},
		wire: "75000000 01" + idIs7 + "08 09 f2",
	},
	{
		name: "update_row",
		row: Row{
			PrimaryKey: []Cell{pk("id", IntegerValue(7))},
			Cells: []Cell{
				put("a", StringValue("hi")),
				{Name: "b", Op: DeleteAllVersion},
				{Name: "c", Op: DeleteOneVersion, HasTimestamp: true, Timestamp: 5},
				{Name: "d", Op: Increment, Value: IntegerValue(3), HasValue: true},
			},
		},
		wire: "75000000 01" + idIs7 + "02" +
			"03 04 01000000 61 05 07000000 03 02000000 6869 0a d0" +
			"03 04 01000000 62 06 01 0a d8" +
			"03 04 01000000 63 06 03 07 0500000000000000 0a 4e" +
			"03 04 01000000 64 05 09000000 00 0300000000000000 06 04 0a d7" +
			"09 26",
	},
	{
		name: "range_start",
		row:  Row{PrimaryKey: []Cell{pk("id", Special(InfMin))}},
		wire: "75000000 01 03 04 02000000 6964 05 01000000 09 0a 61 09 e0",
	},
	{
		name: "range_end",
		row:  Row{PrimaryKey: []Cell{pk("id", Special(InfMax))}},
		wire: "75000000 01 03 04 02000000 6964 05 01000000 0a 0a 68 09 5d",
	},
}

func TestEncode(t *testing.T) {
	for _, ex := range workedExamples {
		t.Run("writes_the_worked_example/"+ex.name, func(t *testing.T) {
			want := unhex(t, ex.wire)
			if got := AppendRow(AppendHeader(nil), &ex.row); string(got) != string(want) {
				t.Errorf("row\n got %x\nwant %x", got, want)
			}
			if len(ex.row.Cells) > 0 || ex.row.Delete {
				return
			}
			if got := AppendPrimaryKey(nil, ex.row.PrimaryKey); string(got) != string(want) {
				t.Errorf("primary key\n got %x\nwant %x", got, want)
			}
		})
	}

	t.Run("appends_after_what_is_there", func(t *testing.T) {
		for _, ex := range workedExamples {
			want := "before" + string(unhex(t, ex.wire))
			if got := AppendRow(AppendHeader([]byte("before")), &ex.row); string(got) != want {
				t.Errorf("%s\n got %x\nwant %x", ex.name, got, want)
			}
		}
	})

	t.Run("writes_the_primary_key_tag_of_a_row_without_key", func(t *testing.T) {
		got := AppendRow(nil, &Row{})
		if want := unhex(t, "01 09 00"); string(got) != string(want) {
			t.Errorf("got %x, want %x", got, want)
		}
	})
}

// variants pairs values with their form in filters and partition ranges.
var variants = []struct {
	value Value
	wire  string
}{
	{IntegerValue(1), "00 0100000000000000"},
	{IntegerValue(-2), "00 feffffffffffffff"},
	{DoubleValue(1), "01 000000000000f03f"},
	{DoubleValue(math.Inf(-1)), "01 000000000000f0ff"},
	{BooleanValue(false), "02 00"},
	{BooleanValue(true), "02 01"},
	{StringValue("hi"), "03 02000000 6869"},
	{StringValue(""), "03 00000000"},
	{BinaryValue([]byte{0, 255}), "07 02000000 00ff"},
	{Special(Null), "06"},
	{Special(InfMin), "09"},
	{Special(InfMax), "0a"},
	{Special(AutoIncrement), "0b"},
}

func TestAppendVariant(t *testing.T) {
	for _, v := range variants {
		if got, want := AppendVariant(nil, v.value), unhex(t, v.wire); string(got) != string(want) {
			t.Errorf("%+v: got %x, want %x", v.value, got, want)
		}
	}
}
