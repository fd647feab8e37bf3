package emulator_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// Sources of the limits below. Pages are below https://www.alibabacloud.com/help/en/tablestore/,
// suites are the tests in the official SDKs' repositories at github.com/aliyun.
//
//	[limits]   limits-on-widecolumn-model
//	[names]    developer-reference/naming-conventions-and-data-types
//	[batchput] developer-reference/batchwriterow
//	[batchget] developer-reference/batchgetrow
//	[errors]   developer-reference/error-codes
//	[item]     aliyun-tablestore-java-sdk, functiontest/RestrictedItemTest.java
//	[legal]    aliyun-tablestore-java-sdk, functiontest/ParameterLegalityTest.java
//	[filters]  aliyun-tablestore-java-sdk, model/UnifiedFilterRestrictionAndParamCheckingTest.java
//	[behave]   aliyun-tablestore-java-sdk, functiontest/OTSAPIBehaviorTest.java
//	[incr]     aliyun-tablestore-java-sdk, functiontest/IncrementRequest.java
//	[counter]  developer-reference/configure-atomic-counter
//	[pyrow]    aliyun-tablestore-python-sdk, tests/row_op_test.py

// strictBed is an emulator with a table "t" that has the keys p (string) and q
// (integer), and a client that uses the service's protocol without an SDK's own
// checks.
type strictBed struct{ *raw }

func newStrictBed(t testing.TB, opts emulator.Options) *strictBed {
	b := &strictBed{newRaw(t, start(t, opts))}
	b.must("/CreateTable", newTable("t"), &pb.CreateTableResponse{})
	return b
}

func newTable(name string, change ...func(*pb.CreateTableRequest)) *pb.CreateTableRequest {
	req := &pb.CreateTableRequest{
		TableMeta: &pb.TableMeta{TableName: &name, PrimaryKey: []*pb.PrimaryKeySchema{
			{Name: ptr("p"), Type: ptr(pb.PrimaryKeyType_STRING)}, {Name: ptr("q"), Type: ptr(pb.PrimaryKeyType_INTEGER)},
		}},
		ReservedThroughput: &pb.ReservedThroughput{CapacityUnit: &pb.CapacityUnit{Read: ptr(int32(0)), Write: ptr(int32(0))}},
		TableOptions:       &pb.TableOptions{TimeToLive: ptr(int32(-1)), MaxVersions: ptr(int32(1))},
	}
	for _, f := range change {
		f(req)
	}
	return req
}

func text(name, value string) plainbuffer.Cell {
	return plainbuffer.Cell{Name: name, HasValue: true, Value: plainbuffer.StringValue(value)}
}

func number(name string, value int64) plainbuffer.Cell {
	return plainbuffer.Cell{Name: name, HasValue: true, Value: plainbuffer.IntegerValue(value)}
}

func plus(name string, value int64) plainbuffer.Cell {
	c := number(name, value)
	c.Op = plainbuffer.Increment
	return c
}

func special(name string, kind plainbuffer.Kind) plainbuffer.Cell {
	return plainbuffer.Cell{Name: name, HasValue: true, Value: plainbuffer.Special(kind)}
}

func at(c plainbuffer.Cell, millis int64) plainbuffer.Cell {
	c.HasTimestamp, c.Timestamp = true, millis
	return c
}

// numbered returns n columns with distinct names.
func numbered(n int) []plainbuffer.Cell {
	cells := make([]plainbuffer.Cell, n)
	for i := range cells {
		cells[i] = number(fmt.Sprintf("c%04d", i), 1)
	}
	return cells
}

func names(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("c%04d", i)
	}
	return list
}

// row encodes a row with the key (p, 1).
func row(p string, cells ...plainbuffer.Cell) []byte {
	return rowOf([]plainbuffer.Cell{text("p", p), number("q", 1)}, cells...)
}

func rowOf(key []plainbuffer.Cell, cells ...plainbuffer.Cell) []byte {
	return plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), &plainbuffer.Row{PrimaryKey: key, Cells: cells})
}

func ignoring() *pb.Condition {
	return &pb.Condition{RowExistence: ptr(pb.RowExistenceExpectation_IGNORE)}
}

// outcome posts a request and returns "ok", or the error's code and message.
func (b *strictBed) outcome(path string, req protoadapt.MessageV1) string {
	b.t.Helper()
	if _, err := b.post(path, req); err != nil {
		_, said, _ := strings.Cut(err.Error(), ": ")
		return said
	}
	return "ok"
}

func (b *strictBed) putRow(row []byte) string {
	return b.outcome("/PutRow", &pb.PutRowRequest{TableName: ptr("t"), Row: row, Condition: ignoring()})
}

func (b *strictBed) updateRow(row []byte) string {
	return b.outcome("/UpdateRow", &pb.UpdateRowRequest{TableName: ptr("t"), RowChange: row, Condition: ignoring()})
}

func (b *strictBed) deleteRow(key []plainbuffer.Cell) string {
	row := plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), &plainbuffer.Row{PrimaryKey: key, Delete: true})
	return b.outcome("/DeleteRow", &pb.DeleteRowRequest{TableName: ptr("t"), PrimaryKey: row, Condition: ignoring()})
}

func (b *strictBed) getRow(key []byte, change ...func(*pb.GetRowRequest)) string {
	req := &pb.GetRowRequest{TableName: ptr("t"), PrimaryKey: key, MaxVersions: ptr(int32(1))}
	for _, f := range change {
		f(req)
	}
	return b.outcome("/GetRow", req)
}

func (b *strictBed) getRange(from, to []plainbuffer.Cell, change ...func(*pb.GetRangeRequest)) string {
	req := &pb.GetRangeRequest{
		TableName: ptr("t"), Direction: ptr(pb.Direction_FORWARD), MaxVersions: ptr(int32(1)),
		InclusiveStartPrimaryKey: rowOf(from), ExclusiveEndPrimaryKey: rowOf(to),
	}
	for _, f := range change {
		f(req)
	}
	return b.outcome("/GetRange", req)
}

// puts are the rows of one table in a BatchWriteRow.
func puts(table string, rows ...[]byte) *pb.TableInBatchWriteRowRequest {
	msg := &pb.TableInBatchWriteRowRequest{TableName: &table}
	for _, row := range rows {
		msg.Rows = append(msg.Rows, &pb.RowInBatchWriteRowRequest{Type: ptr(pb.OperationType_PUT), RowChange: row, Condition: ignoring()})
	}
	return msg
}

// batchWrite returns "ok" or the error of the whole request, and the outcome of each row.
func (b *strictBed) batchWrite(atomic bool, tables ...*pb.TableInBatchWriteRowRequest) (whole string, rows []string) {
	b.t.Helper()
	answer, err := b.post("/BatchWriteRow", &pb.BatchWriteRowRequest{Tables: tables, IsAtomic: &atomic})
	if err != nil {
		_, said, _ := strings.Cut(err.Error(), ": ")
		return said, nil
	}
	var resp pb.BatchWriteRowResponse
	if err := proto.Unmarshal(answer, protoadapt.MessageV2Of(&resp)); err != nil {
		b.t.Fatal(err)
	}
	for _, t := range resp.Tables {
		for _, r := range t.Rows {
			if r.GetIsOk() {
				rows = append(rows, "ok")
			} else {
				rows = append(rows, r.GetError().GetCode()+": "+r.GetError().GetMessage())
			}
		}
	}
	return "ok", rows
}

func (b *strictBed) batchGet(change func(*pb.TableInBatchGetRowRequest), keys ...[]byte) string {
	t := &pb.TableInBatchGetRowRequest{TableName: ptr("t"), MaxVersions: ptr(int32(1)), PrimaryKey: keys}
	if change != nil {
		change(t)
	}
	return b.outcome("/BatchGetRow", &pb.BatchGetRowRequest{Tables: []*pb.TableInBatchGetRowRequest{t}})
}

// has reports whether the row (p, 1) exists.
func (b *strictBed) has(p string) bool {
	b.t.Helper()
	var resp pb.GetRowResponse
	b.must("/GetRow", &pb.GetRowRequest{TableName: ptr("t"), PrimaryKey: row(p), MaxVersions: ptr(int32(1))}, &resp)
	return len(resp.Row) > 0
}

const invalid = "OTSParameterInvalid: "

// TestStrictBatches is about requests that fail as a whole, although a program
// might expect the rest of the batch to succeed.
func TestStrictBatches(t *testing.T) {
	for _, v := range []struct {
		name   string
		tables []*pb.TableInBatchWriteRowRequest
		want   string
	}{
		// [batchput] "Multiple rows in a table share the same primary key."
		{"a row that occurs twice", []*pb.TableInBatchWriteRowRequest{puts("t", row("a"), row("b"), row("b"))}, invalid + "Duplicate rows detected in MultiPut."},
		// [batchput] "Multiple tables with the same name are specified."
		{"a table that occurs twice", []*pb.TableInBatchWriteRowRequest{puts("t", row("a")), puts("t", row("b"))}, invalid + "Duplicated table name: 't'."},
		// [batchput] "A specified table does not exist."; the text is Python's, tests/table_operation_test.py
		{"a missing table", []*pb.TableInBatchWriteRowRequest{puts("t", row("a")), puts("none", row("a"))}, "OTSObjectNotExist: Requested table does not exist."},
		// [batchput] "A specified table does not contain the rows"; the text is of [pyrow] test_no_item_in_batch_ops
		{"a table without rows", []*pb.TableInBatchWriteRowRequest{puts("t", row("a")), puts("none")}, invalid + "No operation is specified for table: 'none'."},
		// [pyrow] test_no_table_in_batch_ops
		{"no table", nil, invalid + "No row is specified in BatchWriteRow."},
		// [batchput] "An attribute column name in a row conflicts with a primary key column name."
		{"a column with the name of a key column", []*pb.TableInBatchWriteRowRequest{puts("t", row("a"), row("b", text("p", "x")))}, invalid + "Duplicated attribute column name with primary key column: 'p'."},
		// [batchput] "A table name does not comply with the naming conventions."; [legal] testInvalidTableName
		{"a table's bad name", []*pb.TableInBatchWriteRowRequest{puts("t", row("a")), puts("3t", row("a"))}, invalid + "Invalid table name: '3t'."},
		// [batchput] "An attribute column name in a row does not comply with the naming conventions."; [legal] testInvalidColumnName
		{"a column's bad name", []*pb.TableInBatchWriteRowRequest{puts("t", row("a"), row("b", text("#", "x")))}, invalid + "Invalid column name: '#'."},
		// [batchput] "The number of columns in a PutRowInBatchWriteRowRequest for a table exceeds 1,024."; [item] testCase41
		{"a row of 1025 columns", []*pb.TableInBatchWriteRowRequest{puts("t", row("a"), row("b", numbered(1025)...))}, invalid + "The number of attribute columns exceeds the limit, limit count: 1024, column count: 1025."},
		// [batchput] "A primary key column value or attribute column value exceeds the size limit."; [item] testCase19
		{"a long key", []*pb.TableInBatchWriteRowRequest{puts("t", row("a"), row(strings.Repeat("x", 1025)))}, invalid + "The length of primary key column: 'p' exceeds the MaxLength:1024 with CurrentLength:1025."},
		// The same; [item] testCase23
		{"a long column", []*pb.TableInBatchWriteRowRequest{puts("t", row("a"), row("b", text("attr", strings.Repeat("x", 2<<20+1))))}, invalid + "The length of attribute column: 'attr' exceeds the MaxLength:2097152 with CurrentLength:2097153."},
		// [legal] testInvalidPrimaryKey
		{"an infinite key", []*pb.TableInBatchWriteRowRequest{puts("t", row("a"), rowOf([]plainbuffer.Cell{special("p", plainbuffer.InfMin), number("q", 1)}))}, invalid + "VT_INF_MIN is an invalid type for the primary key."},
		// [item] testCase16
		{"a key of five columns", []*pb.TableInBatchWriteRowRequest{puts("t", row("a"), rowOf(numbered(5)))}, invalid + "The number of primary key columns must be in range: [1, 4]."},
	} {
		t.Run("BatchWriteRow fails as a whole for "+v.name, func(t *testing.T) {
			b := newStrictBed(t, emulator.Options{})
			got, _ := b.batchWrite(false, v.tables...)
			expect(t, "answer", got, v.want)
			expect(t, "a row of the batch exists", b.has("a"), false)
		})
	}
	t.Run("BatchWriteRow accepts 200 rows", func(t *testing.T) {
		// [limits] "Number of rows written by using a BatchWriteRow request: 200"; [item] testCase31
		b := newStrictBed(t, emulator.Options{})
		rows := make([][]byte, 201)
		for i := range rows {
			rows[i] = row(fmt.Sprint("r", i))
		}
		got, _ := b.batchWrite(false, puts("t", rows...))
		expect(t, "201", got, invalid+"Rows count exceeds the upper limit: 200.")
		got, _ = b.batchWrite(false, puts("t", rows[:200]...))
		expect(t, "200", got, "ok")
	})
	t.Run("BatchWriteRow accepts 4 MiB of data", func(t *testing.T) {
		// [batchput] "the total data size exceeds 4 MB"; [item] testCase48 counts names and
		// values of keys and columns, and eight bytes for a timestamp.
		b := newStrictBed(t, emulator.Options{})
		now := time.Now().UnixMilli()
		rest := 4<<20 - 3*(len("p")+1+len("q")+8+len("v")+8)
		rows := func(extra int) [][]byte {
			return [][]byte{
				row("a", at(text("v", strings.Repeat("x", rest/3)), now)), row("b", at(text("v", strings.Repeat("x", rest/3)), now)),
				row("c", at(text("v", strings.Repeat("x", rest-2*(rest/3)+extra)), now)),
			}
		}
		got, _ := b.batchWrite(false, puts("t", rows(1)...))
		expect(t, "one byte more", got, invalid+"The total data size of BatchWriteRow request exceeds the limit, limit size: 4194304, data size: 4194305.")
		got, _ = b.batchWrite(false, puts("t", rows(0)...))
		expect(t, "4 MiB", got, "ok")
	})
	t.Run("BatchWriteRow answers by row for a key that is not the table's", func(t *testing.T) {
		// [legal] testInvalidPkOrder and [pyrow] _check_all_row_op_with_exception_meta_not_match agree
		// against [batchput], where the whole request fails.
		b := newStrictBed(t, emulator.Options{})
		got, rows := b.batchWrite(false, puts("t", row("a"), rowOf([]plainbuffer.Cell{text("x", "b"), number("q", 1)})))
		expect(t, "answer", got, "ok")
		expect(t, "rows", strings.Join(rows, "; "), "ok; OTSInvalidPK: Validate PK name fail. Input: x, Meta: p.")
	})
	t.Run("an atomic batch may hold a row twice", func(t *testing.T) {
		// [behave] testAtomicBatchWriteRowWithSamePartKey; aliyun-tablestore-go-sdk,
		// tablestore/api_test.go, TestAtomicBatchWriteRowWithSamePartitionKey
		b := newStrictBed(t, emulator.Options{})
		got, rows := b.batchWrite(true, puts("t", row("a", number("n", 1)), row("a", number("n", 2))))
		expect(t, "answer", got, "ok")
		expect(t, "rows", strings.Join(rows, " "), "ok ok")
	})
	t.Run("a row that is incremented is changed once in a batch, atomic or not, Lenient or not", func(t *testing.T) {
		// [counter] "you can perform only one update operation on the row in a BatchWriteRow request"
		for _, lenient := range []bool{false, true} {
			b := newStrictBed(t, emulator.Options{Lenient: lenient})
			for _, atomic := range []bool{false, true} {
				batch := puts("t", row("a", plus("n", 1)), row("a", number("m", 1)))
				for _, r := range batch.Rows {
					r.Type = ptr(pb.OperationType_UPDATE)
				}
				if got, _ := b.batchWrite(atomic, batch); got == "ok" || b.has("a") {
					t.Errorf("atomic %v, Lenient %v: %s", atomic, lenient, got)
				}
			}
		}
	})
	t.Run("an atomic batch of several partition keys fails row by row", func(t *testing.T) {
		// [behave] testAtomicBatchWriteRowWithDiffPartKey
		b := newStrictBed(t, emulator.Options{})
		got, rows := b.batchWrite(true, puts("t", row("0"), row("1"), row("2")))
		expect(t, "answer", got, "ok")
		const want = "OTSDataOutOfRange: Data out of scope of atomic. Atomic PartKey:0. Data PartKey:1"
		expect(t, "rows", strings.Join(rows, "; "), want+"; "+want+"; "+want)
		expect(t, "a row exists", b.has("0"), false)
	})
	t.Run("an atomic batch of several tables is atomic in each", func(t *testing.T) {
		// The tests of ex_aliyun_ots 0.15.3 (Elixir): only the bad table's rows fail.
		b := newStrictBed(t, emulator.Options{})
		b.must("/CreateTable", newTable("u"), &pb.CreateTableResponse{})
		got, rows := b.batchWrite(true, puts("u", row("0"), row("1")), puts("t", row("0"), row("0")))
		expect(t, "answer", got, "ok")
		expect(t, "last rows", strings.Join(rows[2:], " "), "ok ok")
		expect(t, "the good table's row exists", b.has("0"), true)
	})

	for _, v := range []struct {
		name   string
		change func(*pb.TableInBatchGetRowRequest)
		keys   [][]byte
		want   string
	}{
		// [batchget] "A specific table does not exist."
		{"a missing table", func(t *pb.TableInBatchGetRowRequest) { t.TableName = ptr("none") }, [][]byte{row("a")}, "OTSObjectNotExist: Requested table does not exist."},
		// [batchget] "The RowInBatchGetRowRequest object is not specified for a specific table."
		{"a table without rows", nil, nil, invalid + "No row is specified for table: 't'."},
		// [legal] testInvalidPrimaryKey
		{"an infinite key", nil, [][]byte{row("a"), rowOf([]plainbuffer.Cell{text("p", "a"), special("q", plainbuffer.InfMax)})}, invalid + "VT_INF_MAX is an invalid type for the primary key."},
		// [legal] testNotSetVersionOptionsInGetOperations
		{"no version condition", func(t *pb.TableInBatchGetRowRequest) { t.MaxVersions = nil }, [][]byte{row("a")}, invalid + "No version condition is specified while querying row."},
	} {
		t.Run("BatchGetRow fails as a whole for "+v.name, func(t *testing.T) {
			expect(t, "answer", newStrictBed(t, emulator.Options{}).batchGet(v.change, v.keys...), v.want)
		})
	}
	t.Run("BatchGetRow fails as a whole for a table named twice", func(t *testing.T) {
		// [batchget] "Tables that have the same names are specified."
		b := newStrictBed(t, emulator.Options{})
		table := &pb.TableInBatchGetRowRequest{TableName: ptr("t"), MaxVersions: ptr(int32(1)), PrimaryKey: [][]byte{row("a")}}
		expect(t, "answer", b.outcome("/BatchGetRow", &pb.BatchGetRowRequest{Tables: []*pb.TableInBatchGetRowRequest{table, table}}), invalid+"Duplicated table name: 't'.")
	})
	t.Run("BatchGetRow answers by row for a key that is not the table's", func(t *testing.T) {
		// [pyrow] _check_all_row_op_with_exception_meta_not_match
		b := newStrictBed(t, emulator.Options{})
		b.putRow(row("a", number("n", 1)))
		var resp pb.BatchGetRowResponse
		b.must("/BatchGetRow", &pb.BatchGetRowRequest{Tables: []*pb.TableInBatchGetRowRequest{{
			TableName: ptr("t"), MaxVersions: ptr(int32(1)), PrimaryKey: [][]byte{row("a"), rowOf([]plainbuffer.Cell{text("p", "a")})},
		}}}, &resp)
		rows := resp.GetTables()[0].GetRows()
		if len(rows) != 2 || !rows[0].GetIsOk() || len(rows[0].GetRow()) == 0 || rows[1].GetIsOk() {
			t.Fatalf("the rows are %v", rows)
		}
		expect(t, "error", rows[1].GetError().GetCode()+": "+rows[1].GetError().GetMessage(), "OTSInvalidPK: Validate PK size fail. Input: 1, Meta: 2.")
	})
	t.Run("BatchGetRow fails without a table", func(t *testing.T) {
		// [pyrow] test_no_table_in_batch_ops
		expect(t, "answer", newStrictBed(t, emulator.Options{}).outcome("/BatchGetRow", &pb.BatchGetRowRequest{}), invalid+"No row specified in the request of BatchGetRow.")
	})
	t.Run("BatchGetRow accepts 100 rows", func(t *testing.T) {
		// [batchget] "exceeds 100"; [item] testCase29
		b := newStrictBed(t, emulator.Options{})
		keys := make([][]byte, 101)
		for i := range keys {
			keys[i] = row(fmt.Sprint("r", i))
		}
		expect(t, "101", b.batchGet(nil, keys...), invalid+"Rows count exceeds the upper limit: 100.")
		expect(t, "100", b.batchGet(nil, keys[:100]...), "ok")
	})
}
