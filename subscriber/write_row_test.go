package subscriber_test

import (
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestWriteRow_a_struct_comes_back_through_the_tunnel(t *testing.T) {
	t.Parallel()
	type order struct {
		Key     string    `ots:"k,key"`
		Amount  float64   `ots:"amount"`
		Paid    bool      `ots:"paid"`
		Raw     []byte    `ots:"raw"`
		Note    *string   `ots:"note"`
		Created time.Time `ots:"created,unixmilli"`
	}
	b := testbed.New(t, emulator.Options{})
	b.CreateTunnel(tunnel.TunnelTypeStream)
	want := order{Key: "größer", Amount: 12.5, Paid: true, Raw: []byte{0, 255}, Created: time.UnixMilli(1700000000123).UTC()}
	change := &tablestore.PutRowChange{TableName: testbed.Table, PrimaryKey: new(tablestore.PrimaryKey)}
	if err := ots.WriteRow(want, change.PrimaryKey.AddPrimaryKeyColumn, change.AddColumn); err != nil {
		t.Fatal(err)
	}
	change.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	if _, err := b.Client.PutRow(&tablestore.PutRowRequest{PutRowChange: change}); err != nil {
		t.Fatal(err)
	}
	s, err := subscriber.New(testbed.Config(b.Emulator.Endpoint()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	messages, err := s.Subscribe(t.Context(), testbed.Topic)
	if err != nil {
		t.Fatal(err)
	}
	msg := <-messages
	got, err := ots.Bind[order](msg)
	msg.Ack()
	if err != nil || got.Key != want.Key || got.Amount != want.Amount || !got.Paid || string(got.Raw) != string(want.Raw) || got.Note != nil || !got.Created.Equal(want.Created) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}
