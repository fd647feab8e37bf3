package emulator_test

import (
	"errors"
	"fmt"
	"log"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// newOrders creates a table of orders with the official SDK.
func newOrders(client *tablestore.TableStoreClient) error {
	meta := &tablestore.TableMeta{TableName: "orders"}
	meta.AddPrimaryKeyColumn("id", tablestore.PrimaryKeyType_INTEGER)
	_, err := client.CreateTable(&tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
	})
	return err
}

func putOrder(client *tablestore.TableStoreClient, id int64) error {
	row := &tablestore.PutRowChange{TableName: "orders", PrimaryKey: &tablestore.PrimaryKey{}}
	row.PrimaryKey.AddPrimaryKeyColumn("id", id)
	row.AddColumn("total", 9.5)
	row.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	_, err := client.PutRow(&tablestore.PutRowRequest{PutRowChange: row})
	return err
}

func Example() {
	e, err := emulator.Start(emulator.Options{Instance: "test"})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()

	client := tablestore.NewClient(e.Endpoint(), "test", "any id", "any secret")
	if err := newOrders(client); err != nil {
		log.Fatal(err)
	}
	if err := putOrder(client, 1); err != nil {
		log.Fatal(err)
	}
	fmt.Println("requests to PutRow:", e.Stats().Operations["PutRow"].Requests)
	// Output:
	// requests to PutRow: 1
}

func ExampleEmulator_Inject() {
	e, err := emulator.Start(emulator.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	client := tablestore.NewClient(e.Endpoint(), "test", "id", "secret")
	if err := newOrders(client); err != nil {
		log.Fatal(err)
	}

	// The SDK does not retry this error, and the row is not written.
	e.Inject(emulator.Fault{Operation: "PutRow", Code: "OTSNoPermissionAccess", Message: "not you"})
	var refused *tablestore.OtsError
	if err := putOrder(client, 1); errors.As(err, &refused) {
		fmt.Println(refused.Code, "-", refused.Message)
	}
	fmt.Println(putOrder(client, 1))
	// Output:
	// OTSNoPermissionAccess - not you
	// <nil>
}

// A table and its rows, without an SDK.
func ExampleEmulator_CreateTable() {
	e, err := emulator.Start(emulator.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	if err := e.CreateTable("orders", emulator.Key("id", emulator.Integer)); err != nil {
		log.Fatal(err)
	}
	if err := e.Put("orders", emulator.Row{"id": 1, "amount": 250}, emulator.Row{"id": 2, "amount": 90}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(e.Put("orders", emulator.Row{"amount": 17}))
	// Output:
	// putting a row into table orders: row {}: there is no value for the key column "id"
}
