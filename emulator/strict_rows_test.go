package emulator_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// The sources in brackets are listed in strict_test.go.

func TestStrictRows(t *testing.T) {
	big := strings.Repeat("x", 2<<20)
	key := func(cells ...plainbuffer.Cell) []byte { return rowOf(cells) }
	for _, v := range []struct {
		name string
		row  []byte
		want string // of PutRow and of UpdateRow
	}{
		// [limits] "Size of data written by using a PutRow request: 4 MB", and of UpdateRow; the text is as in [item] testCase48
		{"4 MiB and one byte of data", row("k", text("a", big), text("b", big[:2<<20-12])), invalid + "The total data size of OP request exceeds the limit, limit size: 4194304, data size: 4194305."},
		{"4 MiB of data", row("k", text("a", big), text("b", big[:2<<20-13])), "ok"},
		// [limits] "does not exceed 1 KB in length"; [item] testCase19 to testCase22
		{"a key of 1025 bytes", row(strings.Repeat("x", 1025), number("n", 1)), invalid + "The length of primary key column: 'p' exceeds the MaxLength:1024 with CurrentLength:1025."},
		{"a key of 1024 bytes", row(strings.Repeat("x", 1024), number("n", 1)), "ok"},
		// [limits] "2 MB"; [item] testCase23
		{"a column of 2 MiB and one byte", row("k", text("attr", big+"x")), invalid + "The length of attribute column: 'attr' exceeds the MaxLength:2097152 with CurrentLength:2097153."},
		{"a column of 2 MiB", row("k", text("attr", big)), "ok"},
		// [item] testCase39, testCase41
		{"1025 columns", row("k", numbered(1025)...), invalid + "The number of attribute columns exceeds the limit, limit count: 1024, column count: 1025."},
		{"1024 columns", row("k", numbered(1024)...), "ok"},
		// [names] letters, digits, underscores and hyphens, a letter or an underscore first, 1 to 255 bytes
		{"a column's name that begins with a digit", row("k", number("1a", 1)), invalid + "Invalid column name: '1a'."},
		{"a column's name with a space", row("k", number("a b", 1)), invalid + "Invalid column name: 'a b'."},
		{"a column's name of other letters", row("k", number("列", 1)), invalid + "Invalid column name: '列'."},
		{"a column's name that begins with a hyphen", row("k", number("-a", 1)), invalid + "Invalid column name: '-a'."},
		{"a column's name of every character", row("k", number("_AZaz09-", 1), number("Zz", 1)), "ok"},
		{"an empty column's name", row("k", number("", 1)), invalid + "Invalid column name: ''."},
		{"a column's name of 256 bytes", row("k", number(strings.Repeat("x", 256), 1)), invalid + "Invalid column name: '" + strings.Repeat("x", 256) + "'."},
		{"a column's name of 255 bytes", row("k", number("_-"+strings.Repeat("x", 253), 1)), "ok"},
		// [batchput] says it of each row
		{"a column with the name of a key column", row("k", number("p", 1)), invalid + "Duplicated attribute column name with primary key column: 'p'."},
		// [item] testCase46: below INT64_MAX/1000
		{"the first version that is out of range", row("k", at(number("n", 1), math.MaxInt64/1000)), invalid + "Timestamp must be in range [0, INT64_MAX/1000)."},
		{"a version before 1970", row("k", at(number("n", 1), -1)), invalid + "Timestamp must be in range [0, INT64_MAX/1000)."},
		// [legal] testInvalidPrimaryKey
		{"an infinite key", key(special("p", plainbuffer.InfMin), number("q", 1)), invalid + "VT_INF_MIN is an invalid type for the primary key."},
		// [item] testCase16
		{"a key of five columns", key(numbered(5)...), invalid + "The number of primary key columns must be in range: [1, 4]."},
		// [pyrow] _check_all_row_op_with_exception_meta_not_match
		{"a key of one column", rowOf([]plainbuffer.Cell{text("p", "k")}, number("n", 1)), "OTSInvalidPK: Validate PK size fail. Input: 1, Meta: 2."},
		{"a key of another type", rowOf([]plainbuffer.Cell{number("p", 1), number("q", 1)}, number("n", 1)), "OTSInvalidPK: Validate PK type fail. Input: VT_INTEGER, Meta: VT_STRING."},
		// [legal] testInvalidPkOrder
		{"a key in another order", rowOf([]plainbuffer.Cell{number("q", 1), text("p", "k")}, number("n", 1)), "OTSInvalidPK: Validate PK name fail. Input: q, Meta: p."},
		{"a binary key", rowOf([]plainbuffer.Cell{{Name: "p", HasValue: true, Value: plainbuffer.BinaryValue(nil)}, number("q", 1)}, number("n", 1)), "OTSInvalidPK: Validate PK type fail. Input: VT_BLOB, Meta: VT_STRING."},
	} {
		t.Run("PutRow and UpdateRow with "+v.name, func(t *testing.T) {
			b := newStrictBed(t, emulator.Options{})
			expect(t, "PutRow", b.putRow(v.row), strings.Replace(v.want, "OP", "PutRow", 1))
			if strings.HasSuffix(v.want, "primary key.") || strings.HasSuffix(v.want, "[1, 4].") { // these rows have no columns
				return
			}
			expect(t, "UpdateRow", b.updateRow(v.row), strings.Replace(v.want, "OP", "UpdateRow", 1))
		})
	}
	t.Run("DeleteRow and GetRow with keys that no row has", func(t *testing.T) {
		// The same sources.
		b := newStrictBed(t, emulator.Options{})
		for want, key := range map[string][]plainbuffer.Cell{
			invalid + "VT_INF_MAX is an invalid type for the primary key.":                                        {text("p", "k"), special("q", plainbuffer.InfMax)},
			invalid + "The number of primary key columns must be in range: [1, 4].":                               numbered(5),
			invalid + "The length of primary key column: 'p' exceeds the MaxLength:1024 with CurrentLength:1025.": {text("p", strings.Repeat("x", 1025)), number("q", 1)},
			"OTSInvalidPK: Validate PK size fail. Input: 3, Meta: 2.":                                             numbered(3),
			"OTSInvalidPK: Validate PK type fail. Input: VT_STRING, Meta: VT_INTEGER.":                            {text("p", "k"), text("q", "k")},
		} {
			expect(t, "DeleteRow", b.deleteRow(key), want)
			expect(t, "GetRow", b.getRow(rowOf(key)), want)
		}
	})
	t.Run("names are checked before the table is looked up", func(t *testing.T) {
		// [legal] testInvalidTableName: every operation, for a table that cannot be there
		b := newStrictBed(t, emulator.Options{})
		bad := ptr("T#")
		for path, req := range map[string]any{
			"/PutRow":        &pb.PutRowRequest{TableName: bad, Row: row("k"), Condition: ignoring()},
			"/UpdateRow":     &pb.UpdateRowRequest{TableName: bad, RowChange: row("k"), Condition: ignoring()},
			"/DeleteRow":     &pb.DeleteRowRequest{TableName: bad, PrimaryKey: row("k"), Condition: ignoring()},
			"/GetRow":        &pb.GetRowRequest{TableName: bad, PrimaryKey: row("k")},
			"/GetRange":      &pb.GetRangeRequest{TableName: bad, Direction: ptr(pb.Direction_FORWARD), InclusiveStartPrimaryKey: row("k"), ExclusiveEndPrimaryKey: row("k")},
			"/BatchGetRow":   &pb.BatchGetRowRequest{Tables: []*pb.TableInBatchGetRowRequest{{TableName: bad}}},
			"/BatchWriteRow": &pb.BatchWriteRowRequest{Tables: []*pb.TableInBatchWriteRowRequest{puts("T#", row("k"))}},
			"/CreateTable":   newTable("T#"),
			"/UpdateTable":   &pb.UpdateTableRequest{TableName: bad},
			"/DescribeTable": &pb.DescribeTableRequest{TableName: bad},
			"/DeleteTable":   &pb.DeleteTableRequest{TableName: bad},
		} {
			expect(t, path, b.outcome(path, req.(interface {
				Reset()
				String() string
				ProtoMessage()
			})), invalid+"Invalid table name: 'T#'.")
		}
		expect(t, "a bad column for a missing table", b.outcome("/PutRow", &pb.PutRowRequest{TableName: ptr("none"), Row: row("k", number("#", 1)), Condition: ignoring()}), invalid+"Invalid column name: '#'.")
		expect(t, "a bad column in addition to a bad key", b.putRow(rowOf([]plainbuffer.Cell{number("q", 1)}, number("#", 1))), invalid+"Invalid column name: '#'.")
	})
	t.Run("a missing table", func(t *testing.T) {
		// Python, tests/table_operation_test.py
		b := newStrictBed(t, emulator.Options{})
		expect(t, "PutRow", b.outcome("/PutRow", &pb.PutRowRequest{TableName: ptr("none"), Row: row("k"), Condition: ignoring()}), "OTSObjectNotExist: Requested table does not exist.")
	})
	t.Run("versions must be within the table's deviation, which does not overflow near the end of time", func(t *testing.T) {
		// [names]; Java's tests set the deviation to INT64_MAX/1000000.
		b := newStrictBed(t, emulator.Options{})
		b.must("/CreateTable", newTable("wide", func(r *pb.CreateTableRequest) {
			r.TableOptions.DeviationCellVersionInSec = ptr(int64(math.MaxInt64 / 1_000_000))
		}), &pb.CreateTableResponse{})
		expect(t, "far", b.outcome("/PutRow", &pb.PutRowRequest{TableName: ptr("wide"), Row: row("k", at(number("n", 1), math.MaxInt64/1000-1)), Condition: ignoring()}), "ok")
		if got := b.putRow(row("k", at(number("n", 1), time.Now().Add(25*time.Hour).UnixMilli()))); !strings.HasPrefix(got, invalid+"Cell version of column 'n'") {
			t.Errorf("25 hours ahead: %s", got)
		}
		got := b.outcome("/CreateTable", newTable("wider", func(r *pb.CreateTableRequest) {
			r.TableOptions.DeviationCellVersionInSec = ptr(int64(math.MaxInt64 / 1000))
		}))
		if !strings.HasPrefix(got, invalid+"The maximum deviation") {
			t.Errorf("a wider deviation: %s", got)
		}
	})
}

func TestStrictIncrements(t *testing.T) {
	t.Run("that overflow are refused", func(t *testing.T) {
		// [counter] "If an integer overflow occurs, an OTSParameterInvalid error is returned."
		b := newStrictBed(t, emulator.Options{})
		for p, v := range map[string]struct{ first, second int64 }{"up": {math.MaxInt64, 1}, "down": {math.MinInt64, -1}} {
			expect(t, "first", b.updateRow(row(p, plus("n", v.first))), "ok")
			if got := b.updateRow(row(p, plus("n", v.second))); !strings.HasPrefix(got, invalid+"Incrementing column 'n'") {
				t.Errorf("%s: %s", p, got)
			}
			expect(t, "back", b.updateRow(row(p, plus("n", -v.second))), "ok")
		}
	})
	t.Run("and another change of one column are refused", func(t *testing.T) {
		// [counter] "You cannot specify a column as an atomic counter and update the column in a single request."
		b := newStrictBed(t, emulator.Options{})
		remove := plainbuffer.Cell{Name: "n", Op: plainbuffer.DeleteAllVersion}
		for _, other := range []plainbuffer.Cell{number("n", 5), remove} {
			expect(t, "after", b.updateRow(row("k", plus("n", 1), other)), invalid+"Column 'n' is incremented and changed again in one update.")
			expect(t, "before", b.updateRow(row("k", other, plus("n", 1))), invalid+"Column 'n' is incremented and changed again in one update.")
		}
		expect(t, "two columns", b.updateRow(row("k", plus("n", 1), number("m", 5))), "ok")
	})
	t.Run("return the columns that they change, and no others", func(t *testing.T) {
		// [incr] testReturnColumnNames; what fails writes nothing
		b := newStrictBed(t, emulator.Options{})
		update := func(kind pb.ReturnType, names []string, cells ...plainbuffer.Cell) (string, []byte) {
			var resp pb.UpdateRowResponse
			req := &pb.UpdateRowRequest{TableName: ptr("t"), RowChange: row("k", cells...), Condition: ignoring(), ReturnContent: &pb.ReturnContent{ReturnType: &kind, ReturnColumnNames: names}}
			if got := b.outcome("/UpdateRow", req); got != "ok" {
				return got, nil
			}
			b.must("/UpdateRow", req, &resp)
			return "ok", resp.Row
		}
		for name, v := range map[string]struct {
			kind    pb.ReturnType
			names   []string
			cells   []plainbuffer.Cell
			refused string
		}{
			"a column that is put":          {pb.ReturnType_RT_AFTER_MODIFY, []string{"n", "m"}, []plainbuffer.Cell{plus("n", 1), number("m", 1)}, "Return column 'm' is not incremented by the request."},
			"a column that does not exist":  {pb.ReturnType_RT_AFTER_MODIFY, []string{"n", "x"}, []plainbuffer.Cell{plus("n", 1)}, "Return column 'x' is not incremented by the request."},
			"a column outside the key only": {pb.ReturnType_RT_PK, []string{"m"}, []plainbuffer.Cell{number("m", 1)}, "Return columns take the return type RT_AFTER_MODIFY."},
		} {
			got, _ := update(v.kind, v.names, v.cells...)
			expect(t, name, got, invalid+v.refused)
			expect(t, "the row exists", b.has("k"), false)
		}
		// The returned row has neither a key nor a key's tag: the Java SDK's
		// PlainBufferCodedInputStream refuses a tag without cells.
		got, returned := update(pb.ReturnType_RT_AFTER_MODIFY, []string{"n"}, plus("n", 1))
		expect(t, "answer", got, "ok")
		if len(returned) < 5 || returned[4] != 0x02 {
			t.Errorf("the row is % x", returned)
		}
		var decoded plainbuffer.Row
		if err := plainbuffer.Decode(returned, &decoded); err != nil || len(decoded.Cells) != 1 || decoded.Cells[0].Value.Integer() != 2 {
			t.Errorf("the row is %+v, %v", decoded, err)
		}
	})
}

func TestStrictAutoIncrement(t *testing.T) {
	// [incr] testAutoPkWrite
	b := newStrictBed(t, emulator.Options{})
	b.must("/CreateTable", newTable("auto", func(r *pb.CreateTableRequest) {
		r.TableMeta.PrimaryKey[1].Option = ptr(pb.PrimaryKeyOption_AUTO_INCREMENT)
	}), &pb.CreateTableResponse{})
	key := []plainbuffer.Cell{text("p", "k"), special("q", plainbuffer.AutoIncrement)}
	var last int64
	for range 2 {
		var resp pb.UpdateRowResponse
		b.must("/UpdateRow", &pb.UpdateRowRequest{
			TableName: ptr("auto"), RowChange: rowOf(key, plus("n", 1)), Condition: ignoring(), ReturnContent: &pb.ReturnContent{ReturnType: ptr(pb.ReturnType_RT_PK)},
		}, &resp)
		var row plainbuffer.Row
		if err := plainbuffer.Decode(resp.Row, &row); err != nil {
			t.Fatal(err)
		}
		if id := row.PrimaryKey[1].Value.Integer(); id <= last {
			t.Errorf("UpdateRow numbered its rows %d and %d", last, id)
		} else {
			last = id
		}
	}
	batch := puts("auto", rowOf(key, number("n", 1)), rowOf(key, number("n", 2)))
	whole, rows := b.batchWrite(false, batch)
	expect(t, "two new rows in a batch", whole+" "+fmt.Sprint(rows), "ok [ok ok]")
}

func TestCapacityUnits(t *testing.T) {
	// [pyrow] try_to_consuming in tests/lib/api_test_base.py: names and values of keys and
	// columns; 4096 bytes cost one unit.
	b := newStrictBed(t, emulator.Options{})
	value := func(total int) plainbuffer.Cell {
		return text("v", strings.Repeat("x", total-len("p")-len("k")-len("q")-8-len("v")))
	}
	for total, want := range map[int]int32{4096: 1, 4097: 2, 2 * 4096: 2, 2*4096 + 1: 3} {
		var put pb.PutRowResponse
		b.must("/PutRow", &pb.PutRowRequest{TableName: ptr("t"), Row: row("k", value(total)), Condition: ignoring()}, &put)
		expect(t, fmt.Sprint("write units of ", total, " bytes"), put.GetConsumed().GetCapacityUnit().GetWrite(), want)
		var get pb.GetRowResponse
		b.must("/GetRow", &pb.GetRowRequest{TableName: ptr("t"), PrimaryKey: row("k"), MaxVersions: ptr(int32(1))}, &get)
		expect(t, fmt.Sprint("read units of ", total, " bytes"), get.GetConsumed().GetCapacityUnit().GetRead(), want)
		var all pb.GetRangeResponse
		b.must("/GetRange", &pb.GetRangeRequest{
			TableName: ptr("t"), Direction: ptr(pb.Direction_FORWARD), MaxVersions: ptr(int32(1)),
			InclusiveStartPrimaryKey: row("a"), ExclusiveEndPrimaryKey: row("z"),
		}, &all)
		expect(t, fmt.Sprint("read units of a range of ", total, " bytes"), all.GetConsumed().GetCapacityUnit().GetRead(), want)
	}
	var missing pb.GetRowResponse
	b.must("/GetRow", &pb.GetRowRequest{TableName: ptr("t"), PrimaryKey: row("none"), MaxVersions: ptr(int32(1))}, &missing)
	expect(t, "read units of a missing row", missing.GetConsumed().GetCapacityUnit().GetRead(), 1)
}
