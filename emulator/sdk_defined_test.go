package emulator_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	pb "github.com/aliyun/aliyun-tablestore-go-sdk/tablestore/otsprotocol"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// defined returns the predefined columns of the table "orders" as text.
func (s *sdk) defined() string {
	s.t.Helper()
	d, err := s.DescribeTable(&tablestore.DescribeTableRequest{TableName: "orders"})
	if err != nil {
		s.t.Fatal(err)
	}
	var parts []string
	for _, c := range d.TableMeta.DefinedColumns {
		parts = append(parts, fmt.Sprintf("%s:%d", c.Name, c.ColumnType))
	}
	return strings.Join(parts, " ")
}

func (s *sdk) addDefined(columns ...tablestore.DefinedColumnSchema) error {
	req := &tablestore.AddDefinedColumnRequest{TableName: "orders"}
	for _, c := range columns {
		req.AddDefinedColumn(c.Name, c.ColumnType)
	}
	_, err := s.AddDefinedColumn(req)
	return err
}

func (s *sdk) dropDefined(names ...string) error {
	_, err := s.DeleteDefinedColumn(&tablestore.DeleteDefinedColumnRequest{TableName: "orders", DefinedColumns: names})
	return err
}

func TestSDKDefinedColumns(t *testing.T) {
	integer := func(name string) tablestore.DefinedColumnSchema {
		return tablestore.DefinedColumnSchema{Name: name, ColumnType: tablestore.DefinedColumn_INTEGER}
	}
	t.Run("can be set at the creation, added and deleted, and survive a restart", func(t *testing.T) {
		opts := keys
		opts.DataDir = t.TempDir()
		e, err := emulator.Start(opts)
		if err != nil {
			t.Fatal(err)
		}
		s := newSDK(t, e, func(r *tablestore.CreateTableRequest) {
			r.TableMeta.AddDefinedColumn("a", tablestore.DefinedColumn_STRING)
			r.TableMeta.AddDefinedColumn("b", tablestore.DefinedColumn_DOUBLE)
		})
		expect(t, "columns", s.defined(), "a:4 b:2")
		if err := s.addDefined(integer("c"), tablestore.DefinedColumnSchema{Name: "d", ColumnType: tablestore.DefinedColumn_BINARY}); err != nil {
			t.Fatal(err)
		}
		if err := s.dropDefined("a", "c"); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		e = start(t, opts)
		d, err := (&sdk{tablestore.NewClient(e.Endpoint(), "inst", "ak", "sk"), t}).DescribeTable(&tablestore.DescribeTableRequest{TableName: "orders"})
		if err != nil || len(d.TableMeta.DefinedColumns) != 2 {
			t.Fatalf("%+v, %v", d, err)
		}
		expect(t, "columns after a restart", d.TableMeta.DefinedColumns[0].Name+d.TableMeta.DefinedColumns[1].Name, "bd")
	})
	t.Run("that are not allowed are refused, and none of the request's is added or deleted", func(t *testing.T) {
		// At most 32, no names of key columns or of other columns:
		// developer-reference/predefined-columns.
		s := newSDK(t, start(t, keys), func(r *tablestore.CreateTableRequest) {
			r.TableMeta.AddDefinedColumn("a", tablestore.DefinedColumn_STRING)
		})
		many := make([]tablestore.DefinedColumnSchema, 32)
		for i := range many {
			many[i] = integer(fmt.Sprintf("c%d", i))
		}
		for what, err := range map[string]error{
			"33 columns":                        s.addDefined(many...),
			"one that exists":                   s.addDefined(integer("b"), integer("a")),
			"one twice":                         s.addDefined(integer("b"), integer("b")),
			"one with the name of a key column": s.addDefined(integer("b"), integer("pk")),
			"a bad name":                        s.addDefined(integer("b"), integer("1")),
			"none":                              s.addDefined(),
			"deleting a missing":                s.dropDefined("a", "b"),
			"deleting one twice":                s.dropDefined("a", "a"),
			"deleting none":                     s.dropDefined(),
		} {
			expect(t, what, sdkCode(err), "OTSParameterInvalid")
		}
		expect(t, "columns", s.defined(), "a:4")
		if err := s.addDefined(many[1:]...); err != nil {
			t.Errorf("32 columns: %v", err)
		}
		b := newStrictBed(t, emulator.Options{})
		unknown := &pb.AddDefinedColumnRequest{TableName: ptr("t"), Columns: []*pb.DefinedColumnSchema{{Name: ptr("d"), Type: ptr(pb.DefinedColumnType(5))}}}
		expect(t, "an unknown type", b.outcome("/AddDefinedColumn", unknown), "OTSParameterInvalid: Defined column 'd' has the unknown type 5.")
		unknown.TableName = ptr("missing")
		expect(t, "a missing table", b.outcome("/AddDefinedColumn", unknown), "OTSObjectNotExist: Requested table does not exist.")
	})
	t.Run("can be deleted without changing columns with their names in rows", func(t *testing.T) {
		s := newSDK(t, start(t, keys), func(r *tablestore.CreateTableRequest) {
			r.TableMeta.AddDefinedColumn("a", tablestore.DefinedColumn_STRING)
		})
		s.put("k", 1, "a", "x")
		if err := s.dropDefined("a"); err != nil {
			t.Fatal(err)
		}
		expect(t, "row", s.get("k", 1), "a=x")
	})
}

func TestSDKEmptyLists(t *testing.T) {
	t.Run("of search indexes and time series tables are returned, for clean-up code", func(t *testing.T) {
		e := start(t, keys)
		s := newSDK(t, e)
		indexes, err := s.ListSearchIndex(&tablestore.ListSearchIndexRequest{TableName: "orders"})
		if err != nil || len(indexes.IndexInfo) != 0 {
			t.Errorf("search indexes: %+v, %v", indexes, err)
		}
		series, err := tablestore.NewTimeseriesClient(e.Endpoint(), "inst", "ak", "sk").ListTimeseriesTable()
		if err != nil || len(series.GetTimeseriesTableMeta()) != 0 {
			t.Errorf("time series tables: %+v, %v", series, err)
		}
		_, err = s.ListSearchIndex(&tablestore.ListSearchIndexRequest{TableName: "missing"})
		expect(t, "search indexes of a missing table", sdkCode(err), "OTSObjectNotExist")
	})
}
