package publisher_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/publisher"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

const (
	instance  = "test"
	keyID     = "publisher-id"
	keySecret = "publisher-secret"
)

// start starts an emulator that accepts only our credentials.
func start(t testing.TB) *emulator.Emulator {
	t.Helper()
	em, err := emulator.Start(emulator.Options{Instance: instance, AccessKeyID: keyID, AccessKeySecret: keySecret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := em.Close(); err != nil {
			t.Errorf("closing the emulator: %v", err)
		}
	})
	return em
}

// publish returns a Publisher that is closed at the end of the test.
func publish(t testing.TB, em *emulator.Emulator, change func(*publisher.Config)) *publisher.Publisher {
	t.Helper()
	cfg := publisher.Config{
		Endpoint: em.Endpoint() + "/", Instance: instance, AccessKeyID: keyID, AccessKeySecret: keySecret, CreateTables: true,
		RetryBackoff: func() backoff.BackOff {
			return backoff.WithMaxRetries(backoff.NewConstantBackOff(time.Millisecond), 20)
		},
	}
	if change != nil {
		change(&cfg)
	}
	p, err := publisher.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("closing the publisher: %v", err)
		}
	})
	return p
}

// subscribe creates a tunnel and subscribes to it until the end of the test.
func subscribe(t testing.TB, em *emulator.Emulator, topic string, u publisher.Unmarshaler) <-chan *message.Message {
	t.Helper()
	s, err := subscriber.New(subscriber.Config{
		Endpoint: em.Endpoint(), Instance: instance, AccessKeyID: keyID, AccessKeySecret: keySecret,
		Ordering: subscriber.OrderByChannel, Unmarshaler: u, MaxPollInterval: 20 * time.Millisecond,
		Tunnel: subscriber.TunnelSpec{Type: subscriber.Stream},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing the subscriber: %v", err)
		}
	})
	if err := s.SubscribeInitialize(topic); err != nil {
		t.Fatal(err)
	}
	messages, err := s.Subscribe(context.Background(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

// receive takes and acks a message, or fails the test.
func receive(t testing.TB, messages <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg := <-messages:
		msg.Ack()
		return msg
	case <-time.After(20 * time.Second):
		t.Fatal("no message within 20s")
	}
	return nil
}

func sdk(em *emulator.Emulator) *tablestore.TableStoreClient {
	return tablestore.NewClient(em.Endpoint(), instance, keyID, keySecret)
}

func TestMessages_come_back_as_they_were_published(t *testing.T) {
	em := start(t)
	for name, columns := range map[string]publisher.Columns{
		"default": {}, "renamed": {Key: "k", Sequence: "n", UUID: "id", Payload: "body", Metadata: "headers"},
	} {
		p := publish(t, em, func(c *publisher.Config) { c.Columns = columns })
		if err := p.CreateTable(context.Background(), name); err != nil {
			t.Fatal(err)
		}
		messages := subscribe(t, em, name+"/group", publisher.Unmarshaler{Columns: columns})
		for what, want := range map[string]*message.Message{
			"a usual one":      {UUID: "uuid 1", Payload: []byte(`{"a":1}`), Metadata: message.Metadata{"name": "value", "ä": "<&>\u2028"}},
			"an empty payload": {UUID: "uuid 2"},
			"any bytes":        {UUID: "uuid 3", Payload: []byte{0, 255, 128, 0}},
			"an ordering key":  {UUID: "uuid 4", Payload: []byte("x"), Metadata: message.Metadata{publisher.MetadataOrderingKey: "key"}},
			"without a UUID":   {Payload: []byte("x")},
		} {
			sent := message.NewMessage(want.UUID, want.Payload)
			maps.Copy(sent.Metadata, want.Metadata)
			if err := p.Publish(name, sent); err != nil {
				t.Fatal(err)
			}
			got := receive(t, messages)
			if got.UUID != want.UUID && want.UUID != "" || got.UUID == "" || string(got.Payload) != string(want.Payload) || !maps.Equal(got.Metadata, want.Metadata) {
				t.Errorf("%s, %s: published %+v, came back as %q %q %v", name, what, want, got.UUID, got.Payload, got.Metadata)
			}
			if _, ok := ots.RecordFromMessage(got); !ok {
				t.Errorf("%s, %s: no record", name, what)
			}
		}
	}
}

func TestMessages_of_a_key_arrive_in_order_over_faults_and_splits(t *testing.T) {
	em := start(t)
	p := publish(t, em, nil)
	if err := p.CreateTable(context.Background(), "orders"); err != nil {
		t.Fatal(err)
	}
	if err := em.SplitAt("orders", "key-2", "key-4"); err != nil {
		t.Fatal(err)
	}
	messages := subscribe(t, em, "orders/group", publisher.Unmarshaler{})
	for _, f := range []emulator.Fault{
		{Operation: "BatchWriteRow", Code: "OTSServerBusy", Chance: 0.1, Times: -1},
		{Operation: "BatchWriteRow", Break: emulator.BeforeAnswer, Chance: 0.1, Times: -1},
		{Operation: "BatchWriteRow", Break: emulator.MidAnswer, Chance: 0.05, Times: -1},
		{Operation: "BatchWriteRow", Break: emulator.BeforeRequest, Chance: 0.05, Times: -1},
	} {
		em.Inject(f)
	}
	const keys, each = 6, 30
	var calls sync.WaitGroup
	for k := range keys {
		calls.Go(func() {
			var batch []*message.Message
			for i := range each {
				msg := message.NewMessage(fmt.Sprintf("%d/%d", k, i), nil)
				publisher.SetOrderingKey(msg, fmt.Sprintf("key-%d", k))
				batch = append(batch, msg)
			}
			if err := p.Publish("orders", batch...); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	next := make([]int, keys)
	for left := keys * each; left > 0; {
		var k, i int
		if _, err := fmt.Sscanf(receive(t, messages).UUID, "%d/%d", &k, &i); err != nil {
			t.Fatal(err)
		}
		switch {
		case i > next[k]:
			t.Fatalf("key %d: message %d before %d", k, i, next[k])
		case i == next[k]: // a smaller number is a duplicate of a message whose answer was lost
			next[k]++
			left--
		}
	}
}

func TestOutbox_delivers_the_messages_of_rows_that_carry_one(t *testing.T) {
	em := start(t)
	client := sdk(em)
	meta := &tablestore.TableMeta{TableName: "orders"}
	meta.AddPrimaryKeyColumn("id", tablestore.PrimaryKeyType_INTEGER)
	if _, err := client.CreateTable(&tablestore.CreateTableRequest{
		TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}, ReservedThroughput: &tablestore.ReservedThroughput{},
	}); err != nil {
		t.Fatal(err)
	}
	messages := subscribe(t, em, "orders/outbox", publisher.Unmarshaler{Outbox: true})
	key := new(tablestore.PrimaryKey)
	key.AddPrimaryKeyColumn("id", int64(1))
	put := func(uuid string) error {
		c := &tablestore.PutRowChange{TableName: "orders", PrimaryKey: key}
		c.AddColumn("amount", 12.5)
		c.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		if uuid != "" {
			if err := (publisher.Columns{}).WriteTo(c.AddColumn, message.NewMessage(uuid, []byte("placed"))); err != nil {
				return err
			}
		}
		_, err := client.PutRow(&tablestore.PutRowRequest{PutRowChange: c})
		return err
	}
	update := func(uuid string) error {
		c := &tablestore.UpdateRowChange{TableName: "orders", PrimaryKey: key}
		c.PutColumn("amount", 13.5)
		c.SetCondition(tablestore.RowExistenceExpectation_EXPECT_EXIST)
		if uuid != "" {
			if err := (publisher.Columns{}).WriteTo(c.PutColumn, message.NewMessage(uuid, []byte("changed"))); err != nil {
				return err
			}
		}
		_, err := client.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: c})
		return err
	}
	remove := func() error {
		c := &tablestore.DeleteRowChange{TableName: "orders", PrimaryKey: key}
		c.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
		_, err := client.DeleteRow(&tablestore.DeleteRowRequest{DeleteRowChange: c})
		return err
	}
	if err := errors.Join(put("1"), update(""), update("2"), put(""), remove(), put("3")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1 placed", "2 changed", "3 placed"} {
		if msg := receive(t, messages); msg.UUID+" "+string(msg.Payload) != want {
			t.Errorf("got %s %s, want %s", msg.UUID, msg.Payload, want)
		}
	}
}

func TestCreateTable_creates_what_Publish_needs_and_refuses_other_tables(t *testing.T) {
	em := start(t)
	p := publish(t, em, func(c *publisher.Config) {
		c.NewTable = publisher.TableSpec{TimeToLive: 48 * time.Hour, StreamRetention: 24 * time.Hour}
	})
	em.Inject(emulator.Fault{Operation: "CreateTable", Break: emulator.BeforeAnswer}) // created, but the answer is lost
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := p.Publish("orders", message.NewMessage("1", nil)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	d, err := sdk(em).DescribeTable(&tablestore.DescribeTableRequest{TableName: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	if d.TableOption.TimeToAlive != 48*60*60 || !d.StreamDetails.EnableStream || d.StreamDetails.ExpirationTime != 24 {
		t.Errorf("the table has %+v and stream %+v", d.TableOption, d.StreamDetails)
	}

	meta := &tablestore.TableMeta{TableName: "others"}
	meta.AddPrimaryKeyColumn("id", tablestore.PrimaryKeyType_INTEGER)
	if _, err := sdk(em).CreateTable(&tablestore.CreateTableRequest{
		TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1}, ReservedThroughput: &tablestore.ReservedThroughput{},
	}); err != nil {
		t.Fatal(err)
	}
	want := "preparing table others: table does not have the key columns for messages: its primary key is (id INTEGER), messages need (key STRING, seq INTEGER auto-increment)"
	if err := p.CreateTable(context.Background(), "others"); !errors.Is(err, publisher.ErrTable) || err.Error() != want {
		t.Errorf("the error is\n%v, want\n%s", err, want)
	}
	if err := p.Publish("others", message.NewMessage("1", nil)); !errors.Is(err, publisher.ErrTable) {
		t.Errorf("Publish: %v", err)
	}
	plain := publish(t, em, func(c *publisher.Config) { c.CreateTables = false })
	if err := plain.Publish("others", message.NewMessage("1", nil)); !errors.Is(err, publisher.ErrTable) {
		t.Errorf("Publish without CreateTables: %v", err)
	}
}

func TestPublish_creates_a_table_again_that_was_deleted(t *testing.T) {
	em := start(t)
	p := publish(t, em, nil)
	if err := p.Publish("orders", message.NewMessage("1", nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := sdk(em).DeleteTable(&tablestore.DeleteTableRequest{TableName: "orders"}); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish("orders", message.NewMessage("2", nil)); !errors.Is(err, publisher.ErrNoTable) {
		t.Errorf("the first Publish after the deletion: %v", err)
	}
	if err := p.Publish("orders", message.NewMessage("2", nil)); err != nil {
		t.Errorf("the second: %v", err)
	}
}

func TestPublish_says_what_to_do_about_a_missing_table_and_refused_credentials(t *testing.T) {
	em := start(t)
	for _, c := range []struct {
		change func(*publisher.Config)
		is     error
		says   string
	}{
		{func(c *publisher.Config) { c.CreateTables = false }, publisher.ErrNoTable, "OTSObjectNotExist"},
		{func(c *publisher.Config) { c.CreateTables = false }, publisher.ErrNoTable, "create it with CreateTable, or set Config.CreateTables"},
		{func(c *publisher.Config) { c.AccessKeySecret = "wrong-secret" }, ots.ErrAuth, "OTSAuthFailed"},
		{func(c *publisher.Config) { c.AccessKeyID, c.CreateTables = "unknown", false }, ots.ErrAuth, "OTSAuthFailed"},
	} {
		err := publish(t, em, c.change).Publish("missing", message.NewMessage("1", nil))
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "wrong-secret") {
			t.Errorf("the error is %v, want %v that says %s", err, c.is, c.says)
		}
	}
}

func TestUnmarshaler_refuses_rows_without_a_message_and_skips_deletes_and_updates(t *testing.T) {
	cell := func(name string, v ots.Value) ots.Cell { return ots.Cell{Name: name, Value: v} }
	payload := cell("payload", ots.BinaryValue([]byte("x")))
	for _, c := range []struct {
		what    string
		typ     ots.RecordType
		columns []ots.Cell
		outbox  bool
		want    string // of the error; "skip", or "" for none
	}{
		{"a put", ots.Put, []ots.Cell{payload}, false, ""},
		{"a payload as text", ots.Put, []ots.Cell{cell("payload", ots.StringValue("x"))}, false, ""},
		{"a deletion", ots.Delete, nil, false, "skip"},
		{"an update of other columns", ots.Update, []ots.Cell{cell("done", ots.BooleanValue(true))}, false, "skip"},
		{"an update that removes the payload", ots.Update, []ots.Cell{{Name: "payload", Type: ots.CellDeleteAllVersions}}, false, "skip"},
		{"a foreign row", ots.Put, nil, false, `row [1] of table orders has no column "payload"; check Unmarshaler.Columns, and set Outbox if only some rows of the table carry a message`},
		{"a foreign row in an outbox", ots.Put, nil, true, "skip"},
		{"a number as payload", ots.Put, []ots.Cell{cell("payload", ots.IntegerValue(1))}, true, `row [1] of table orders has a payload column "payload" of type integer, not binary or string`},
		{"a number as UUID", ots.Put, []ots.Cell{payload, cell("uuid", ots.IntegerValue(1))}, false, `row [1] of table orders has a UUID column "uuid" of type integer, not string`},
		{"metadata that is not JSON", ots.Put, []ots.Cell{payload, cell("metadata", ots.StringValue("{"))}, false, `row [1] of table orders has a metadata column "metadata" that is not a JSON object of strings`},
		{"metadata of numbers", ots.Put, []ots.Cell{payload, cell("metadata", ots.StringValue(`{"a":1}`))}, false, `row [1] of table orders has a metadata column "metadata" that is not a JSON object of strings`},
		{"metadata that is null", ots.Put, []ots.Cell{payload, cell("metadata", ots.StringValue(`null`))}, false, `row [1] of table orders has a metadata column "metadata" that is not a JSON object of strings`},
	} {
		r := &ots.Record{Table: "orders", Type: c.typ, PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(1)}}, Columns: c.columns}
		msg, err := publisher.Unmarshaler{Outbox: c.outbox}.Unmarshal(r)
		switch {
		case c.want == "skip":
			if !errors.Is(err, ots.ErrSkip) {
				t.Errorf("%s: %v is not ErrSkip", c.what, err)
			}
		case c.want != "":
			if err == nil || err.Error() != c.want {
				t.Errorf("%s: the error is\n%v, want\n%s", c.what, err, c.want)
			}
		case err != nil || string(msg.Payload) != "x":
			t.Errorf("%s: %v, %v", c.what, msg, err)
		}
	}
}

// BenchmarkPublishToEmulator measures Publish with a service on the same machine.
func BenchmarkPublishToEmulator(b *testing.B) {
	em := start(b)
	p := publish(b, em, nil)
	for name, key := range map[string]string{"without a key": "", "of one key": "key"} {
		b.Run("200 "+name, func(b *testing.B) {
			messages := make([]*message.Message, 200)
			for i := range messages {
				messages[i] = message.NewMessage(fmt.Sprint(i), make([]byte, 200))
				publisher.SetOrderingKey(messages[i], key)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Publish("orders", messages...); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*len(messages))/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
