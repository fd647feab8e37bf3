package router_test

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// refusal is a Process that refuses all messages until it is repaired, and keeps what came.
type refusal struct {
	mu       sync.Mutex
	repaired bool
	refused  map[string]*message.Message // by record
	handled  map[string]*message.Message
}

func newRefusal() *refusal {
	return &refusal{refused: make(map[string]*message.Message), handled: make(map[string]*message.Message)}
}

func (s *refusal) process(msg *message.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _ := ots.RecordFromMessage(msg)
	kept := msg.Copy()
	kept.Payload = bytes.Clone(msg.Payload)
	ots.WithRecord(kept, r)
	if s.repaired {
		s.handled[r.UUID] = kept
		return nil
	}
	s.refused[r.UUID] = kept
	clear(msg.Payload) // what the letter keeps is what came
	return backoff.Permanent(errPoison)
}

func (s *refusal) repair() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repaired = true
}

// compare checks that what was handled at last is what came at first.
func (s *refusal) compare(t *testing.T, want int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.refused) != want || len(s.handled) != want {
		t.Errorf("%d records were refused, %d handled; want %d", len(s.refused), len(s.handled), want)
	}
	for id, came := range s.refused {
		again, ok := s.handled[id]
		if !ok {
			t.Errorf("record %s was not handled", id)
			continue
		}
		first, _ := ots.RecordFromMessage(came)
		second, _ := ots.RecordFromMessage(again)
		if again.UUID != came.UUID || !bytes.Equal(again.Payload, came.Payload) || !reflect.DeepEqual(again.Metadata, came.Metadata) {
			t.Errorf("%s came back as UUID %s with %d bytes and %v, not as UUID %s with %d bytes and %v", first.KeyText(), again.UUID, len(again.Payload), again.Metadata, came.UUID, len(came.Payload), came.Metadata)
		}
		if len(first.Columns) != len(second.Columns) || !reflect.DeepEqual(first.Columns, second.Columns) || !reflect.DeepEqual(first.PrimaryKey, second.PrimaryKey) || first.Sequence != second.Sequence {
			t.Errorf("the record of %s came back changed", first.KeyText())
		}
	}
}

// setColumns adds columns to a row.
func setColumns(t *testing.T, bed *testbed.Bed, key string, columns map[string]any) {
	t.Helper()
	change := &tablestore.UpdateRowChange{TableName: testbed.Table, PrimaryKey: new(tablestore.PrimaryKey)}
	change.PrimaryKey.AddPrimaryKeyColumn("k", key)
	change.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	for name, v := range columns {
		change.PutColumn(name, v)
	}
	if _, err := bed.Client.UpdateRow(&tablestore.UpdateRowRequest{UpdateRowChange: change}); err != nil {
		t.Fatal(err)
	}
}

// letterFile is a configuration with base data and dead letters in a table.
func letterFile(bed *testbed.Bed, more string) string {
	return strings.Replace(fileFor(bed, "    failure: {backoff_initial: 10ms, dead_letter: {table: dead}}\n"+more), "type: Stream", "type: BaseAndStream", 1)
}

// Whatever a row is, its letter is written, and read back whole.
func TestDeadLetters_of_any_row_are_kept_and_replayed(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes the largest rows; -short leaves it out")
	}
	bed := testbed.New(t, emulator.Options{})
	random := func(n int) []byte { // does not compress
		b, state := make([]byte, n), uint64(n)
		for i := range b {
			state = state*6364136223846793005 + 1442695040888963407
			b[i] = byte(state >> 56)
		}
		return b
	}
	const column = 2 << 20
	write := func(when string) (rows int) {
		setColumns(t, bed, when+"-blob", map[string]any{"b": random(column)})
		setColumns(t, bed, when+"-text", map[string]any{"t": strings.Repeat("é<\x00", column/4)})
		wide := make(map[string]any)
		for i := range 1024 {
			wide[fmt.Sprintf("c%04d", i)] = fmt.Sprintf("value <%d>", i)
		}
		setColumns(t, bed, when+"-wide", wide)
		return 3
	}
	want := write("base")
	for i := range 3 { // a row of base data that is larger than a request
		setColumns(t, bed, "base-fat", map[string]any{fmt.Sprintf("c%d", i): random(column - i)})
	}
	want++
	r := build(t, letterFile(bed, "    max_in_flight_bytes: 33554432\n"))
	s := newRefusal()
	if err := r.Handle("numbers", router.Handlers{Process: s.process}); err != nil {
		t.Fatal(err)
	}
	start(t, r)
	letters := func() (n int) {
		for _, row := range letterRows(t, bed, "dead") {
			if row.PrimaryKey.PrimaryKeys[1].Value != "~parts" {
				n++
			}
		}
		return n
	}
	testbed.Eventually(t, 60*time.Second, "the base data are letters", func() bool { return letters() == want })
	want += write("stream")
	testbed.Eventually(t, 60*time.Second, "the changes are letters", func() bool { return letters() == want })
	s.repair()
	got, err := r.Replay(context.Background(), "numbers")
	if err != nil || got != (router.Replayed{Succeeded: want}) {
		t.Errorf("replayed %+v, %v; want %d", got, err, want)
	}
	s.compare(t, want)
	if left := letterRows(t, bed, "dead"); len(left) != 0 {
		t.Errorf("%d rows are left", len(left))
	}
}

// orderUUID gives all messages the UUID of one order.
type orderUUID struct{ subscriber.JSON }

func (o orderUUID) Unmarshal(r *ots.Record) (*message.Message, error) {
	msg, err := o.JSON.Unmarshal(r)
	if msg != nil {
		msg.UUID = "order-17"
	}
	return msg, err
}

// Letters of different records never overwrite each other, though their messages have one UUID.
func TestDeadLetters_of_messages_with_one_UUID_are_kept_apart(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	bed.PutAll(2, 1) // base data, which has no sequence to tell records apart
	r := build(t, letterFile(bed, "    payload: orders\n"))
	if err := r.RegisterPayload("orders", orderUUID{}); err != nil {
		t.Fatal(err)
	}
	s := newRefusal()
	if err := r.Handle("numbers", router.Handlers{Process: s.process}); err != nil {
		t.Fatal(err)
	}
	start(t, r)
	testbed.Eventually(t, 20*time.Second, "two letters are there", func() bool { return len(letterRows(t, bed, "dead")) == 2 })
	for _, row := range letterRows(t, bed, "dead") {
		if id := row.PrimaryKey.PrimaryKeys[2].Value; id == "order-17" || columnsOf(row)["uuid"] != "order-17" {
			t.Errorf("row %v has the UUID %v", id, columnsOf(row)["uuid"])
		}
	}
	s.repair()
	if got, err := r.Replay(context.Background(), "numbers"); err != nil || got != (router.Replayed{Succeeded: 2}) {
		t.Errorf("replayed %+v, %v", got, err)
	}
	s.compare(t, 2)
}

// The same by topic: a consumer that drops messages whose UUID it has seen drops no letter.
func TestDeadLetters_by_topic_have_UUIDs_of_their_records(t *testing.T) {
	bed := testbed.New(t, emulator.Options{})
	bed.PutAll(2, 1)
	r := build(t, strings.Replace(letterFile(bed, "    payload: orders\n"), "table: dead", "publisher: letters, topic: dead", 1))
	pub := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: 10}, nil)
	defer pub.Close()
	dead, err := pub.Subscribe(context.Background(), "dead")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{r.RegisterPublisher("letters", pub), r.RegisterPayload("orders", orderUUID{})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := newRefusal()
	if err := r.Handle("numbers", router.Handlers{Process: s.process}); err != nil {
		t.Fatal(err)
	}
	start(t, r)
	uuids := make(map[string]bool)
	var letters []*message.Message
	for range 2 {
		msg := receive(t, dead)
		msg.Ack()
		letters = append(letters, msg)
		uuids[msg.UUID] = true
		l, err := router.ParseDeadLetter(msg.Payload)
		if err != nil || l.ID != "order-17" || l.Identity != msg.UUID || l.Record.UUID != msg.UUID {
			t.Errorf("letter %+v, %v under UUID %s", l, err, msg.UUID)
		}
	}
	if len(uuids) != 2 || uuids["order-17"] {
		t.Errorf("the letters have UUIDs %v", uuids)
	}
	s.repair()
	for _, err := range r.ReplayMessages(context.Background(), letters...) {
		if err != nil {
			t.Error(err)
		}
	}
	s.compare(t, 2)
}
