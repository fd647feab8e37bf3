package emulator_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// start starts an emulator and closes it at the end of the test.
func start(t testing.TB, opts emulator.Options) *emulator.Emulator {
	t.Helper()
	e, err := emulator.Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("closing the emulator: %v", err)
		}
	})
	return e
}

// keys are the options of an emulator that checks signatures.
var keys = emulator.Options{Instance: "inst", AccessKeyID: "ak", AccessKeySecret: "sk"}

// sdk is the official Go SDK's table client, unmodified, with a table "orders"
// that has the keys pk (string) and id (integer).
type sdk struct {
	*tablestore.TableStoreClient
	t testing.TB
}

func newSDK(t testing.TB, e *emulator.Emulator, change ...func(*tablestore.CreateTableRequest)) *sdk {
	t.Helper()
	transport := e.Transport()
	t.Cleanup(transport.CloseIdleConnections)
	cfg := tablestore.NewDefaultTableStoreConfig()
	cfg.Transport = transport
	s := &sdk{tablestore.NewClientWithConfig(e.Endpoint(), "inst", "ak", "sk", "", cfg), t}
	meta := &tablestore.TableMeta{TableName: "orders"}
	meta.AddPrimaryKeyColumn("pk", tablestore.PrimaryKeyType_STRING)
	meta.AddPrimaryKeyColumn("id", tablestore.PrimaryKeyType_INTEGER)
	req := &tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 3},
		ReservedThroughput: &tablestore.ReservedThroughput{},
	}
	for _, f := range change {
		f(req)
	}
	if _, err := s.CreateTable(req); err != nil {
		t.Fatalf("creating the table: %v", err)
	}
	return s
}

func key(pk string, id any) *tablestore.PrimaryKey {
	k := &tablestore.PrimaryKey{}
	k.AddPrimaryKeyColumn("pk", pk)
	switch id {
	case "min":
		k.AddPrimaryKeyColumnWithMinValue("id")
	case "max":
		k.AddPrimaryKeyColumnWithMaxValue("id")
	case "auto":
		k.AddPrimaryKeyColumnWithAutoIncrement("id")
	default:
		k.AddPrimaryKeyColumn("id", id)
	}
	return k
}

func ignore() *tablestore.RowCondition {
	return &tablestore.RowCondition{RowExistenceExpectation: tablestore.RowExistenceExpectation_IGNORE}
}

// putChange builds a put with columns given as name, value, name, value.
func putChange(pk string, id any, columns ...any) *tablestore.PutRowChange {
	c := &tablestore.PutRowChange{TableName: "orders", PrimaryKey: key(pk, id), Condition: ignore()}
	for i := 0; i < len(columns); i += 2 {
		c.AddColumn(columns[i].(string), columns[i+1])
	}
	return c
}

func (s *sdk) put(pk string, id int64, columns ...any) {
	s.t.Helper()
	if _, err := s.PutRow(&tablestore.PutRowRequest{PutRowChange: putChange(pk, id, columns...)}); err != nil {
		s.t.Fatalf("putting %s/%d: %v", pk, id, err)
	}
}

func (s *sdk) update(c *tablestore.UpdateRowChange) (*tablestore.UpdateRowResponse, error) {
	c.TableName = "orders"
	if c.Condition == nil {
		c.Condition = ignore()
	}
	return s.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: c})
}

// get reads a row as text: its columns as name=value, newest version first; "-"
// if it does not exist.
func (s *sdk) get(pk string, id int64, change ...func(*tablestore.SingleRowQueryCriteria)) string {
	s.t.Helper()
	q := &tablestore.SingleRowQueryCriteria{TableName: "orders", PrimaryKey: key(pk, id), MaxVersion: 1}
	for _, f := range change {
		f(q)
	}
	r, err := s.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: q})
	if err != nil {
		s.t.Fatalf("getting %s/%d: %v", pk, id, err)
	}
	if len(r.PrimaryKey.PrimaryKeys) == 0 {
		return "-"
	}
	return columnsText(r.Columns)
}

func columnsText(columns []*tablestore.AttributeColumn) string {
	var parts []string
	for _, c := range columns {
		parts = append(parts, fmt.Sprintf("%s=%v", c.ColumnName, c.Value))
	}
	return strings.Join(parts, " ")
}

func sdkCode(err error) string {
	var e *tablestore.OtsError
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

func expect[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestSDKTables(t *testing.T) {
	t.Run("are created, described, updated, listed and deleted", func(t *testing.T) {
		s := newSDK(t, start(t, keys), func(r *tablestore.CreateTableRequest) {
			r.TableMeta.AddDefinedColumn("total", tablestore.DefinedColumn_DOUBLE)
			r.ReservedThroughput = &tablestore.ReservedThroughput{Readcap: 1, Writecap: 2}
			r.TableOption.UpdateFullRow = ptr(true)
		})
		d, err := s.DescribeTable(&tablestore.DescribeTableRequest{TableName: "orders"})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "name", d.TableMeta.TableName, "orders")
		expect(t, "keys", len(d.TableMeta.SchemaEntry), 2)
		expect(t, "first key", *d.TableMeta.SchemaEntry[0].Name, "pk")
		expect(t, "second key's type", *d.TableMeta.SchemaEntry[1].Type, tablestore.PrimaryKeyType_INTEGER)
		expect(t, "defined columns", len(d.TableMeta.DefinedColumns), 1)
		expect(t, "versions", d.TableOption.MaxVersion, 3)
		expect(t, "full rows", *d.TableOption.UpdateFullRow, true)
		expect(t, "deviation", d.TableOption.DeviationCellVersionInSec, 86400)
		expect(t, "read capacity", d.ReservedThroughput.Readcap, 1)
		expect(t, "stream", d.StreamDetails.EnableStream, false)
		u, err := s.UpdateTable(&tablestore.UpdateTableRequest{
			TableName:   "orders",
			TableOption: &tablestore.TableOption{TimeToAlive: 86400 * 7, MaxVersion: 5},
			StreamSpec:  &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24, OriginColumnsToGet: []string{"total"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "versions", u.TableOption.MaxVersion, 5)
		expect(t, "stream", u.StreamDetails.EnableStream, true)
		expect(t, "expiration", u.StreamDetails.ExpirationTime, 24)
		expect(t, "origin columns", len(u.StreamDetails.OriginColumnsToGet), 1)
		list, err := s.ListTable()
		if err != nil || !slices.Equal(list.TableNames, []string{"orders"}) {
			t.Errorf("tables are %v, %v", list.TableNames, err)
		}
		if _, err := s.DeleteTable(&tablestore.DeleteTableRequest{TableName: "orders"}); err != nil {
			t.Fatal(err)
		}
		_, err = s.DescribeTable(&tablestore.DescribeTableRequest{TableName: "orders"})
		expect(t, "a deleted table", sdkCode(err), "OTSObjectNotExist")
	})
	t.Run("updates are answered with stream details even if there is no stream", func(t *testing.T) {
		// The SDK reads them without a nil check.
		s := newSDK(t, start(t, keys))
		u, err := s.UpdateTable(&tablestore.UpdateTableRequest{TableName: "orders", TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 2}})
		if err != nil || u.StreamDetails.EnableStream {
			t.Errorf("got %+v, %v", u.StreamDetails, err)
		}
	})
	t.Run("are refused twice, with bad names and bad keys", func(t *testing.T) {
		s := newSDK(t, start(t, keys))
		create := func(name string, pks int) string {
			meta := &tablestore.TableMeta{TableName: name}
			for i := range pks {
				meta.AddPrimaryKeyColumn(fmt.Sprintf("k%d", i), tablestore.PrimaryKeyType_STRING)
			}
			_, err := s.CreateTable(&tablestore.CreateTableRequest{TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}, ReservedThroughput: &tablestore.ReservedThroughput{}})
			return sdkCode(err)
		}
		expect(t, "twice", create("orders", 1), "OTSObjectAlreadyExist")
		expect(t, "bad name", create("4 orders", 1), "OTSParameterInvalid")
		expect(t, "five keys", create("five", 5), "OTSParameterInvalid")
	})
}

func TestSDKRows(t *testing.T) {
	t.Run("keep every type of column", func(t *testing.T) {
		s := newSDK(t, start(t, keys))
		s.put("a", 1, "text", "päckchen", "int", int64(-7), "double", 1.5, "yes", true, "bytes", []byte{0, 1, 255}, "empty", "")
		got, err := s.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "orders", PrimaryKey: key("a", int64(1)), MaxVersion: 1}})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "columns", columnsText(got.Columns), "bytes=[0 1 255] double=1.5 empty= int=-7 text=päckchen yes=true")
		expect(t, "key", got.PrimaryKey.PrimaryKeys[1].Value.(int64), 1)
		expect(t, "a missing row", s.get("a", 2), "-")
	})
	t.Run("are updated, column by column", func(t *testing.T) {
		s := newSDK(t, start(t, keys))
		s.put("a", 1, "a", "1", "b", "1")
		u := &tablestore.UpdateRowChange{PrimaryKey: key("a", int64(1))}
		u.PutColumn("c", int64(5))
		u.DeleteColumn("a")
		if _, err := s.update(u); err != nil {
			t.Fatal(err)
		}
		expect(t, "row", s.get("a", 1), "b=1 c=5")
		inc := &tablestore.UpdateRowChange{PrimaryKey: key("a", int64(1))}
		inc.IncrementColumn("c", 37)
		inc.SetReturnIncrementValue()
		inc.AppendIncrementColumnToReturn("c")
		r, err := s.update(inc)
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "returned", columnsText(r.Columns), "c=42")
		if _, err := s.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: &tablestore.DeleteRowChange{TableName: "orders", PrimaryKey: key("a", int64(1)), Condition: ignore()}}); err != nil {
			t.Fatal(err)
		}
		expect(t, "deleted row", s.get("a", 1), "-")
	})
	t.Run("have versions from which reads choose", func(t *testing.T) {
		s := newSDK(t, start(t, keys))
		now := time.Now().UnixMilli()
		for i := range int64(3) {
			u := &tablestore.UpdateRowChange{PrimaryKey: key("a", int64(1))}
			u.PutColumnWithTimestamp("v", i, now+i)
			if _, err := s.update(u); err != nil {
				t.Fatal(err)
			}
		}
		expect(t, "newest", s.get("a", 1), "v=2")
		expect(t, "two", s.get("a", 1, func(q *tablestore.SingleRowQueryCriteria) { q.MaxVersion = 2 }), "v=2 v=1")
		expect(t, "in a range", s.get("a", 1, func(q *tablestore.SingleRowQueryCriteria) {
			q.MaxVersion = 9
			q.TimeRange = &tablestore.TimeRange{Start: now, End: now + 2}
		}), "v=1 v=0")
		expect(t, "of one time", s.get("a", 1, func(q *tablestore.SingleRowQueryCriteria) {
			q.MaxVersion = 0
			q.TimeRange = &tablestore.TimeRange{Specific: now + 1}
		}), "v=1")
		u := &tablestore.UpdateRowChange{PrimaryKey: key("a", int64(1))}
		u.DeleteColumnWithTimestamp("v", now+2)
		if _, err := s.update(u); err != nil {
			t.Fatal(err)
		}
		expect(t, "after deleting the newest", s.get("a", 1), "v=1")
		far := putChange("a", int64(1))
		far.AddColumnWithTimestamp("v", int64(1), now+90_000_000)
		_, err := s.PutRow(&tablestore.PutRowRequest{PutRowChange: far})
		expect(t, "a version out of range", sdkCode(err), "OTSParameterInvalid")
	})
	t.Run("are numbered by auto-increment, and the key is returned", func(t *testing.T) {
		s := newSDK(t, start(t, keys), func(r *tablestore.CreateTableRequest) {
			option := tablestore.AUTO_INCREMENT
			r.TableMeta.SchemaEntry[1].Option = &option
		})
		last := int64(0)
		for range 3 {
			c := putChange("a", "auto", "v", "1")
			c.SetReturnPk()
			r, err := s.PutRow(&tablestore.PutRowRequest{PutRowChange: c})
			if err != nil {
				t.Fatal(err)
			}
			id := r.PrimaryKey.PrimaryKeys[1].Value.(int64)
			if id <= last {
				t.Errorf("%d after %d", id, last)
			}
			last = id
			expect(t, "row", s.get("a", id), "v=1")
		}
	})
	t.Run("are refused with the wrong key", func(t *testing.T) {
		s := newSDK(t, start(t, keys))
		short := putChange("a", int64(1))
		short.PrimaryKey.PrimaryKeys = short.PrimaryKey.PrimaryKeys[:1]
		_, err := s.PutRow(&tablestore.PutRowRequest{PutRowChange: short})
		expect(t, "too short", sdkCode(err), "OTSInvalidPK")
		_, err = s.PutRow(&tablestore.PutRowRequest{PutRowChange: putChange("a", "text")})
		expect(t, "of another type", sdkCode(err), "OTSInvalidPK")
		_, err = s.PutRow(&tablestore.PutRowRequest{PutRowChange: putChange("a", "auto")})
		expect(t, "auto-increment of a plain column", sdkCode(err), "OTSInvalidPK")
		_, err = s.PutRow(&tablestore.PutRowRequest{PutRowChange: putChange(strings.Repeat("x", 1025), int64(1))})
		expect(t, "too long", sdkCode(err), "OTSParameterInvalid")
		_, err = s.PutRow(&tablestore.PutRowRequest{PutRowChange: putChange("a", int64(1), "v", strings.Repeat("x", 2<<20+1))})
		expect(t, "too big a column", sdkCode(err), "OTSParameterInvalid")
		many := putChange("a", int64(1))
		for i := range 1025 {
			many.AddColumn(fmt.Sprint("c", i), "x")
		}
		_, err = s.PutRow(&tablestore.PutRowRequest{PutRowChange: many})
		expect(t, "too many columns", sdkCode(err), "OTSParameterInvalid")
	})
}

func TestSDKConditions(t *testing.T) {
	s := newSDK(t, start(t, keys))
	s.put("a", 1, "n", int64(5), "s", "x")
	single := func(column string, op tablestore.ComparatorType, value any, change ...func(*tablestore.SingleColumnCondition)) tablestore.ColumnFilter {
		f := tablestore.NewSingleColumnCondition(column, op, value)
		for _, c := range change {
			c(f)
		}
		return f
	}
	combine := func(op tablestore.LogicalOperator, fs ...tablestore.ColumnFilter) tablestore.ColumnFilter {
		f := tablestore.NewCompositeColumnCondition(op)
		for _, sub := range fs {
			f.AddFilter(sub)
		}
		return f
	}
	dropMissing := func(f *tablestore.SingleColumnCondition) { f.FilterIfMissing = true }
	keepMissing := func(f *tablestore.SingleColumnCondition) { f.FilterIfMissing = false }
	for _, v := range []struct {
		name   string
		filter tablestore.ColumnFilter
		match  bool
	}{
		{"equal", single("n", tablestore.CT_EQUAL, int64(5)), true},
		{"equal of another type", single("n", tablestore.CT_EQUAL, "5"), false},
		{"not equal", single("n", tablestore.CT_NOT_EQUAL, int64(5)), false},
		{"greater", single("n", tablestore.CT_GREATER_THAN, int64(4)), true},
		{"greater or equal", single("n", tablestore.CT_GREATER_EQUAL, int64(6)), false},
		{"less", single("n", tablestore.CT_LESS_THAN, int64(5)), false},
		{"less or equal", single("n", tablestore.CT_LESS_EQUAL, int64(5)), true},
		{"a missing column that fails", single("m", tablestore.CT_EQUAL, int64(5), dropMissing), false},
		{"a missing column that passes", single("m", tablestore.CT_EQUAL, int64(5), keepMissing), true},
		{"a primary key column", single("pk", tablestore.CT_EQUAL, "a"), true},
		{"and", combine(tablestore.LO_AND, single("n", tablestore.CT_EQUAL, int64(5)), single("s", tablestore.CT_EQUAL, "y")), false},
		{"or", combine(tablestore.LO_OR, single("n", tablestore.CT_EQUAL, int64(5)), single("s", tablestore.CT_EQUAL, "y")), true},
		{"not", combine(tablestore.LO_NOT, single("s", tablestore.CT_EQUAL, "y")), true},
	} {
		t.Run("a condition and a filter agree on: "+v.name, func(t *testing.T) {
			u := &tablestore.UpdateRowChange{PrimaryKey: key("a", int64(1))}
			u.PutColumn("touched", true)
			u.Condition = &tablestore.RowCondition{RowExistenceExpectation: tablestore.RowExistenceExpectation_IGNORE, ColumnCondition: v.filter}
			_, err := s.update(u)
			if v.match && err != nil || !v.match && sdkCode(err) != "OTSConditionCheckFail" {
				t.Errorf("the condition gave %v", err)
			}
			found := s.get("a", 1, func(q *tablestore.SingleRowQueryCriteria) { q.Filter = v.filter }) != "-"
			expect(t, "the filter matches", found, v.match)
		})
	}
	t.Run("pagination returns a window of columns", func(t *testing.T) {
		got := s.get("a", 1, func(q *tablestore.SingleRowQueryCriteria) {
			q.Filter = &tablestore.PaginationFilter{Offset: 1, Limit: 1}
		})
		expect(t, "columns", got, "s=x")
	})
	t.Run("columns to get come before the filter", func(t *testing.T) {
		got := s.get("a", 1, func(q *tablestore.SingleRowQueryCriteria) {
			q.ColumnsToGet = []string{"s"}
			q.Filter = single("n", tablestore.CT_EQUAL, int64(5), dropMissing)
		})
		expect(t, "row", got, "-")
	})
	t.Run("a row with none of the columns to get is not returned", func(t *testing.T) {
		got := s.get("a", 1, func(q *tablestore.SingleRowQueryCriteria) { q.ColumnsToGet = []string{"missing"} })
		expect(t, "row", got, "-")
		got = s.get("a", 1, func(q *tablestore.SingleRowQueryCriteria) { q.ColumnsToGet = []string{"missing", "pk"} })
		expect(t, "row with a key column", got, "")
	})
	t.Run("columns are chosen by range", func(t *testing.T) {
		start, end := "n", "t"
		got := s.get("a", 1, func(q *tablestore.SingleRowQueryCriteria) { q.StartColumn, q.EndColumn = &start, &end })
		expect(t, "columns", got, "n=5 s=x")
	})
}

func TestSDKBatches(t *testing.T) {
	t.Run("answer each row by itself and in order", func(t *testing.T) {
		s := newSDK(t, start(t, keys))
		s.put("a", 1, "v", "old")
		batch := &tablestore.BatchWriteRowRequest{}
		batch.AddRowChange(putChange("a", int64(1), "v", "new"))
		exists := putChange("a", int64(2), "v", "x")
		exists.SetCondition(tablestore.RowExistenceExpectation_EXPECT_EXIST)
		batch.AddRowChange(exists)
		gone := &tablestore.DeleteRowChange{TableName: "orders", PrimaryKey: key("a", int64(3)), Condition: ignore()}
		batch.AddRowChange(gone)
		r, err := s.BatchWriteRow(batch)
		if err != nil {
			t.Fatal(err)
		}
		rows := r.TableToRowsResult["orders"]
		expect(t, "first", rows[0].IsSucceed, true)
		expect(t, "second", rows[1].Error.Code, "OTSConditionCheckFail")
		expect(t, "third", rows[2].IsSucceed, true)
		expect(t, "row", s.get("a", 1), "v=new")
	})
	t.Run("of one partition key can be atomic", func(t *testing.T) {
		s := newSDK(t, start(t, keys))
		batch := &tablestore.BatchWriteRowRequest{IsAtomic: true}
		batch.AddRowChange(putChange("a", int64(1), "v", "x"))
		batch.AddRowChange(putChange("b", int64(1), "v", "x"))
		_, err := s.BatchWriteRow(batch)
		if err == nil {
			r, _ := s.BatchWriteRow(batch)
			for _, row := range r.TableToRowsResult["orders"] {
				if row.IsSucceed {
					t.Error("a row of an impossible batch was written")
				}
			}
		}
		expect(t, "row", s.get("a", 1), "-")
	})
	t.Run("are limited to 200 rows", func(t *testing.T) {
		s := newSDK(t, start(t, keys))
		batch := &tablestore.BatchWriteRowRequest{}
		for i := range int64(201) {
			batch.AddRowChange(putChange("a", i))
		}
		_, err := s.BatchWriteRow(batch)
		expect(t, "201 rows", sdkCode(err), "OTSParameterInvalid")
	})
	t.Run("read rows in order", func(t *testing.T) {
		s := newSDK(t, start(t, keys))
		s.put("a", 1, "v", "1")
		s.put("a", 3, "v", "3")
		q := &tablestore.MultiRowQueryCriteria{TableName: "orders", MaxVersion: 1}
		for id := range int64(5) {
			q.AddRow(key("a", id))
		}
		r, err := s.BatchGetRow(&tablestore.BatchGetRowRequest{MultiRowQueryCriteria: []*tablestore.MultiRowQueryCriteria{q}})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, row := range r.TableToRowsResult["orders"] {
			got += "[" + columnsText(row.Columns) + "]"
		}
		expect(t, "rows", got, "[][v=1][][v=3][]")
	})
}

func TestSDKRanges(t *testing.T) {
	e := start(t, keys)
	s := newSDK(t, e)
	const rows = 600
	for first := int64(0); first < rows; first += 200 {
		batch := &tablestore.BatchWriteRowRequest{}
		for id := first; id < first+200; id++ {
			batch.AddRowChange(putChange(fmt.Sprintf("p%d", id%3), id, "n", id))
		}
		if _, err := s.BatchWriteRow(batch); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if err := e.Split("orders"); err != nil {
			break // three partition keys allow two splits
		}
	}
	scan := func(q tablestore.RangeRowQueryCriteria) (ids []int64, pages int) {
		q.TableName, q.MaxVersion = "orders", 1
		for {
			r, err := s.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &q})
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, row := range r.Rows {
				ids = append(ids, row.PrimaryKey.PrimaryKeys[1].Value.(int64))
			}
			if r.NextStartPrimaryKey == nil {
				return ids, pages
			}
			q.StartPrimaryKey = r.NextStartPrimaryKey
		}
	}
	t.Run("go up and down, page by page", func(t *testing.T) {
		up, pages := scan(tablestore.RangeRowQueryCriteria{StartPrimaryKey: key("p0", "min"), EndPrimaryKey: key("p2", "max"), Direction: tablestore.FORWARD, Limit: 50})
		expect(t, "rows up", len(up), rows)
		expect(t, "pages up", pages, 12)
		down, _ := scan(tablestore.RangeRowQueryCriteria{StartPrimaryKey: key("p2", "max"), EndPrimaryKey: key("p0", "min"), Direction: tablestore.BACKWARD, Limit: 7})
		slices.Reverse(down)
		if !slices.Equal(up, down) {
			t.Error("the two directions differ")
		}
	})
	t.Run("include their start and exclude their end", func(t *testing.T) {
		ids, _ := scan(tablestore.RangeRowQueryCriteria{StartPrimaryKey: key("p0", int64(3)), EndPrimaryKey: key("p0", int64(12)), Direction: tablestore.FORWARD})
		expect(t, "up", fmt.Sprint(ids), "[3 6 9]")
		ids, _ = scan(tablestore.RangeRowQueryCriteria{StartPrimaryKey: key("p0", int64(12)), EndPrimaryKey: key("p0", int64(3)), Direction: tablestore.BACKWARD})
		expect(t, "down", fmt.Sprint(ids), "[12 9 6]")
	})
	t.Run("return filtered rows only", func(t *testing.T) {
		ids, _ := scan(tablestore.RangeRowQueryCriteria{
			StartPrimaryKey: key("p0", "min"), EndPrimaryKey: key("p2", "max"), Direction: tablestore.FORWARD,
			Filter: tablestore.NewSingleColumnCondition("n", tablestore.CT_LESS_THAN, int64(4)),
		})
		expect(t, "rows", fmt.Sprint(ids), "[0 3 1 2]")
	})
	t.Run("stop at 4 MB with a key for continuing", func(t *testing.T) {
		big := strings.Repeat("x", 1<<20)
		for id := range int64(6) {
			s.put("q", id, "big", big)
		}
		ids, pages := scan(tablestore.RangeRowQueryCriteria{StartPrimaryKey: key("q", "min"), EndPrimaryKey: key("q", "max"), Direction: tablestore.FORWARD})
		expect(t, "rows", len(ids), 6)
		expect(t, "pages", pages, 2)
	})
	t.Run("against their direction are refused", func(t *testing.T) {
		_, err := s.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
			TableName: "orders", MaxVersion: 1, StartPrimaryKey: key("p2", "max"), EndPrimaryKey: key("p0", "min"), Direction: tablestore.FORWARD,
		}})
		expect(t, "error", sdkCode(err), "OTSParameterInvalid")
	})
	t.Run("are divided by size", func(t *testing.T) {
		unit := int64(1 << 20)
		r, err := s.ComputeSplitPointsBySize(&tablestore.ComputeSplitPointsBySizeRequest{TableName: "orders", SplitSize: 2, SplitSizeUnitInByte: &unit})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(r.Splits); n < 3 || n > 5 {
			t.Errorf("6 MB are divided into %d parts of 2 MB", n)
		}
	})
}
