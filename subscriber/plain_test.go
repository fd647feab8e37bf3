package subscriber

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"pgregory.net/rapid"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// wantPlain checks that a message of plainJSON is the one that JSON makes of the
// same record, and reports whether the record was plain.
func wantPlain(t rapid.TB, p *page, i int) bool {
	t.Helper()
	msg, seq, plain := new(plainJSON).message(p, i)
	if !plain {
		return false
	}
	r := p.record(i)
	want, err := JSON{}.Unmarshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if string(msg.Payload) != string(want.Payload) || !maps.Equal(msg.Metadata, want.Metadata) || seq != r.Sequence {
		t.Fatalf("record %d is\n%s\n%v %v, JSON makes of it\n%s\n%v %v", i, msg.Payload, msg.Metadata, seq, want.Payload, want.Metadata, r.Sequence)
	}
	return true
}

func TestPlainJSON_makes_the_messages_of_JSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.OneOf(
			rapid.Map(rapid.Int64(), plainbuffer.IntegerValue),
			rapid.Map(rapid.Float64(), plainbuffer.DoubleValue),
			rapid.Map(rapid.Bool(), plainbuffer.BooleanValue),
			rapid.Map(rapid.String(), plainbuffer.StringValue),
			rapid.Map(rapid.SliceOf(rapid.Byte()), plainbuffer.BinaryValue),
			rapid.Just(plainbuffer.Special(plainbuffer.Null)),
		)
		names := rapid.SliceOfNDistinct(rapid.String(), 0, 6, rapid.ID).Draw(t, "names")
		slices.Sort(names)
		row := plainbuffer.Row{PrimaryKey: []plainbuffer.Cell{wireCell("id", value.Draw(t, "key"), 0)}}
		for _, name := range names {
			row.Cells = append(row.Cells, wireCell(name, value.Draw(t, name), rapid.Int64().Draw(t, "timestamp")))
		}
		if row.HasSequence = rapid.Bool().Draw(t, "has sequence"); row.HasSequence {
			row.Sequence = plainbuffer.Sequence{Epoch: rapid.Int32().Draw(t, "epoch"), Timestamp: rapid.Int64().Draw(t, "timestamp"), RowIndex: rapid.Int32().Draw(t, "row index")}
		}
		action := rapid.SampledFrom([]protocol.ActionType{protocol.ActionType_PUT_ROW, protocol.ActionType_UPDATE_ROW, protocol.ActionType_DELETE_ROW}).Draw(t, "action")
		p, err := testDecoder().decode(wirePage("t", nil, wireRecord(action, &row, nil)))
		if err != nil {
			t.Fatal(err)
		}
		if !wantPlain(t, p, 0) {
			t.Fatalf("%+v is not plain", row)
		}
	})
}

// TestPlainJSON_leaves_other_records_to_JSON: what is not a value for each column,
// in order, is said in ways that only JSON knows.
func TestPlainJSON_leaves_other_records_to_JSON(t *testing.T) {
	a, b := wireCell("a", plainbuffer.IntegerValue(1), 1), wireCell("b", plainbuffer.IntegerValue(2), 1)
	for name, r := range map[string]struct {
		cells  []plainbuffer.Cell
		origin *plainbuffer.Row
	}{
		"columns out of order":         {cells: []plainbuffer.Cell{b, a}},
		"two versions of a column":     {cells: []plainbuffer.Cell{a, a}},
		"a column removed":             {cells: []plainbuffer.Cell{a, {Name: "b", Op: plainbuffer.DeleteAllVersion}}},
		"a version removed":            {cells: []plainbuffer.Cell{{Name: "a", Op: plainbuffer.DeleteOneVersion, HasTimestamp: true, Timestamp: 1}, b}},
		"an unknown operation":         {cells: []plainbuffer.Cell{{Name: "a", Op: 0x7f, HasValue: true, Value: plainbuffer.IntegerValue(1)}}},
		"a column without a value":     {cells: []plainbuffer.Cell{{Name: "a"}}},
		"the columns before":           {cells: []plainbuffer.Cell{a, b}, origin: &plainbuffer.Row{Cells: []plainbuffer.Cell{b}}},
		"an empty name behind another": {cells: []plainbuffer.Cell{a, wireCell("", plainbuffer.IntegerValue(1), 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			row := &plainbuffer.Row{PrimaryKey: []plainbuffer.Cell{wireCell("id", plainbuffer.IntegerValue(1), 0)}, Cells: r.cells}
			p := mustDecode(t, wirePage("t", nil, wireRecord(protocol.ActionType_UPDATE_ROW, row, r.origin)))
			if msg, _, plain := new(plainJSON).message(p, 0); plain {
				t.Errorf("taken for plain: %s", msg.Payload)
			}
		})
	}
}

// TestPlainJSON_messages_share_no_memory: texts are made in memory that is used again,
// and what an owner of a message does to its payload concerns no other message.
func TestPlainJSON_messages_share_no_memory(t *testing.T) {
	j := new(plainJSON)
	var messages []*message.Message
	var payloads, keys []string
	for i := range 50 {
		key, long := fmt.Sprint("key", i), strings.Repeat("x", i*i)
		row := &plainbuffer.Row{PrimaryKey: []plainbuffer.Cell{wireCell("id", plainbuffer.StringValue(key), 0)}, Cells: []plainbuffer.Cell{wireCell("a", plainbuffer.StringValue(long), 1)}}
		msg, _, plain := j.message(mustDecode(t, wirePage("t", nil, wireRecord(protocol.ActionType_PUT_ROW, row, nil))), 0)
		if !plain {
			t.Fatalf("record %d is not plain", i)
		}
		_ = append(msg.Payload, "appended by the owner"...)
		messages = append(messages, msg)
		payloads = append(payloads, fmt.Sprintf(`{"type":"put","key":{"id":%q},"columns":{"a":%q}}`, key, long))
		keys = append(keys, fmt.Sprintf("[%q]", key))
	}
	for i, msg := range messages {
		if string(msg.Payload) != payloads[i] || msg.Metadata[MetadataKey] != keys[i] {
			t.Errorf("message %d is %s with key %s", i, msg.Payload, msg.Metadata[MetadataKey])
		}
	}
}

// TestL6_plainJSON_keeps_little_memory: a wide row is rare, and its text is not kept for the next.
func TestL6_plainJSON_keeps_little_memory(t *testing.T) {
	j := new(plainJSON)
	row := &plainbuffer.Row{
		PrimaryKey: []plainbuffer.Cell{wireCell("id", plainbuffer.IntegerValue(1), 0)},
		Cells:      []plainbuffer.Cell{wireCell("a", plainbuffer.StringValue(strings.Repeat("x", 2*mostPlainText)), 1)},
	}
	if _, _, plain := j.message(mustDecode(t, wirePage("t", nil, wireRecord(protocol.ActionType_PUT_ROW, row, nil))), 0); !plain {
		t.Fatal("not plain")
	}
	if cap(j.text) > mostPlainText {
		t.Errorf("%d bytes are kept, want %d at most", cap(j.text), mostPlainText)
	}
}

// BenchmarkPlainJSON is what BenchmarkJSON/message and decoding the record do together.
func BenchmarkPlainJSON(b *testing.B) {
	p := mustDecode(b, wirePage("next", nil, benchWire(1000, 5)...))
	j := new(plainJSON)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, _, plain := j.message(p, i%len(p.rows)); !plain {
			b.Fatal("not plain")
		}
	}
}
