package subscriber_test

import (
	"fmt"
	"log"

	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// change is an update as a subscriber delivers it.
func change() *ots.Record {
	return &ots.Record{
		Instance: "shop", Table: "orders", Tunnel: "audit", Channel: "c1", UUID: "ab602e8a-626b-85b4-91ed-8c52e818580e",
		Type: ots.Update, Sequence: ots.Sequence{Epoch: 1, Timestamp: 1700000002123456},
		PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(7)}},
		Columns: []ots.Cell{
			{Name: "amount", Value: ots.DoubleValue(12.5)},
			{Name: "paid_at", Value: ots.IntegerValue(1700000000000)},
		},
	}
}

func ExampleCloudEvents() {
	msg, err := subscriber.CloudEvents{}.Unmarshal(change()) // a subscriber does this: Config.Unmarshaler
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(msg.Payload))
	// Output:
	// {"specversion":"1.0","id":"ab602e8a-626b-85b4-91ed-8c52e818580e","source":"tablestore://shop/orders","type":"io.github.watermill-ots.tablestore.update","subject":"[7]","time":"2023-11-14T22:13:22.123456Z","partitionkey":"[7]","sequence":"00000001:00060a24183ea6c0:00000000","datacontenttype":"application/json","data":{"type":"update","key":{"id":7},"columns":{"amount":12.5,"paid_at":1700000000000},"timestamp":1700000002123456,"sequence":"00000001:00060a24183ea6c0:00000000"}}
}
