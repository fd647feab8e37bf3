package emulator_test

import (
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
)

func start(t *testing.T, opts emulator.Options) *emulator.Emulator {
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

func tableClient(t *testing.T, e *emulator.Emulator) *tablestore.TableStoreClient {
	t.Helper()
	return tablestore.NewClient(e.Endpoint(), "inst", "ak", "sk")
}

func createTable(t *testing.T, c *tablestore.TableStoreClient, name string, change ...func(*tablestore.CreateTableRequest)) {
	t.Helper()
	meta := &tablestore.TableMeta{TableName: name}
	meta.AddPrimaryKeyColumn("pk", tablestore.PrimaryKeyType_STRING)
	meta.AddPrimaryKeyColumn("id", tablestore.PrimaryKeyType_INTEGER)
	req := &tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24},
	}
	for _, f := range change {
		f(req)
	}
	if _, err := c.CreateTable(req); err != nil {
		t.Fatalf("creating table %s: %v", name, err)
	}
}

func key(pk string, id int64) *tablestore.PrimaryKey {
	k := &tablestore.PrimaryKey{}
	k.AddPrimaryKeyColumn("pk", pk)
	k.AddPrimaryKeyColumn("id", id)
	return k
}

func put(t *testing.T, c *tablestore.TableStoreClient, table, pk string, id int64, name string, value any) {
	t.Helper()
	row := &tablestore.PutRowChange{TableName: table, PrimaryKey: key(pk, id)}
	row.AddColumn(name, value)
	row.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	if _, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: row}); err != nil {
		t.Fatalf("putting %s/%d: %v", pk, id, err)
	}
}

func TestGoSDK(t *testing.T) {
	t.Run("puts and gets a row", func(t *testing.T) {
		e := start(t, emulator.Options{Instance: "inst", AccessKeyID: "ak", AccessKeySecret: "sk"})
		c := tableClient(t, e)
		createTable(t, c, "orders")
		put(t, c, "orders", "a", 1, "name", "first")
		got, err := c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{
			TableName: "orders", PrimaryKey: key("a", 1), MaxVersion: 1,
		}})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Columns) != 1 || got.Columns[0].Value != "first" {
			t.Errorf("got %v", got.Columns)
		}
	})
}
