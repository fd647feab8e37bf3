// The test of a consumer that docs/testing.md shows.

package emulator_test

import (
	"testing"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestConsumer_gets_an_order_although_the_service_is_busy(t *testing.T) {
	e, err := emulator.Start(emulator.Options{Instance: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.CreateTable("orders", emulator.Key("id", emulator.Integer)); err != nil {
		t.Fatal(err)
	}
	sub, err := subscriber.New(subscriber.Config{
		Endpoint: e.Endpoint(), Instance: "test", AccessKeyID: "id", AccessKeySecret: "secret",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SubscribeInitialize("orders/to-warehouse"); err != nil {
		t.Fatal(err)
	}
	messages, err := sub.Subscribe(t.Context(), "orders/to-warehouse")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Inject(emulator.Fault{Operation: "tunnel/readrecords", Code: "OTSServerBusy", Times: 3}); err != nil {
		t.Fatal(err)
	}
	if err := e.Put("orders", emulator.Row{"id": 1, "amount": 250}); err != nil {
		t.Fatal(err)
	}
	msg := <-messages
	if got, want := msg.Metadata.Get(subscriber.MetadataKey), "[1]"; got != want {
		t.Errorf("the order is %s, not %s", got, want)
	}
	msg.Ack()
	if err := sub.Close(); err != nil { // drains and commits
		t.Error(err)
	}
}
