package emulator_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
)

func TestSDKMatrix(t *testing.T) {
	s := newSDK(t, start(t, keys))
	s.put("a", 1, "s", "text", "n", int64(-7), "d", 1.5, "b", true, "x", []byte{0, 255}, "other", "o")
	s.put("a", 2, "n", int64(8), "b", false)
	s.put("a", 3, "other", "o")
	read := func(change ...func(*tablestore.RangeRowQueryCriteria)) (kind tablestore.DataBlockType, rows string) {
		t.Helper()
		q := &tablestore.RangeRowQueryCriteria{
			TableName: "orders", Direction: tablestore.FORWARD, MaxVersion: 1, StartPrimaryKey: key("a", "min"), EndPrimaryKey: key("a", "max"),
			ColumnsToGet: []string{"s", "n", "d", "b", "x", "id"}, DataBlockType: tablestore.SimpleRowMatrix,
		}
		for _, f := range change {
			f(q)
		}
		var list []string
		for q.StartPrimaryKey != nil {
			r, err := s.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: q})
			if err != nil {
				t.Fatal(err)
			}
			kind = r.DataBlockType
			for _, row := range r.Rows {
				var names []string
				for _, k := range row.PrimaryKey.PrimaryKeys {
					names = append(names, fmt.Sprint(k.Value))
				}
				list = append(list, fmt.Sprintf("%s[%s]", strings.Join(names, ","), columnsText(row.Columns)))
			}
			q.StartPrimaryKey = r.NextStartPrimaryKey
		}
		return kind, strings.Join(list, " ")
	}
	expectRead := func(what string, wantKind tablestore.DataBlockType, want string, change ...func(*tablestore.RangeRowQueryCriteria)) {
		t.Helper()
		kind, rows := read(change...)
		expect(t, what, rows, want)
		expect(t, "form of "+what, kind, wantKind)
	}
	const first, second = "a,1[s=text n=-7 d=1.5 b=true x=[0 255]]", "a,2[n=8 b=false]"
	expectRead("named columns", tablestore.SimpleRowMatrix, first+" "+second+" a,3[]")
	expectRead("pages", tablestore.SimpleRowMatrix, first+" "+second+" a,3[]", func(q *tablestore.RangeRowQueryCriteria) { q.Limit = 1 })
	expectRead("named key columns only", tablestore.SimpleRowMatrix, "1[n=-7] 2[n=8] 3[]", func(q *tablestore.RangeRowQueryCriteria) {
		q.ColumnsToGet, q.ReturnSpecifiedPkOnly = []string{"id", "n", "n"}, true
	})
	expectRead("no row", tablestore.SimpleRowMatrix, "", func(q *tablestore.RangeRowQueryCriteria) {
		q.StartPrimaryKey, q.EndPrimaryKey = key("b", "min"), key("b", "max")
	})
	expectRead("several versions", tablestore.PlainBuffer, "a,1[b=true d=1.5 n=-7 s=text x=[0 255]] a,2[b=false n=8] a,3[]", func(q *tablestore.RangeRowQueryCriteria) { q.MaxVersion = 2 })

	// aliyun-tablestore-java-sdk, functiontest/TestBulkExportFunciton.java asks BulkExport for it.
	_, err := s.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
		TableName: "orders", Direction: tablestore.FORWARD, MaxVersion: 1, StartPrimaryKey: key("a", "min"), EndPrimaryKey: key("a", "max"),
		DataBlockType: tablestore.SimpleRowMatrix,
	}})
	expect(t, "all columns", sdkCode(err), "OTSParameterInvalid")
	if err == nil || !strings.Contains(err.Error(), "DBT_SIMPLE_ROW_MATRIX need at least one column to get.") {
		t.Errorf("all columns: %v", err)
	}
}
