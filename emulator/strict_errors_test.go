package emulator_test

import (
	"math"
	"testing"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// TestDocumentedErrors checks messages of OTSParameterInvalid from the page
// developer-reference/error-codes; no known test suite checks them.
func TestDocumentedErrors(t *testing.T) {
	b := newStrictBed(t, emulator.Options{})
	numbered := func(r *pb.CreateTableRequest) {
		r.TableMeta.PrimaryKey[1].Option = ptr(pb.PrimaryKeyOption_AUTO_INCREMENT)
	}
	b.must("/CreateTable", newTable("auto", numbered), &pb.CreateTableResponse{})
	double := func(x float64) plainbuffer.Cell {
		return plainbuffer.Cell{Name: "x", HasValue: true, Value: plainbuffer.DoubleValue(x)}
	}
	op := func(c plainbuffer.Cell, op plainbuffer.Op) plainbuffer.Cell {
		c.Op = op
		return c
	}
	bare := plainbuffer.Cell{Name: "n"}
	newRow := []plainbuffer.Cell{text("p", "k"), special("q", plainbuffer.AutoIncrement)}
	putAuto := func(c *pb.Condition) string {
		return b.outcome("/PutRow", &pb.PutRowRequest{TableName: ptr("auto"), Row: rowOf(newRow), Condition: c})
	}
	window := func(versions *int32, r *pb.TimeRange) string {
		return b.getRow(row("k"), func(req *pb.GetRowRequest) { req.MaxVersions, req.TimeRange = versions, r })
	}
	create := func(change func(*pb.CreateTableRequest)) string {
		return b.outcome("/CreateTable", newTable("new", change))
	}
	deleteWithout := func(row []byte) string {
		return b.outcome("/DeleteRow", &pb.DeleteRowRequest{TableName: ptr("t"), PrimaryKey: row, Condition: ignoring()})
	}
	marked := func(cells ...plainbuffer.Cell) []byte {
		return plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), &plainbuffer.Row{PrimaryKey: []plainbuffer.Cell{text("p", "k"), number("q", 1)}, Cells: cells, Delete: true})
	}
	// twice is two puts of a row in one atomic batch, the second one changed.
	twice := func(change func(*pb.RowInBatchWriteRowRequest)) string {
		rows := puts("t", row("k"), row("k"))
		change(rows.Rows[1])
		got, _ := b.batchWrite(true, rows)
		return got
	}
	exists := &pb.Condition{RowExistence: ptr(pb.RowExistenceExpectation_EXPECT_EXIST)}
	conditional := &pb.Condition{RowExistence: ptr(pb.RowExistenceExpectation_IGNORE), ColumnCondition: message(t, &pb.Filter{
		Type: ptr(pb.FilterType_FT_SINGLE_COLUMN_VALUE), Filter: message(t, &pb.SingleColumnValueFilter{
			Comparator: ptr(pb.ComparatorType_CT_EQUAL), ColumnName: ptr("n"), ColumnValue: variant(1), FilterIfMissing: ptr(true), LatestVersionOnly: ptr(true),
		}),
	})}
	for want, got := range map[string]string{
		"NaN can't be set to double value.":                                                b.putRow(row("k", double(math.NaN()))),
		"Infinity can't be set to double value.":                                           b.putRow(row("k", double(math.Inf(-1)))),
		"Value of column 'n' must be UTF8 encoding.":                                       b.putRow(row("k", text("n", "\xff"))),
		"Value of column 'p' must be UTF8 encoding.":                                       b.putRow(row("\xff")),
		"OpType cannot be given for column name:'n' in PutRow.":                            b.putRow(row("k", plus("n", 1))),
		"Timestamp must be given when type is DELETE_ONE_VERSION.":                         b.updateRow(row("k", op(bare, plainbuffer.DeleteOneVersion))),
		"Timestamp cannot be given when type is DELETE_ALL_VERSION.":                       b.updateRow(row("k", at(op(bare, plainbuffer.DeleteAllVersion), 1))),
		"Column value cannot be given when type is DELETE_ONE_VERSION,DELETE_ALL_VERSION.": b.updateRow(row("k", op(number("n", 1), plainbuffer.DeleteAllVersion))),
		"Invalid update row request: missing cells in request.":                            b.updateRow(row("k")),
		"Invalid delete row request: unexpected cells in request.":                         deleteWithout(marked(number("n", 1))),
		"Invalid request of delete row: missing RowDeleteMarker in request.":               deleteWithout(row("k")),
		"Invalid request of put/update row: unexpected RowDeleteMarker in request.":        b.putRow(marked()),
		"Invalid row to delete which with pk auto increment.":                              b.deleteRow(newRow),
		"PKAutoIncr can't be used for read operations.":                                    b.getRow(rowOf(newRow)),
		"Invalid expect:1 when modify row with pk auto increment.":                         putAuto(exists),
		"Can't set condition when modify row with pk auto increment.":                      putAuto(conditional),
		"Invalid max versions: -1. Reason: Max versions must be positive.":                 window(ptr(int32(-1)), nil),
		"Specific tiemstamp and max versions cannot be given at the same time.":            window(ptr(int32(1)), &pb.TimeRange{SpecificTime: ptr(int64(5))}),
		"Specific tiemstamp and time range cannot be given at the same time.":              window(nil, &pb.TimeRange{SpecificTime: ptr(int64(5)), StartTime: ptr(int64(1)), EndTime: ptr(int64(9))}),
		"Start and end time must be given at the same time.":                               window(nil, &pb.TimeRange{StartTime: ptr(int64(1))}),
		"Duplicate rows detected in MultiGet.":                                             b.batchGet(nil, row("k"), row("k")),
		"Repeated rows do not support row exist expectation check in BatchModify.":         twice(func(r *pb.RowInBatchWriteRowRequest) { r.Condition = exists }),
		"Repeated rows do not support row condition check in BatchModify.":                 twice(func(r *pb.RowInBatchWriteRowRequest) { r.Condition = conditional }),
		"TimeToLive cannot be 0 or less than -1.":                                          create(func(r *pb.CreateTableRequest) { r.TableOptions.TimeToLive = ptr(int32(0)) }),
		"The maximum versions cannot be less than or equal to 0.":                          create(func(r *pb.CreateTableRequest) { r.TableOptions.MaxVersions = ptr(int32(0)) }),
		"The maximum deviation must be in range [0, INT64_MAX/1000000].":                   create(func(r *pb.CreateTableRequest) { r.TableOptions.DeviationCellVersionInSec = ptr(int64(-1)) }),
		"Invalid Capacity Unit:-1. Capacity Unit must be nonnegative.":                     create(func(r *pb.CreateTableRequest) { r.ReservedThroughput.CapacityUnit.Read = ptr(int32(-1)) }),
		"First primary key can't be auto increment, table: new.": create(func(r *pb.CreateTableRequest) {
			r.TableMeta.PrimaryKey[0].Option = ptr(pb.PrimaryKeyOption_AUTO_INCREMENT)
		}),
		"AUTO_INCREMENT primary key must be integer.": create(func(r *pb.CreateTableRequest) {
			numbered(r)
			r.TableMeta.PrimaryKey[1].Type = ptr(pb.PrimaryKeyType_STRING)
		}),
	} {
		expect(t, "answer", got, invalid+want)
	}
	expect(t, "the row exists", b.has("k"), false)
}
