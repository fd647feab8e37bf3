package subscriber_test

import (
	"fmt"
	"log"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/subscriber"
)

// change is an update as a subscriber delivers it.
func change() *subscriber.Record {
	return &subscriber.Record{
		Instance: "shop", Table: "orders", Tunnel: "audit", Channel: "c1", UUID: "ab602e8a-626b-85b4-91ed-8c52e818580e",
		Type: subscriber.Update, Sequence: subscriber.Sequence{Epoch: 1, Timestamp: 1700000002123456},
		PrimaryKey: []subscriber.Column{{Name: "id", Value: subscriber.IntegerValue(7)}},
		Columns: []subscriber.Cell{
			{Name: "amount", Value: subscriber.DoubleValue(12.5)},
			{Name: "paid_at", Value: subscriber.IntegerValue(1700000000000)},
		},
	}
}

// A handler fills a struct of its own from the record behind the message.
func ExampleBind() {
	type Order struct {
		ID     int64     `ots:"id,required"`
		Amount float64   `ots:"amount"`
		PaidAt time.Time `ots:"paid_at,unixmilli"`
		Note   *string   `ots:"note"` // nil: the change did not write it
	}
	handle := func(msg *message.Message) error {
		order, err := subscriber.Bind[Order](msg)
		if err != nil {
			return err
		}
		fmt.Println(order.ID, order.Amount, order.PaidAt.Format(time.DateTime), order.Note == nil)
		return nil
	}

	msg := message.NewMessage("1", nil) // a subscriber's messages have their records already
	subscriber.WithRecord(msg, change())
	if err := handle(msg); err != nil {
		log.Fatal(err)
	}
	// Output: 7 12.5 2023-11-14 22:13:20 true
}

// What would lose something is an error that says what, and shows no value.
func ExampleBindRecord() {
	type Order struct {
		ID     int8 `ots:"id"`
		Amount int  `ots:"amount"`
		Paid   bool `ots:"paid,required"`
	}
	_, err := subscriber.BindRecord[Order](change())
	fmt.Println(err)
	// Output:
	// column "amount" of type double does not fit field Order.Amount of type int: it is no whole number
	// column "paid" is missing, which field Order.Paid requires: the record did not write it
}

func ExampleCloudEvents() {
	msg, err := subscriber.CloudEvents{}.Unmarshal(change()) // a subscriber does this: Config.Unmarshaler
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(msg.Payload))
	// Output:
	// {"specversion":"1.0","id":"ab602e8a-626b-85b4-91ed-8c52e818580e","source":"tablestore://shop/orders","type":"com.aliyun.tablestore.update","subject":"[7]","time":"2023-11-14T22:13:22.123456Z","datacontenttype":"application/json","data":{"type":"update","key":{"id":7},"columns":{"amount":12.5,"paid_at":1700000000000},"timestamp":1700000002123456,"sequence":"00000001:00060a24183ea6c0:00000000"}}
}
