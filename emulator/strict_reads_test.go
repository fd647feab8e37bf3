package emulator_test

import (
	"strings"
	"testing"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// The sources in brackets are listed in strict_test.go.

func TestStrictReads(t *testing.T) {
	b := newStrictBed(t, emulator.Options{})
	low, high := []plainbuffer.Cell{text("p", "a"), number("q", 1)}, []plainbuffer.Cell{text("p", "b"), number("q", 1)}
	backward := func(r *pb.GetRangeRequest) { r.Direction = ptr(pb.Direction_BACKWARD) }
	limit := func(n int32) func(*pb.GetRangeRequest) {
		return func(r *pb.GetRangeRequest) { r.Limit = &n }
	}
	t.Run("the ends of a range are in the order of reading, and differ", func(t *testing.T) {
		// [legal] testGetRangeWhenStartPkEqualsEndPk; [pyrow] test_get_range_when_direction_is_wrong_for_1_PK, test_all_the_ranges_for_2_PK
		const forward, back = invalid + "Begin key must less than end key in FORWARD", invalid + "Begin key must more than end key in BACKWARD"
		expect(t, "up", b.getRange(low, high), "ok")
		expect(t, "up, equal", b.getRange(low, low), forward)
		expect(t, "up, the wrong way", b.getRange(high, low), forward)
		expect(t, "down", b.getRange(high, low, backward), "ok")
		expect(t, "down, equal", b.getRange(low, low, backward), back)
		expect(t, "down, the wrong way", b.getRange(low, high, backward), back)
	})
	t.Run("the limit of a range is positive", func(t *testing.T) {
		// [pyrow] test_get_range_limit_invalid
		expect(t, "-1", b.getRange(low, high, limit(-1)), invalid+"The limit must be greater than 0.")
		expect(t, "0", b.getRange(low, high, limit(0)), invalid+"The limit must be greater than 0.")
		expect(t, "1", b.getRange(low, high, limit(1)), "ok")
	})
	t.Run("the ends of a range may be infinite, and have the table's key", func(t *testing.T) {
		// [pyrow] _check_all_row_op_with_exception_meta_not_match
		expect(t, "infinite", b.getRange([]plainbuffer.Cell{special("p", plainbuffer.InfMin), special("q", plainbuffer.InfMin)}, high), "ok")
		expect(t, "size", b.getRange(low[:1], high), "OTSInvalidPK: Validate PK size fail. Input: 1, Meta: 2.")
		expect(t, "name", b.getRange([]plainbuffer.Cell{text("x", "a"), number("q", 1)}, high), "OTSInvalidPK: Validate PK name fail. Input: x, Meta: p.")
	})
	t.Run("a read says which versions it wants", func(t *testing.T) {
		// [legal] testNotSetVersionOptionsInGetOperations
		expect(t, "GetRow", b.getRow(row("a"), func(r *pb.GetRowRequest) { r.MaxVersions = nil }), invalid+"No version condition is specified.")
		expect(t, "GetRange", b.getRange(low, high, func(r *pb.GetRangeRequest) { r.MaxVersions = nil }), invalid+"No version condition is specified.")
	})
	t.Run("columns to get have columns' names", func(t *testing.T) {
		// [batchget]; [legal] testInvalidColumnName
		bad := []string{"#abc"}
		expect(t, "GetRow", b.getRow(row("a"), func(r *pb.GetRowRequest) { r.ColumnsToGet = bad }), invalid+"Invalid column name: '#abc'.")
		expect(t, "GetRange", b.getRange(low, high, func(r *pb.GetRangeRequest) { r.ColumnsToGet = bad }), invalid+"Invalid column name: '#abc'.")
		expect(t, "BatchGetRow", b.batchGet(func(r *pb.TableInBatchGetRowRequest) { r.ColumnsToGet = bad }, row("a")), invalid+"Invalid column name: '#abc'.")
	})
	t.Run("there are 128 columns to get at most", func(t *testing.T) {
		// [batchget] "exceeds 128"; the text is of [item] testCase43
		const want = invalid + "The number of columns from the request exceeds the limit, limit count: 128, column count: 129."
		for n, want := range map[int]string{128: "ok", 129: want} {
			expect(t, "GetRow", b.getRow(row("a"), func(r *pb.GetRowRequest) { r.ColumnsToGet = names(n) }), want)
			expect(t, "GetRange", b.getRange(low, high, func(r *pb.GetRangeRequest) { r.ColumnsToGet = names(n) }), want)
			expect(t, "BatchGetRow", b.batchGet(func(r *pb.TableInBatchGetRowRequest) { r.ColumnsToGet = names(n) }, row("a")), want)
		}
	})
}

func TestStrictFilters(t *testing.T) {
	b := newStrictBed(t, emulator.Options{})
	compare := func(column string, value plainbuffer.Value) *pb.Filter {
		return &pb.Filter{Type: ptr(pb.FilterType_FT_SINGLE_COLUMN_VALUE), Filter: message(t, &pb.SingleColumnValueFilter{
			Comparator: ptr(pb.ComparatorType_CT_EQUAL), ColumnName: &column, ColumnValue: plainbuffer.AppendVariant(nil, value), FilterIfMissing: ptr(true), LatestVersionOnly: ptr(true),
		})}
	}
	one := plainbuffer.IntegerValue(1)
	combine := func(op pb.LogicalOperator, n int) *pb.Filter {
		c := &pb.CompositeColumnValueFilter{Combinator: &op}
		for range n {
			c.SubFilters = append(c.SubFilters, compare("n", one))
		}
		return &pb.Filter{Type: ptr(pb.FilterType_FT_COMPOSITE_COLUMN_VALUE), Filter: message(t, c)}
	}
	const (
		tooMany = invalid + "The count of filter exceeds the max: 32."
		binary  = invalid + "Invalid AND/OR operator: the number of sub-filters must be more than 1."
		unary   = invalid + "Invalid NOT operator: the number of sub-filters must be 1."
	)
	for _, v := range []struct {
		name   string
		filter *pb.Filter
		want   string
	}{
		// [filters] counts composites too: a tree of 32 passes, one of 33 does not
		{"32 filters, their combination included", combine(pb.LogicalOperator_LO_OR, 31), "ok"},
		{"33 filters", combine(pb.LogicalOperator_LO_OR, 32), tooMany},
		// [filters] testLogicOperatorRestriction
		{"AND of one", combine(pb.LogicalOperator_LO_AND, 1), binary},
		{"OR of one", combine(pb.LogicalOperator_LO_OR, 1), binary},
		{"OR of none", combine(pb.LogicalOperator_LO_OR, 0), binary},
		{"NOT of one", combine(pb.LogicalOperator_LO_NOT, 1), "ok"},
		{"NOT of two", combine(pb.LogicalOperator_LO_NOT, 2), unary},
		// [filters], a value above the longest column's
		{"a long value", compare("Column", plainbuffer.StringValue(strings.Repeat("x", 2<<20+1))), invalid + "The length of attribute column: 'Column' exceeds the MaxLength:2097152 with CurrentLength:2097153."},
		// [legal] testInvalidColumnName
		{"a bad column", compare("#", one), invalid + "Invalid column name: '#'."},
	} {
		t.Run("a filter of "+v.name, func(t *testing.T) {
			encoded := message(t, v.filter)
			expect(t, "GetRow", b.getRow(row("a"), func(r *pb.GetRowRequest) { r.Filter = encoded }), v.want)
			condition := &pb.Condition{RowExistence: ptr(pb.RowExistenceExpectation_IGNORE), ColumnCondition: encoded}
			got := b.outcome("/PutRow", &pb.PutRowRequest{TableName: ptr("t"), Row: row("a"), Condition: condition})
			if v.want == "ok" && strings.HasPrefix(got, "OTSConditionCheckFail") {
				got = "ok"
			}
			expect(t, "a condition of PutRow", got, v.want)
		})
	}
	t.Run("a condition that fails", func(t *testing.T) {
		// Python, tests/filter_and_condition_update_unitttest.py
		got := b.outcome("/PutRow", &pb.PutRowRequest{TableName: ptr("t"), Row: row("none"), Condition: &pb.Condition{RowExistence: ptr(pb.RowExistenceExpectation_EXPECT_EXIST)}})
		expect(t, "PutRow", got, "OTSConditionCheckFail: Condition check failed.")
	})
}

// TestLenient is about what the documentation forbids and an SDK's own tests
// do.
func TestLenient(t *testing.T) {
	for _, lenient := range []bool{false, true} {
		b := newStrictBed(t, emulator.Options{Lenient: lenient})
		taken := func(t *testing.T, what, got string) {
			t.Helper()
			if (got == "ok") != lenient {
				t.Errorf("%s with Lenient %v: %s", what, lenient, got)
			}
		}
		mode := map[bool]string{false: " is refused", true: " is accepted with Lenient"}[lenient]
		t.Run("a row twice in a batch"+mode, func(t *testing.T) {
			// [batchput] forbids it; [behave] testBatchWriteRowToPutIdenticalRowPk writes one ten times, the last one stays
			got, _ := b.batchWrite(false, puts("t", row("a", number("n", 1)), row("a", number("n", 2))))
			taken(t, "BatchWriteRow", got)
			if lenient {
				var resp pb.GetRowResponse
				b.must("/GetRow", &pb.GetRowRequest{TableName: ptr("t"), PrimaryKey: row("a"), MaxVersions: ptr(int32(1))}, &resp)
				var r plainbuffer.Row
				if err := plainbuffer.Decode(resp.Row, &r); err != nil || r.Cells[0].Value.Integer() != 2 {
					t.Errorf("the row is %+v, %v", r, err)
				}
			}
		})
		t.Run("1024 columns to get"+mode, func(t *testing.T) {
			// [batchget] has 128; [item] testCase42 reads 1024, testCase43 not 1025
			taken(t, "GetRow", b.getRow(row("a"), func(r *pb.GetRowRequest) { r.ColumnsToGet = names(1024) }))
			if got := b.getRow(row("a"), func(r *pb.GetRowRequest) { r.ColumnsToGet = names(1025) }); !strings.Contains(got, "column count: 1025.") {
				t.Errorf("1025 columns: %s", got)
			}
		})
		t.Run("a column's name of any characters"+mode, func(t *testing.T) {
			// [names] has letters, digits, '_' and '-'; [legal] testValidColumnName writes these, and testInvalidColumnName not those with '#' first
			for _, name := range []string{"公司", ".abc", "a b", "\n", "a\\"} {
				taken(t, name, b.putRow(row("a", number(name, 1))))
			}
			for _, name := range []string{"#", "# ", "#公司", strings.Repeat("a", 256), ""} {
				expect(t, name, b.putRow(row("a", number(name, 1))), invalid+"Invalid column name: '"+name+"'.")
			}
		})
		t.Run("a row twice in BatchGetRow"+mode, func(t *testing.T) {
			// [errors] has "Duplicate rows detected in MultiGet"; [pyrow] test_batch_get_on_the_same_row does it
			taken(t, "BatchGetRow", b.batchGet(nil, row("a"), row("a")))
		})
		t.Run("a table without rows in BatchGetRow"+mode, func(t *testing.T) {
			// [batchget] forbids it; [pyrow] test_no_item_in_batch_ops does it
			taken(t, "BatchGetRow", b.batchGet(nil))
		})
	}
}
