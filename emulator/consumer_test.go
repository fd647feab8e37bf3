package emulator_test

import (
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// The README's test of a consumer.
func TestConsumer_gets_an_order_although_the_service_is_busy(t *testing.T) {
	e, err := emulator.Start(emulator.Options{Instance: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	client := tablestore.NewClient(e.Endpoint(), "test", "id", "secret")
	if err := newOrders(client); err != nil { // with the SDK, as at the service
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
	e.Inject(emulator.Fault{Operation: "tunnel/readrecords", Code: "OTSServerBusy", Times: 3})
	if err := putOrder(client, 1); err != nil {
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
