package filter

import (
	"strings"
	"testing"

	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

func ptr[T any](v T) *T { return &v }

func encode(t *testing.T, kind pb.FilterType, msg protoadapt.MessageV1) *pb.Filter {
	t.Helper()
	b, err := proto.Marshal(protoadapt.MessageV2Of(msg))
	if err != nil {
		t.Fatal(err)
	}
	return &pb.Filter{Type: &kind, Filter: b}
}

func single(t *testing.T, column string, op pb.ComparatorType, v plainbuffer.Value, change ...func(*pb.SingleColumnValueFilter)) *pb.Filter {
	t.Helper()
	msg := &pb.SingleColumnValueFilter{
		Comparator: &op, ColumnName: &column, ColumnValue: plainbuffer.AppendVariant(nil, v),
		FilterIfMissing: ptr(true), LatestVersionOnly: ptr(true),
	}
	for _, f := range change {
		f(msg)
	}
	return encode(t, pb.FilterType_FT_SINGLE_COLUMN_VALUE, msg)
}

func parse(t *testing.T, msg *pb.Filter) (*Filter, error) {
	t.Helper()
	b, err := proto.Marshal(protoadapt.MessageV2Of(msg))
	if err != nil {
		t.Fatal(err)
	}
	return Parse(b)
}

func match(t *testing.T, msg *pb.Filter, row *plainbuffer.Row) bool {
	t.Helper()
	f, err := parse(t, msg)
	if err != nil {
		t.Fatal(err)
	}
	return f.Match(row)
}

func TestFilter(t *testing.T) {
	cell := func(name string, v plainbuffer.Value) plainbuffer.Cell {
		return plainbuffer.Cell{Name: name, HasValue: true, Value: v}
	}
	row := &plainbuffer.Row{Cells: []plainbuffer.Cell{
		cell("v", plainbuffer.IntegerValue(2)), cell("v", plainbuffer.IntegerValue(1)),
		cell("w", plainbuffer.StringValue("size: 42 mm")),
	}}
	t.Run("evaluates only the newest version if configured", func(t *testing.T) {
		any := func(f *pb.SingleColumnValueFilter) { f.LatestVersionOnly = ptr(false) }
		if match(t, single(t, "v", pb.ComparatorType_CT_EQUAL, plainbuffer.IntegerValue(1)), row) {
			t.Error("an older version matched")
		}
		if !match(t, single(t, "v", pb.ComparatorType_CT_EQUAL, plainbuffer.IntegerValue(1), any), row) {
			t.Error("no version matched")
		}
	})
	t.Run("extracts a number from a text by a rule", func(t *testing.T) {
		rule := func(pattern string) func(*pb.SingleColumnValueFilter) {
			return func(f *pb.SingleColumnValueFilter) {
				f.ValueTransRule = &pb.ValueTransferRule{Regex: &pattern, CastType: pb.VariantType_VT_INTEGER.Enum()}
			}
		}
		if !match(t, single(t, "w", pb.ComparatorType_CT_GREATER_THAN, plainbuffer.IntegerValue(41), rule(`size: (\d+) mm`)), row) {
			t.Error("42 is not greater than 41")
		}
		if match(t, single(t, "w", pb.ComparatorType_CT_GREATER_THAN, plainbuffer.IntegerValue(0), rule(`weight: (\d+)`)), row) {
			t.Error("a text outside the rule's pattern matched")
		}
	})
	t.Run("of a missing row sees no columns", func(t *testing.T) {
		keep := func(f *pb.SingleColumnValueFilter) { f.FilterIfMissing = ptr(false) }
		if match(t, single(t, "v", pb.ComparatorType_CT_EQUAL, plainbuffer.IntegerValue(2)), nil) {
			t.Error("a missing row matched")
		}
		if !match(t, single(t, "v", pb.ComparatorType_CT_EQUAL, plainbuffer.IntegerValue(2), keep), nil) {
			t.Error("a missing row did not match though missing columns do")
		}
	})
	t.Run("nil matches everything", func(t *testing.T) {
		f, err := Parse(nil)
		if err != nil || !f.Match(row) || len(f.Paginate(row.Cells)) != 3 {
			t.Errorf("got %v, %v", f, err)
		}
	})
	t.Run("refuses what it cannot evaluate", func(t *testing.T) {
		deep := single(t, "v", pb.ComparatorType_CT_EQUAL, plainbuffer.IntegerValue(2))
		for range 40 {
			deep = encode(t, pb.FilterType_FT_COMPOSITE_COLUMN_VALUE, &pb.CompositeColumnValueFilter{
				Combinator: pb.LogicalOperator_LO_NOT.Enum(), SubFilters: []*pb.Filter{deep},
			})
		}
		for _, v := range []struct {
			msg  *pb.Filter
			says string
		}{
			{deep, "exceeds the max: 32."},
			{encode(t, pb.FilterType_FT_COMPOSITE_COLUMN_VALUE, &pb.CompositeColumnValueFilter{Combinator: pb.LogicalOperator_LO_AND.Enum()}), "more than 1."},
			{encode(t, pb.FilterType_FT_COLUMN_PAGINATION, &pb.ColumnPaginationFilter{Offset: ptr(int32(-1)), Limit: ptr(int32(1))}), "Offset in"},
			{&pb.Filter{Type: ptr(pb.FilterType(9)), Filter: []byte{}}, "unknown filter type"},
			{single(t, "v", pb.ComparatorType_CT_EQUAL, plainbuffer.IntegerValue(2), func(f *pb.SingleColumnValueFilter) { f.ColumnValue = []byte{0} }), "compared with"},
			{single(t, "w", pb.ComparatorType_CT_EQUAL, plainbuffer.IntegerValue(2), func(f *pb.SingleColumnValueFilter) {
				f.ValueTransRule = &pb.ValueTransferRule{Regex: ptr("(")}
			}), "rule"},
		} {
			if _, err := parse(t, v.msg); err == nil || !strings.Contains(err.Error(), v.says) {
				t.Errorf("got %v, want an error about %q", err, v.says)
			}
		}
	})
}
