package subscriber

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"pgregory.net/rapid"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/ots"
)

// update is the record of the examples of formats in docs/payload.md.
func update() *ots.Record {
	r := *payloads["An update"]
	r.Instance, r.Table, r.Tunnel, r.Channel = "shop", "orders", "audit", "c1"
	r.UUID = "ab602e8a-626b-85b4-91ed-8c52e818580e"
	return &r
}

// example returns the example under a heading of docs/payload.md, without its spaces.
func example(t *testing.T, heading string) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/payload.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(doc), "\n### "+heading+"\n")
	block := regexp.MustCompile("(?s)```jsonc\n(.*?)```").FindStringSubmatch(section)
	if !found || block == nil {
		t.Fatalf("docs/payload.md has no example under %q", heading)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(block[1])); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// payload is what an Unmarshaler makes of r.
func payload(t testing.TB, u ots.Unmarshaler, r *ots.Record) string {
	t.Helper()
	msg, err := u.Unmarshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := msg.Metadata.Get(MetadataKey); got != r.KeyText() {
		t.Errorf("metadata has the key %s", got)
	}
	return string(msg.Payload)
}

func TestCloudEvents_are_as_documented(t *testing.T) {
	if got, want := payload(t, CloudEvents{}, update()), example(t, "CloudEvents"); got != want {
		t.Errorf("payload\n%s, documented\n%s", got, want)
	}
}

func TestCloudEvents_id_is_the_uuid_of_the_message(t *testing.T) {
	msg, err := CloudEvents{}.Unmarshal(update())
	if err != nil || msg.UUID != update().UUID {
		t.Errorf("UUID is %q, %v", msg.UUID, err)
	}
	r := update()
	r.UUID = ""
	first, second := payload(t, CloudEvents{}, r), payload(t, CloudEvents{}, r)
	if first != second || strings.Contains(first, `"id":""`) {
		t.Errorf("without a UUID:\n%s\n%s", first, second)
	}
}

func TestCloudEvents_of_base_data_have_no_time_and_settings_are_taken(t *testing.T) {
	r := update()
	r.Type, r.Sequence, r.Origin, r.Columns = ots.Put, ots.Sequence{}, nil, nil
	got := payload(t, CloudEvents{TypePrefix: "org.example", Source: "/orders?a&\"b\""}, r)
	want := `{"specversion":"1.0","id":"ab602e8a-626b-85b4-91ed-8c52e818580e","source":"/orders?a&\"b\"","type":"org.example.put",` +
		`"subject":"[7,\"eu\"]","partitionkey":"[7,\"eu\"]","datacontenttype":"application/json","data":{"type":"put","key":{"id":7,"region":"eu"},"columns":{}}}`
	if got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}

func TestCloudEvents_in_binary_mode_are_the_headers_and_the_body_of_a_request(t *testing.T) {
	r := update()
	r.PrimaryKey = []ots.Column{r.PrimaryKey[0], {Name: "region", Value: ots.StringValue("e u%é")}}
	msg, err := CloudEvents{Binary: true}.Unmarshal(r)
	if err != nil || msg.UUID != r.UUID {
		t.Fatalf("UUID %q, %v", msg.UUID, err)
	}
	req, err := CloudEventRequest("http://sink.test/events", msg)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Ce-Specversion": "1.0", "Ce-Id": r.UUID, "Ce-Source": "tablestore://shop/orders", "Ce-Type": "io.github.watermill-ots.tablestore.update",
		"Ce-Subject": "[7,%22e%20u%25%C3%A9%22]", "Ce-Partitionkey": "[7,%22e%20u%25%C3%A9%22]", "Ce-Time": "2023-11-14T22:13:22.123456Z",
		"Ce-Sequence": r.Sequence.String(), "Content-Type": "application/json",
	} {
		if got := req.Header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	body, err := io.ReadAll(req.Body)
	if err != nil || string(body) != payload(t, JSON{}, r) || req.Method != http.MethodPost || len(req.Header) != 9 {
		t.Errorf("%s with headers %v and body %s, %v", req.Method, req.Header, body, err)
	}
	structured, err := CloudEvents{}.Unmarshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if req, err = CloudEventRequest("http://sink.test/events", structured); err != nil || len(req.Header) != 1 || !strings.HasPrefix(req.Header.Get("Content-Type"), "application/cloudevents+json") {
		t.Errorf("in structured mode: %v, %v", req.Header, err)
	}
}

func TestCloudEvents_subject_has_no_forbidden_characters_and_means_the_key(t *testing.T) {
	for _, key := range []string{"plain", "é😀", "a\x00b", "\x7f", "\u0080\u009f", "\ufffe", "\U0001fffe", "\ufdd0x", "\\u007f\x7f", ""} {
		r := &ots.Record{Type: ots.Put, PrimaryKey: []ots.Column{{Name: "k", Value: ots.StringValue(key)}}}
		var event struct{ Subject string }
		if err := json.Unmarshal([]byte(payload(t, CloudEvents{}, r)), &event); err != nil {
			t.Fatal(err)
		}
		for _, c := range event.Subject {
			if c < ' ' || c >= 0x7f && c <= 0x9f || c&0xfffe == 0xfffe || c >= 0xfdd0 && c <= 0xfdef {
				t.Errorf("key %q: subject %q has %U", key, event.Subject, c)
			}
		}
		var back []string
		if err := json.Unmarshal([]byte(event.Subject), &back); err != nil || len(back) != 1 || back[0] != key {
			t.Errorf("key %q came back as %q, %v", key, back, err)
		}
	}
}

func TestDebezium_envelope_is_as_documented(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.UnixMilli(1700000002200)))
		if got, want := payload(t, Debezium{}, update()), example(t, "Debezium"); got != want {
			t.Errorf("payload\n%s, documented\n%s", got, want)
		}
	})
}

func TestCanal_change_is_as_documented(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.UnixMilli(1700000002200)))
		if got, want := payload(t, Canal{}, update()), example(t, "canal-json"); got != want {
			t.Errorf("payload\n%s, documented\n%s", got, want)
		}
	})
}

func TestFunctionCompute_event_is_as_documented(t *testing.T) {
	if got, want := payload(t, FunctionCompute{JSON: true}, update()), example(t, "Function Compute"); got != want {
		t.Errorf("payload\n%s, documented\n%s", got, want)
	}
}

func TestFunctionCompute_event_in_CBOR_has_these_bytes(t *testing.T) {
	r := &ots.Record{Type: ots.Put, Sequence: ots.Sequence{Timestamp: 500}, PrimaryKey: []ots.Column{{Name: "k", Value: ots.BinaryValue([]byte{0xff})}}, Columns: []ots.Cell{
		{Name: "n", Value: ots.IntegerValue(-500), Timestamp: 1}, {Name: "d", Value: ots.DoubleValue(1.5), Timestamp: 1}, {Name: "b", Value: ots.BooleanValue(true), Timestamp: 1},
	}}
	// By hand, from RFC 8949: a map of 2, text, an array of 1, a map of 4, and so on.
	const want = "\xa2\x67Version\x67Sync-v1\x67Records\x81\xa4\x64Type\x66PutRow\x64Info\xa1\x69Timestamp\x19\x01\xf4" +
		"\x6aPrimaryKey\x81\xa2\x6aColumnName\x61k\x65Value\x41\xff\x67Columns\x83" +
		"\xa4\x64Type\x63Put\x6aColumnName\x61n\x65Value\x39\x01\xf3\x69Timestamp\x01" +
		"\xa4\x64Type\x63Put\x6aColumnName\x61d\x65Value\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00\x69Timestamp\x01" +
		"\xa4\x64Type\x63Put\x6aColumnName\x61b\x65Value\xf5\x69Timestamp\x01"
	if got := payload(t, FunctionCompute{}, r); got != want {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

func TestDebezium_tells_what_is_known_of_each_change(t *testing.T) {
	key := []ots.Column{{Name: "id", Value: ots.IntegerValue(7)}}
	put := func(name string, v int64) ots.Cell {
		return ots.Cell{Name: name, Value: ots.IntegerValue(v), Timestamp: 5}
	}
	seq := ots.Sequence{Epoch: 1, Timestamp: 1700000002123456, RowIndex: 0}
	for _, c := range []struct {
		what              string
		record            ots.Record
		op, before, after string
	}{
		{"base data", ots.Record{Type: ots.Put, Columns: []ots.Cell{put("a", 1)}}, "r", `null`, `{"id":7,"a":1}`},
		{"a put", ots.Record{Type: ots.Put, Sequence: seq, Columns: []ots.Cell{put("a", 1)}}, "c", `null`, `{"id":7,"a":1}`},
		{"a put without columns", ots.Record{Type: ots.Put, Sequence: seq}, "c", `null`, `{"id":7}`},
		{"a put over a row", ots.Record{Type: ots.Put, Sequence: seq, Columns: []ots.Cell{put("b", 2)}, Origin: []ots.Cell{put("a", 1)}}, "u", `{"id":7,"a":1}`, `{"id":7,"b":2}`},
		{"an update", ots.Record{Type: ots.Update, Sequence: seq, Columns: []ots.Cell{put("a", 1)}}, "u", `null`, `{"id":7,"a":1}`},
		{"an update that removes", ots.Record{Type: ots.Update, Sequence: seq, Columns: []ots.Cell{
			{Name: "a", Type: ots.CellDeleteAllVersions}, {Name: "a", Type: ots.CellDeleteAllVersions}, {Name: "b", Type: ots.CellDeleteOneVersion, Timestamp: 5}, put("c", 3),
		}}, "u", `null`, `{"id":7,"a":null,"c":3}`},
		{"an update that replaces", ots.Record{Type: ots.Update, Sequence: seq, Columns: []ots.Cell{{Name: "a", Type: ots.CellDeleteAllVersions}, put("a", 4)}}, "u", `null`, `{"id":7,"a":4}`},
		{"a delete", ots.Record{Type: ots.Delete, Sequence: seq}, "d", `{"id":7}`, `null`},
		{"a delete with old columns", ots.Record{Type: ots.Delete, Sequence: seq, Origin: []ots.Cell{put("a", 1)}}, "d", `{"id":7,"a":1}`, `null`},
	} {
		c.record.PrimaryKey = key
		var got struct {
			Op            string
			Before, After json.RawMessage
			Source        struct{ Snapshot string }
		}
		if err := json.Unmarshal([]byte(payload(t, Debezium{}, &c.record)), &got); err != nil {
			t.Fatal(err)
		}
		if got.Op != c.op || string(got.Before) != c.before || string(got.After) != c.after || (got.Source.Snapshot == "true") != (c.op == "r") {
			t.Errorf("%s: %s before %s after %s snapshot %s, want %s %s %s", c.what, got.Op, got.Before, got.After, got.Source.Snapshot, c.op, c.before, c.after)
		}
	}
}

func TestFormats_of_any_record_are_valid_JSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		r := &ots.Record{
			Instance: text.Draw(t, "instance"), Table: text.Draw(t, "table"), Tunnel: text.Draw(t, "tunnel"), Channel: text.Draw(t, "channel"),
			Type: ots.RecordType(rapid.IntRange(1, 3).Draw(t, "type")), PrimaryKey: []ots.Column{{Name: text.Draw(t, "key"), Value: ots.StringValue(text.Draw(t, "value"))}},
			Sequence: ots.Sequence{Timestamp: rapid.Int64Range(0, math.MaxInt32*1e6).Draw(t, "time")},
		}
		for range rapid.IntRange(0, 40).Draw(t, "cells") {
			r.Columns = append(r.Columns, ots.Cell{
				Name: rapid.StringMatching("[ab]{0,3}").Draw(t, "name"), Type: ots.CellType(rapid.IntRange(0, 2).Draw(t, "cell")),
				Value: ots.StringValue(text.Draw(t, "text")), Timestamp: rapid.Int64Range(0, 3).Draw(t, "version"),
			})
		}
		for _, u := range []ots.Unmarshaler{CloudEvents{}, Debezium{}, Debezium{Schema: true}, Canal{}, FunctionCompute{JSON: true}} {
			msg, err := u.Unmarshal(r)
			if err != nil || !json.Valid(msg.Payload) {
				t.Fatalf("%T: %v, %s", u, err, msg.Payload)
			}
		}
	})
}

func TestRaw_payload_has_the_bytes_of_the_wire(t *testing.T) {
	records := fullPage()
	p := mustDecode(t, wirePage("next", nil, records...))
	for i := range p.rows {
		if got := payload(t, Raw{}, p.record(i)); got != string(records[i].Record) {
			t.Errorf("record %d: got\n%x, the wire had\n%x", i, got, records[i].Record)
		}
	}
}

func TestRaw_any_record_decodes_to_what_it_held(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := &ots.Record{Type: ots.Update, PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(rapid.Int64().Draw(t, "id"))}}, Sequence: ots.Sequence{Epoch: 1, Timestamp: 2, RowIndex: 3}}
		for range rapid.IntRange(0, 5).Draw(t, "cells") {
			v := rapid.SampledFrom([]ots.Value{ots.IntegerValue(-1), ots.DoubleValue(math.Inf(-1)), ots.BooleanValue(true), ots.StringValue("\xff"), ots.BinaryValue(nil), ots.BinaryValue([]byte{0, 1})}).Draw(t, "value")
			c := ots.Cell{Name: rapid.String().Draw(t, "name"), Value: v, Timestamp: rapid.Int64Range(1, 9).Draw(t, "version")}
			switch c.Type = ots.CellType(rapid.IntRange(0, 2).Draw(t, "type")); c.Type {
			case ots.CellDeleteAllVersions:
				c.Value, c.Timestamp = ots.Value{}, 0
			case ots.CellDeleteOneVersion:
				c.Value = ots.Value{}
			}
			want.Columns = append(want.Columns, c)
		}
		body := wirePage("next", nil, &protocol.Record{ActionType: protocol.ActionType_UPDATE_ROW.Enum(), Record: appendPlainBuffer(nil, want)})
		p, err := testDecoder().decode(body)
		if err != nil {
			t.Fatal(err)
		}
		got := *p.record(0)
		if got.Sequence != want.Sequence || got.PrimaryKey[0] != want.PrimaryKey[0] || len(got.Columns) != len(want.Columns) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		for i := range want.Columns {
			if got.Columns[i] != want.Columns[i] {
				t.Fatalf("cell %d is %+v, want %+v", i, got.Columns[i], want.Columns[i])
			}
		}
	})
}

func TestRaw_payload_keeps_no_page(t *testing.T) {
	body := wirePage("next", nil, fullPage()...)
	p := mustDecode(t, body)
	before := payload(t, Raw{}, p.record(0))
	msg, err := Raw{}.Unmarshal(p.record(0))
	if err != nil {
		t.Fatal(err)
	}
	clear(body)
	if string(msg.Payload) != before {
		t.Error("the payload changed with the page")
	}
	var row plainbuffer.Row
	if err := plainbuffer.Decode(msg.Payload, &row); err != nil {
		t.Error(err)
	}
}

func TestNone_payload_is_empty(t *testing.T) {
	if got := payload(t, None{}, update()); got != "" {
		t.Errorf("payload %q", got)
	}
}

func BenchmarkFormats(b *testing.B) {
	r := benchRecord(5)
	r.UUID = "ab602e8a-626b-85b4-91ed-8c52e818580e"
	for name, u := range map[string]ots.Unmarshaler{"JSON": JSON{}, "CloudEvents": CloudEvents{}, "Debezium": Debezium{}, "Raw": Raw{}, "None": None{}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := u.Unmarshal(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
