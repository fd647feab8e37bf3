package ots_test

import (
	"fmt"
	"log"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
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

// A handler fills its own struct from the record behind the message.
func ExampleBind() {
	type Order struct {
		ID     int64     `ots:"id,required"`
		Amount float64   `ots:"amount"`
		PaidAt time.Time `ots:"paid_at,unixmilli"`
		Note   *string   `ots:"note"` // nil: the change did not write it
	}
	handle := func(msg *message.Message) error {
		order, err := ots.Bind[Order](msg)
		if err != nil {
			return err
		}
		fmt.Println(order.ID, order.Amount, order.PaidAt.Format(time.DateTime), order.Note == nil)
		return nil
	}

	msg := message.NewMessage("1", nil) // a subscriber's messages have their records already
	ots.WithRecord(msg, change())
	if err := handle(msg); err != nil {
		log.Fatal(err)
	}
	// Output: 7 12.5 2023-11-14 22:13:20 true
}

// A lossy conversion is an error that names the column and does not show the value.
func ExampleBindRecord() {
	type Order struct {
		ID     int8 `ots:"id"`
		Amount int  `ots:"amount"`
		Paid   bool `ots:"paid,required"`
	}
	_, err := ots.BindRecord[Order](change())
	fmt.Println(err)
	// Output:
	// column "amount" of type double does not fit field Order.Amount of type int: not an integer
	// column "paid" is missing and field Order.Paid requires it: the record did not write it
}
