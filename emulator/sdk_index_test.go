package emulator_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// Rules and texts of secondary indexes are those of
//
//	[limits] https://www.alibabacloud.com/help/en/tablestore/secondary-index-limits
//	[errors] https://www.alibabacloud.com/help/en/tablestore/developer-reference/error-codes
//	[ttl]    https://www.alibabacloud.com/help/en/tablestore/what-do-i-do-if-the-don-t-support-allow-update-operation-on-table-with-index-and-ttl-error-message-appears-when-i-create-a-secondary-index
//	[drop]   https://www.alibabacloud.com/help/en/tablestore/developer-reference/deletedefinedcolumn
//	[java]   aliyun-tablestore-java-sdk, functiontest/SecondaryIndexTest.java: limits and texts; it lists tables and
//	         deletes those with indexes
//	[python] aliyun-tablestore-python-sdk, tests/table_operation_test.py: descriptions; it deletes tables with indexes

// withDefined creates a table with one version and predefined columns.
func withDefined(r *tablestore.CreateTableRequest) {
	r.TableOption.MaxVersion = 1
	r.TableMeta.AddDefinedColumn("customer", tablestore.DefinedColumn_STRING)
	r.TableMeta.AddDefinedColumn("total", tablestore.DefinedColumn_INTEGER)
	r.TableMeta.AddDefinedColumn("rate", tablestore.DefinedColumn_DOUBLE)
}

func globalIndex(name string, columns ...string) *tablestore.IndexMeta {
	m := &tablestore.IndexMeta{IndexName: name}
	m.SetAsGlobalIndex()
	for _, c := range columns {
		m.AddPrimaryKeyColumn(c)
	}
	return m
}

func localIndex(name string, columns ...string) *tablestore.IndexMeta {
	m := globalIndex(name, columns...)
	m.SetAsLocalIndex()
	return m
}

func (s *sdk) createIndex(meta *tablestore.IndexMeta, baseData bool) error {
	_, err := s.CreateIndex(&tablestore.CreateIndexRequest{MainTableName: "orders", IndexMeta: meta, IncludeBaseData: baseData})
	return err
}

func (s *sdk) dropIndex(name string) error {
	_, err := s.DeleteIndex(&tablestore.DeleteIndexRequest{MainTableName: "orders", IndexName: name})
	return err
}

// index reads a whole index with the given key columns as text.
func (s *sdk) index(name string, columns ...string) string {
	s.t.Helper()
	q := &tablestore.RangeRowQueryCriteria{TableName: name, Direction: tablestore.FORWARD, MaxVersion: 1, StartPrimaryKey: &tablestore.PrimaryKey{}, EndPrimaryKey: &tablestore.PrimaryKey{}}
	for _, c := range columns {
		q.StartPrimaryKey.AddPrimaryKeyColumnWithMinValue(c)
		q.EndPrimaryKey.AddPrimaryKeyColumnWithMaxValue(c)
	}
	r, err := s.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: q})
	if err != nil {
		s.t.Fatalf("reading %s: %v", name, err)
	}
	var rows []string
	for _, row := range r.Rows {
		var key []string
		for _, k := range row.PrimaryKey.PrimaryKeys {
			key = append(key, fmt.Sprint(k.Value))
		}
		rows = append(rows, fmt.Sprintf("%s[%s]", strings.Join(key, ","), columnsText(row.Columns)))
	}
	return strings.Join(rows, " ")
}

func TestSDKIndexes(t *testing.T) {
	t.Run("are created with the table and after it, and follow its changes", func(t *testing.T) {
		opts := keys
		opts.DataDir = t.TempDir()
		e, err := emulator.Start(opts)
		if err != nil {
			t.Fatal(err)
		}
		s := newSDK(t, e, withDefined, func(r *tablestore.CreateTableRequest) {
			byTotal := localIndex("by_total", "pk", "total")
			byTotal.AddDefinedColumn("customer")
			r.AddIndexMeta(byTotal)
		})
		s.put("a", 1, "customer", "ann", "total", int64(30), "note", "x")
		s.put("a", 2, "customer", "bob", "total", int64(20))
		s.put("a", 3, "customer", "ann")
		s.put("b", 1, "customer", "ann", "total", int64(10), "rate", 0.5)
		byCustomer := globalIndex("by_customer", "customer")
		byCustomer.AddDefinedColumn("total")
		byCustomer.AddDefinedColumn("rate")
		if err := s.createIndex(byCustomer, true); err != nil {
			t.Fatal(err)
		}
		if err := s.createIndex(globalIndex("later", "total", "customer"), false); err != nil {
			t.Fatal(err)
		}
		const total, customer = "a,20,2[customer=bob] a,30,1[customer=ann] b,10,1[customer=ann]", "ann,a,1[total=30] ann,a,3[] ann,b,1[rate=0.5 total=10] bob,a,2[total=20]"
		expect(t, "local", s.index("by_total", "pk", "total", "id"), total)
		expect(t, "global", s.index("by_customer", "customer", "pk", "id"), customer)
		expect(t, "without base data", s.index("later", "total", "customer", "pk", "id"), "")
		d, err := s.DescribeTable(&tablestore.DescribeTableRequest{TableName: "orders"})
		if err != nil || len(d.IndexMetas) != 3 {
			t.Fatalf("%+v, %v", d, err)
		}
		expect(t, "the first", fmt.Sprint(d.IndexMetas[0].IndexName, d.IndexMetas[0].IndexType, d.IndexMetas[0].Primarykey, d.IndexMetas[0].DefinedColumns), "by_total1 [pk total] [customer]")
		expect(t, "the second", fmt.Sprint(d.IndexMetas[1].IndexName, d.IndexMetas[1].IndexType, d.IndexMetas[1].Primarykey, d.IndexMetas[1].DefinedColumns), "by_customer0 [customer] [total rate]")
		d, err = s.DescribeTable(&tablestore.DescribeTableRequest{TableName: "by_customer"})
		if err != nil || len(d.TableMeta.SchemaEntry) != 3 || *d.TableMeta.SchemaEntry[0].Name != "customer" || len(d.TableMeta.DefinedColumns) != 2 || d.StreamDetails.EnableStream {
			t.Errorf("the index as a table: %+v, %v", d, err)
		}
		k := &tablestore.PrimaryKey{}
		k.AddPrimaryKeyColumn("customer", "bob")
		k.AddPrimaryKeyColumn("pk", "a")
		k.AddPrimaryKeyColumn("id", int64(2))
		row, err := s.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "by_customer", PrimaryKey: k, MaxVersion: 1}})
		if err != nil || columnsText(row.Columns) != "total=20" {
			t.Errorf("one row: %+v, %v", row, err)
		}

		u := &tablestore.UpdateRowChange{PrimaryKey: key("a", int64(1))}
		u.PutColumn("customer", "cid")
		u.PutColumn("total", int64(5))
		if _, err := s.update(u); err != nil {
			t.Fatal(err)
		}
		u = &tablestore.UpdateRowChange{PrimaryKey: key("a", int64(2))}
		u.DeleteColumn("customer")
		if _, err := s.update(u); err != nil {
			t.Fatal(err)
		}
		if _, err := s.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: &tablestore.DeleteRowChange{TableName: "orders", PrimaryKey: key("b", int64(1)), Condition: ignore()}}); err != nil {
			t.Fatal(err)
		}
		refused := putChange("a", int64(3), "customer", "dan")
		refused.SetCondition(tablestore.RowExistenceExpectation_EXPECT_NOT_EXIST)
		_, err = s.PutRow(&tablestore.PutRowRequest{PutRowChange: refused})
		expect(t, "a refused put", sdkCode(err), "OTSConditionCheckFail")
		s.put("c", 1, "customer", int64(7), "total", "not an integer")
		look := func(s *sdk, when string) {
			t.Helper()
			expect(t, "local "+when, s.index("by_total", "pk", "total", "id"), "a,5,1[customer=cid] a,20,2[]")
			expect(t, "global "+when, s.index("by_customer", "customer", "pk", "id"), "ann,a,3[] cid,a,1[total=5]")
			expect(t, "without base data "+when, s.index("later", "total", "customer", "pk", "id"), "5,cid,a,1[]")
		}
		look(s, "afterwards")
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		e = start(t, opts)
		s = &sdk{tablestore.NewClient(e.Endpoint(), "inst", "ak", "sk"), t}
		look(s, "after a restart")
		if err := s.dropIndex("later"); err != nil {
			t.Fatal(err)
		}
		_, err = s.DescribeTable(&tablestore.DescribeTableRequest{TableName: "later"})
		expect(t, "a dropped index", sdkCode(err), "OTSObjectNotExist")
		expect(t, "dropping it again", sdkCode(s.dropIndex("later")), "OTSObjectNotExist")
		list, err := s.ListTable()
		expect(t, "tables", fmt.Sprint(list.TableNames, err), "[orders] <nil>")
	})
	t.Run("are read-only, and belong to their table", func(t *testing.T) {
		e := start(t, keys)
		s := newSDK(t, e, withDefined, withTransactions, func(r *tablestore.CreateTableRequest) { r.AddIndexMeta(globalIndex("by_total", "total")) })
		const readOnly = "OTSParameterInvalid Can't write index table directly."
		said := func(err error) string { return strings.Join(strings.Fields(fmt.Sprint(err))[:6], " ") }
		k := &tablestore.PrimaryKey{}
		k.AddPrimaryKeyColumn("total", int64(1))
		k.AddPrimaryKeyColumn("pk", "a")
		k.AddPrimaryKeyColumn("id", int64(1))
		put := &tablestore.PutRowChange{TableName: "by_total", PrimaryKey: k, Condition: ignore()}
		put.AddColumn("v", "x")
		_, err := s.PutRow(&tablestore.PutRowRequest{PutRowChange: put})
		expect(t, "a put", said(err), readOnly)
		_, err = s.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: &tablestore.DeleteRowChange{TableName: "by_total", PrimaryKey: k, Condition: ignore()}})
		expect(t, "a deletion", said(err), readOnly)
		batch := &tablestore.BatchWriteRowRequest{}
		batch.AddRowChange(put)
		resp, err := s.BatchWriteRow(batch)
		if err != nil || resp.TableToRowsResult["by_total"][0].Error.Message != "Can't write index table directly." {
			t.Errorf("a batch: %+v, %v", resp, err)
		}
		for what, err := range map[string]error{
			"UpdateTable": func() error {
				_, err := s.UpdateTable(&tablestore.UpdateTableRequest{TableName: "by_total", StreamSpec: &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24}})
				return err
			}(),
			"AddDefinedColumn": func() error {
				req := &tablestore.AddDefinedColumnRequest{TableName: "by_total"}
				req.AddDefinedColumn("x", tablestore.DefinedColumn_STRING)
				_, err := s.AddDefinedColumn(req)
				return err
			}(),
			"DeleteTable": func() error {
				_, err := s.DeleteTable(&tablestore.DeleteTableRequest{TableName: "by_total"})
				return err
			}(),
			"CreateIndex": func() error {
				_, err := s.CreateIndex(&tablestore.CreateIndexRequest{MainTableName: "by_total", IndexMeta: globalIndex("x", "total")})
				return err
			}(),
			"StartLocalTransaction": func() error {
				part := &tablestore.PrimaryKey{}
				part.AddPrimaryKeyColumn("total", int64(1))
				_, err := s.StartLocalTransaction(&tablestore.StartLocalTransactionRequest{TableName: "by_total", PrimaryKey: part})
				return err
			}(),
			"DeleteDefinedColumn of the column": s.dropDefined("rate", "total"),
		} {
			expect(t, what, sdkCode(err), "OTSParameterInvalid")
		}
		if err := e.Split("by_total"); err == nil {
			t.Error("an index was split")
		}
		tunnels := tunnel.NewTunnelClient(e.Endpoint(), "inst", "ak", "sk")
		if _, err := tunnels.CreateTunnel(&tunnel.CreateTunnelRequest{TableName: "by_total", TunnelName: "t", Type: tunnel.TunnelTypeStream}); err == nil || !strings.Contains(err.Error(), "has no tunnels") {
			t.Errorf("a tunnel of an index: %v", err)
		}
		expect(t, "predefined columns", s.defined(), "customer:4 total:1 rate:2")
		if err := s.dropIndex("by_total"); err != nil {
			t.Fatal(err)
		}
		if err := s.dropDefined("total"); err != nil {
			t.Errorf("after the index: %v", err)
		}
	})
	t.Run("are deleted with their table", func(t *testing.T) {
		opts := keys
		opts.DataDir = t.TempDir()
		e, err := emulator.Start(opts)
		if err != nil {
			t.Fatal(err)
		}
		withIndex := func(r *tablestore.CreateTableRequest) { r.AddIndexMeta(globalIndex("by_total", "total")) }
		s := newSDK(t, e, withDefined, withIndex)
		s.put("a", 1, "total", int64(1))
		if _, err := s.DeleteTable(&tablestore.DeleteTableRequest{TableName: "orders"}); err != nil {
			t.Fatal(err)
		}
		_, err = s.DescribeTable(&tablestore.DescribeTableRequest{TableName: "by_total"})
		expect(t, "the index", sdkCode(err), "OTSObjectNotExist")
		s = newSDK(t, e, withDefined, withIndex)
		expect(t, "the index of the next table", s.index("by_total", "total", "pk", "id"), "")
		s.put("b", 2, "total", int64(2))
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		e = start(t, opts)
		s = &sdk{tablestore.NewClient(e.Endpoint(), "inst", "ak", "sk"), t}
		expect(t, "the same after a restart", s.index("by_total", "total", "pk", "id"), "2,b,2[]")
	})
	t.Run("that are not allowed are refused", func(t *testing.T) {
		s := newSDK(t, start(t, keys), withDefined)
		tooMany := globalIndex("x", "total")
		for i := range 33 {
			tooMany.AddDefinedColumn(fmt.Sprint("d", i))
		}
		for want, meta := range map[string]*tablestore.IndexMeta{
			"The number of primary key columns must be in range: [1, 4] in index.": globalIndex("x", "a", "b", "c", "d", "e"),
			"The number of attribute columns must be in range: [0, 32] in index.":  tooMany,
		} {
			_, err := s.CreateIndex(&tablestore.CreateIndexRequest{MainTableName: "missing", IndexMeta: meta})
			expect(t, want, strings.Contains(fmt.Sprint(err), "OTSParameterInvalid "+want), true)
		}
		for what, err := range map[string]error{
			"a column that is not predefined":     s.createIndex(globalIndex("x", "other"), true),
			"a column of a type that keys lack":   s.createIndex(globalIndex("x", "rate"), true),
			"a column twice":                      s.createIndex(globalIndex("x", "total", "total"), true),
			"five columns":                        s.createIndex(globalIndex("x", "total", "customer", "pk", "id", "rate"), true),
			"no column":                           s.createIndex(globalIndex("x"), true),
			"a bad name":                          s.createIndex(globalIndex("1x", "total"), true),
			"a local one that begins elsewhere":   s.createIndex(localIndex("x", "total"), true),
			"an attribute that is not predefined": func() error { m := globalIndex("x", "total"); m.AddDefinedColumn("pk"); return s.createIndex(m, true) }(),
			"an attribute that is indexed": func() error {
				m := globalIndex("x", "total")
				m.AddDefinedColumn("total")
				return s.createIndex(m, true)
			}(),
		} {
			expect(t, what, sdkCode(err), "OTSParameterInvalid")
		}
		expect(t, "a name that is taken", sdkCode(s.createIndex(globalIndex("orders", "total"), true)), "OTSObjectAlreadyExist")
		_, err := s.CreateIndex(&tablestore.CreateIndexRequest{MainTableName: "missing", IndexMeta: globalIndex("x", "total")})
		expect(t, "a missing table", sdkCode(err), "OTSObjectNotExist")
		for i := range 5 {
			if err := s.createIndex(globalIndex(fmt.Sprint("x", i), "total"), true); err != nil {
				t.Fatal(err)
			}
		}
		err = s.createIndex(globalIndex("x6", "total"), true)
		expect(t, "a sixth", strings.Contains(fmt.Sprint(err), "OTSParameterInvalid Number of index per table exceeds the quota:5."), true)
		update := func(ttl, versions int, allow bool) error {
			_, err := s.UpdateTable(&tablestore.UpdateTableRequest{TableName: "orders", TableOption: &tablestore.TableOption{TimeToAlive: ttl, MaxVersion: versions, AllowUpdate: &allow}})
			return err
		}
		expect(t, "two versions", sdkCode(update(-1, 2, true)), "OTSParameterInvalid")
		err = update(86400, 1, true)
		expect(t, "time to live with updates", strings.Contains(fmt.Sprint(err), "Don't support allow update operation on table with index and ttl"), true)
		if err := update(86400, 1, false); err != nil {
			t.Errorf("time to live without updates: %v", err)
		}
	})
	t.Run("that are not allowed are refused with their table", func(t *testing.T) {
		b := newStrictBed(t, emulator.Options{})
		withIndex := func(change ...func(*pb.CreateTableRequest)) string {
			req := newTable("new", change...)
			req.TableMeta.DefinedColumn = []*pb.DefinedColumnSchema{{Name: ptr("d"), Type: ptr(pb.DefinedColumnType_DCT_INTEGER)}}
			for _, name := range []string{"free", "t"} {
				req.IndexMetas = append(req.IndexMetas, &pb.IndexMeta{Name: &name, PrimaryKey: []string{"d"}, IndexUpdateMode: ptr(pb.IndexUpdateMode_IUM_ASYNC_INDEX), IndexType: ptr(pb.IndexType_IT_GLOBAL_INDEX)})
			}
			return b.outcome("/CreateTable", req)
		}
		expect(t, "a name that is taken", withIndex(), "OTSObjectAlreadyExist: Requested table already exists.")
		expect(t, "two versions", withIndex(func(r *pb.CreateTableRequest) { r.TableOptions.MaxVersions = ptr(int32(2)) }), "OTSParameterInvalid: A table with an index must have 1 as max versions, got 2.")
		var list pb.ListTableResponse
		b.must("/ListTable", &pb.ListTableRequest{}, &list)
		expect(t, "tables", fmt.Sprint(list.TableNames), "[t]")
	})
}
