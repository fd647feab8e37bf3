package subscriber

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
	"github.com/watermill-ots/watermill-ots/ots"
)

// wireRecord encodes a record as the service sends it. origin may be nil.
func wireRecord(action protocol.ActionType, row, origin *plainbuffer.Row) *protocol.Record {
	r := &protocol.Record{ActionType: action.Enum(), Record: plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), row)}
	if origin != nil {
		r.OriginRecord = plainbuffer.AppendRow(plainbuffer.AppendHeader(nil), origin)
	}
	return r
}

func someRecord(id int64) *protocol.Record {
	return wireRecord(protocol.ActionType_PUT_ROW, &plainbuffer.Row{
		PrimaryKey:  []plainbuffer.Cell{wireCell("id", plainbuffer.IntegerValue(id), 0)},
		HasSequence: true, Sequence: plainbuffer.Sequence{Timestamp: 1700000000000000, RowIndex: 1},
	}, nil)
}

// wireCell is a cell with a value, and with a timestamp if that is not 0.
func wireCell(name string, v plainbuffer.Value, timestamp int64) plainbuffer.Cell {
	return plainbuffer.Cell{Name: name, Value: v, HasValue: true, Timestamp: timestamp, HasTimestamp: timestamp != 0}
}

// fullPage has a record of each type, every kind of cell and an old image.
func fullPage() []*protocol.Record {
	key := func(id int64) []plainbuffer.Cell {
		return []plainbuffer.Cell{
			wireCell("id", plainbuffer.IntegerValue(id), 0), wireCell("s", plainbuffer.StringValue("é"), 0), wireCell("b", plainbuffer.BinaryValue([]byte{0, 255}), 0),
		}
	}
	seq := plainbuffer.Sequence{Epoch: 1, Timestamp: 1700000000123456, RowIndex: 2}
	return []*protocol.Record{
		wireRecord(protocol.ActionType_PUT_ROW, &plainbuffer.Row{PrimaryKey: key(1), Cells: []plainbuffer.Cell{
			wireCell("i", plainbuffer.IntegerValue(-5), 10), wireCell("d", plainbuffer.DoubleValue(2.5), 10), wireCell("t", plainbuffer.BooleanValue(true), 10),
			wireCell("s", plainbuffer.StringValue("text"), 10), wireCell("b", plainbuffer.BinaryValue([]byte("bytes")), 10),
		}, HasSequence: true, Sequence: seq}, nil),
		wireRecord(protocol.ActionType_UPDATE_ROW, &plainbuffer.Row{PrimaryKey: key(2), Cells: []plainbuffer.Cell{
			wireCell("i", plainbuffer.IntegerValue(7), 12), wireCell("i", plainbuffer.IntegerValue(6), 11),
			{Name: "one", Op: plainbuffer.DeleteOneVersion, HasTimestamp: true, Timestamp: 9}, {Name: "all", Op: plainbuffer.DeleteAllVersion},
		}, HasSequence: true, Sequence: seq}, &plainbuffer.Row{Cells: []plainbuffer.Cell{wireCell("i", plainbuffer.IntegerValue(5), 8)}}),
		wireRecord(protocol.ActionType_DELETE_ROW, &plainbuffer.Row{PrimaryKey: key(3), Delete: true, HasSequence: true, Sequence: seq}, nil),
		wireRecord(protocol.ActionType_PUT_ROW, &plainbuffer.Row{PrimaryKey: key(4)}, nil),
	}
}

func wirePage(next string, more *bool, records ...*protocol.Record) []byte {
	return marshal(&protocol.ReadRecordsResponse{Records: records, NextToken: &next, MayMoreRecord: more})
}

func testDecoder() *pageDecoder {
	return &pageDecoder{origin: ots.Record{Instance: "inst", Table: "table", Tunnel: "tunnel", Channel: "c1", Attempt: 1}}
}

func mustDecode(t testing.TB, body []byte) *page {
	t.Helper()
	p, err := testDecoder().decode(body)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPage_decodes_each_record_type_and_cell(t *testing.T) {
	more := true
	body := wirePage("next", &more, fullPage()...)
	p := mustDecode(t, body)
	if p.next != "next" || p.more == nil || !*p.more || p.size != len(body) || len(p.rows) != 4 || len(p.keys) != 4 {
		t.Fatalf("page is %+v", p)
	}
	origin := ots.Record{Instance: "inst", Table: "table", Tunnel: "tunnel", Channel: "c1", Attempt: 1}
	key := func(id int64) []ots.Column {
		return []ots.Column{{Name: "id", Value: ots.IntegerValue(id)}, {Name: "s", Value: ots.StringValue("é")}, {Name: "b", Value: ots.BinaryValue([]byte{0, 255})}}
	}
	want := []ots.Record{origin, origin, origin, origin}
	seq := ots.Sequence{Epoch: 1, Timestamp: 1700000000123456, RowIndex: 2}
	want[0].Type, want[0].PrimaryKey, want[0].Sequence = ots.Put, key(1), seq
	want[0].Columns = []ots.Cell{
		{Name: "i", Value: ots.IntegerValue(-5), Type: ots.CellPut, Timestamp: 10}, {Name: "d", Value: ots.DoubleValue(2.5), Type: ots.CellPut, Timestamp: 10}, {Name: "t", Value: ots.BooleanValue(true), Type: ots.CellPut, Timestamp: 10},
		{Name: "s", Value: ots.StringValue("text"), Type: ots.CellPut, Timestamp: 10}, {Name: "b", Value: ots.BinaryValue([]byte("bytes")), Type: ots.CellPut, Timestamp: 10},
	}
	want[1].Type, want[1].PrimaryKey, want[1].Sequence = ots.Update, key(2), seq
	want[1].Columns = []ots.Cell{
		{Name: "i", Value: ots.IntegerValue(7), Type: ots.CellPut, Timestamp: 12}, {Name: "i", Value: ots.IntegerValue(6), Type: ots.CellPut, Timestamp: 11}, {Name: "one", Value: ots.Value{}, Type: ots.CellDeleteOneVersion, Timestamp: 9}, {Name: "all", Value: ots.Value{}, Type: ots.CellDeleteAllVersions, Timestamp: 0},
	}
	want[1].Origin = []ots.Cell{{Name: "i", Value: ots.IntegerValue(5), Type: ots.CellPut, Timestamp: 8}}
	want[2].Type, want[2].PrimaryKey, want[2].Sequence = ots.Delete, key(3), seq
	want[3].Type, want[3].PrimaryKey = ots.Put, key(4) // base data: no sequence
	for i := range want {
		if !reflect.DeepEqual(*p.record(i), want[i]) {
			t.Errorf("record %d is\n%+v, want\n%+v", i, *p.record(i), want[i])
		}
	}
	if p.keys[0] == p.keys[1] || p.keys[0] == "" {
		t.Errorf("keys are %q", p.keys)
	}
}

func TestPage_of_no_records_and_of_the_finish_token(t *testing.T) {
	p := mustDecode(t, wirePage(tunnel.FinishTag, nil))
	if len(p.rows) != 0 || p.next != "finished" || p.more != nil {
		t.Errorf("page is %+v", p)
	}
}

func TestPage_slices_of_one_record_do_not_reach_into_the_next(t *testing.T) {
	p := mustDecode(t, wirePage("n", nil, fullPage()...))
	block := recordDecoder{block: blockCells}
	for i := range p.rows {
		var r ots.Record
		block.decode(p, i, &r)
		if cap(r.Columns) != len(r.Columns) || cap(r.PrimaryKey) != len(r.PrimaryKey) || cap(r.Origin) != len(r.Origin) {
			t.Errorf("record %d: an append to its columns would overwrite those of another", i)
		}
	}
}

func TestPage_a_decoder_serves_pages_of_any_size_after_each_other(t *testing.T) {
	d := testDecoder()
	block := recordDecoder{block: blockCells}
	for _, n := range []int{1, 100, 0, 3, 1000, 2} {
		var records []*protocol.Record
		for i := range n {
			records = append(records, someRecord(int64(i)))
		}
		p, err := d.decode(wirePage("n", nil, records...))
		if err != nil || len(p.rows) != n {
			t.Fatalf("%d records: %v", n, err)
		}
		for i := range p.rows {
			var r ots.Record
			block.decode(p, i, &r)
			if r.PrimaryKey[0].Value.Int64() != int64(i) || len(r.Columns) != 0 {
				t.Fatalf("record %d of %d is %+v", i, n, r)
			}
		}
	}
}

func TestPage_put_cell_without_a_value_has_none(t *testing.T) {
	row := &plainbuffer.Row{PrimaryKey: []plainbuffer.Cell{wireCell("id", plainbuffer.IntegerValue(1), 0)}, Cells: []plainbuffer.Cell{{Name: "a"}}}
	p := mustDecode(t, wirePage("n", nil, wireRecord(protocol.ActionType_PUT_ROW, row, nil)))
	if v, ok := p.record(0).Column("a"); !ok || v.Kind() != ots.KindNone {
		t.Errorf("the column is %v of kind %v", v, v.Kind())
	}
}

func TestPage_fields_that_are_not_known_are_skipped(t *testing.T) {
	unknown := func(b []byte) []byte {
		b = protowire.AppendVarint(protowire.AppendTag(b, 100, protowire.VarintType), 7)
		b = protowire.AppendBytes(protowire.AppendTag(b, 101, protowire.BytesType), []byte("later"))
		b = protowire.AppendFixed32(protowire.AppendTag(b, 102, protowire.Fixed32Type), 7)
		b = protowire.AppendFixed64(protowire.AppendTag(b, 103, protowire.Fixed64Type), 7)
		b = protowire.AppendTag(b, 104, protowire.StartGroupType)
		return protowire.AppendTag(b, 104, protowire.EndGroupType)
	}
	r := marshal(someRecord(7))
	var body []byte
	body = unknown(body)
	body = protowire.AppendBytes(protowire.AppendTag(body, fieldRecords, protowire.BytesType), unknown(append(unknown(nil), r...)))
	body = unknown(protowire.AppendString(protowire.AppendTag(body, fieldNextToken, protowire.BytesType), "n"))
	if p := mustDecode(t, body); len(p.rows) != 1 || p.next != "n" || p.record(0).PrimaryKey[0].Value != ots.IntegerValue(7) {
		t.Errorf("page is %+v", p)
	}
}

var offsetInError = regexp.MustCompile(`malformed page at byte (\d+): `)

// wantPageError checks that err is a page's, with an offset in the body.
func wantPageError(t *testing.T, what string, err error, size int) {
	t.Helper()
	var m []string
	if err != nil {
		m = offsetInError.FindStringSubmatch(err.Error())
	}
	if !errors.Is(err, errPage) || m == nil {
		t.Errorf("%s: got %v, want an error with an offset", what, err)
		return
	}
	if at, convErr := strconv.Atoi(m[1]); convErr != nil || at > size {
		t.Errorf("%s: the offset is beyond %d bytes: %v", what, size, err)
	}
}

func TestPage_faults_are_refused_with_their_offset(t *testing.T) {
	ok := marshal(someRecord(1))
	record := func(raw []byte) []byte {
		body := protowire.AppendBytes(protowire.AppendTag(nil, fieldRecords, protowire.BytesType), raw)
		return protowire.AppendString(protowire.AppendTag(body, fieldNextToken, protowire.BytesType), "n")
	}
	action := func(v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, fieldActionType, protowire.VarintType), v)
	}
	rowOnly := protowire.AppendBytes(protowire.AppendTag(nil, fieldRecord, protowire.BytesType), someRecord(1).Record)
	noKey := wireRecord(protocol.ActionType_PUT_ROW, &plainbuffer.Row{}, nil)
	header := &protocol.Record{ActionType: protocol.ActionType_PUT_ROW.Enum(), Record: plainbuffer.AppendHeader(nil)}
	badOrigin := someRecord(1)
	badOrigin.OriginRecord = []byte("no row")
	for name, body := range map[string][]byte{
		"empty body":               {},
		"no next_token":            protowire.AppendBytes(protowire.AppendTag(nil, fieldRecords, protowire.BytesType), ok),
		"empty next_token":         wirePage("", nil),
		"no action type":           record(rowOnly),
		"action type 0":            record(append(action(0), rowOnly...)),
		"action type 4":            record(append(action(4), rowOnly...)),
		"action type 257":          record(append(action(257), rowOnly...)), // 1 in its last byte
		"no row":                   record(action(1)),
		"row of only a header":     record(marshal(header)),
		"row without a key":        record(marshal(noKey)),
		"origin that is not a row": record(marshal(badOrigin)),
		"no protobuf":              []byte("<html>no such page</html>"),
		"tag cut short":            append(wirePage("n", nil), 0x80),
		"record's field too big":   record([]byte{0x12, 0xff, 0xff, 0xff, 0xff, 0x7f}),
	} {
		p, err := testDecoder().decode(body)
		if p != nil {
			t.Errorf("%s: a page and %v", name, err)
		}
		wantPageError(t, name, err, len(body))
	}
}

func TestPage_cut_short_anywhere_is_refused(t *testing.T) {
	more := true
	body := wirePage("next", &more, fullPage()...)
	for n := range len(body) {
		p, err := testDecoder().decode(body[:n])
		if err == nil && p.next == "next" && len(p.rows) == 4 && p.more == nil {
			continue // only may_more_record is lost: the length of a page is HTTP's to tell
		}
		wantPageError(t, fmt.Sprintf("cut to %d of %d bytes", n, len(body)), err, n)
	}
}

// What is checked by a checksum is everything that a row holds. Nothing covers
// the protobuf around the rows (tokens, action types, field numbers) and, in
// PlainBuffer, the sequence: that is for TLS and TCP.
func TestPage_corrupt_rows_are_refused_never_read_as_others(t *testing.T) {
	records := fullPage()
	body := wirePage("next", nil, records...)
	want := mustDecode(t, body)
	refused, unseen := 0, 0
	for at := range body {
		for _, flip := range []byte{0x01, 0x80, 0x10, 0xff} {
			corrupt := append([]byte(nil), body...)
			corrupt[at] ^= flip
			p, err := testDecoder().decode(corrupt)
			if err != nil {
				refused++
				wantPageError(t, fmt.Sprintf("byte %d ^ %#x", at, flip), err, len(body))
				continue
			}
			unseen++
			if p.next != "next" || len(p.rows) != len(want.rows) {
				continue // the token, or a field's number: not covered
			}
			for i := range want.rows {
				got, exp := *p.record(i), *want.record(i)
				got.Type, exp.Type = 0, 0
				got.Sequence, exp.Sequence = ots.Sequence{}, ots.Sequence{}
				if got.Origin == nil { // its field's number
					exp.Origin = nil
				}
				if !reflect.DeepEqual(got, exp) {
					t.Errorf("byte %d ^ %#x: record %d was read as\n%+v, is\n%+v", at, flip, i, got, exp)
				}
			}
		}
	}
	t.Logf("%d bytes: %d corruptions refused, %d outside of what is covered", len(body), refused, unseen)
}

func TestPage_decodes_as_the_SDK_does(t *testing.T) {
	body := wirePage("next", nil, fullPage()...)
	p := mustDecode(t, body)
	for i, w := range fullPage() {
		sdk, err := tunnel.DeserializeRecordFromRawBytes(w.Record, w.OriginRecord, tunnel.ActionType(i))
		if err != nil {
			t.Fatal(err)
		}
		r := *p.record(i)
		if len(sdk.PrimaryKey.PrimaryKeys) != len(r.PrimaryKey) || len(sdk.Columns) != len(r.Columns) || len(sdk.OriginColumns) != len(r.Origin) {
			t.Fatalf("record %d: SDK %v, ours %+v", i, sdk, r)
		}
		for j, k := range sdk.PrimaryKey.PrimaryKeys {
			if k.ColumnName != r.PrimaryKey[j].Name || !reflect.DeepEqual(k.Value, r.PrimaryKey[j].Value.Any()) {
				t.Errorf("record %d key %d: SDK %v, ours %v", i, j, k, r.PrimaryKey[j])
			}
		}
		for j, c := range sdk.Columns {
			if *c.Name != r.Columns[j].Name || *c.Timestamp != r.Columns[j].Timestamp || !reflect.DeepEqual(c.Value, r.Columns[j].Value.Any()) {
				t.Errorf("record %d column %d: SDK %v, ours %v", i, j, c, r.Columns[j])
			}
		}
		if sdk.Timestamp != r.Sequence.Timestamp {
			t.Errorf("record %d: SDK %d, ours %d", i, sdk.Timestamp, r.Sequence.Timestamp)
		}
	}
}

// FuzzDecodePage: no body makes the decoder panic, every refusal has an offset,
// and what is taken as a page is one for protobuf too, with as many records. The plain
// decoder gives the same messages as the general one.
func FuzzDecodePage(f *testing.F) {
	more := false
	f.Add(wirePage("next", &more, fullPage()...))
	f.Add(wirePage("finished", nil))
	f.Add([]byte{})
	f.Add([]byte{0x0a, 0x02, 0x08, 0x01, 0x12, 0x01, 'n'})
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := testDecoder().decode(body)
		if err != nil {
			wantPageError(t, "fuzzed", err, len(body))
			return
		}
		var w protocol.ReadRecordsResponse
		if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(body, protoadapt.MessageV2Of(&w)); err != nil {
			t.Skip("protobuf checks more than is needed: ", err)
		}
		if len(w.Records) != len(p.rows) || len(p.keys) != len(p.rows) || w.GetNextToken() != p.next {
			t.Errorf("protobuf reads %d records and the token %q, the decoder %d and %q", len(w.Records), w.GetNextToken(), len(p.rows), p.next)
		}
		for i := range p.rows {
			wantPlain(t, p, i)
		}
	})
}

// benchWire is a number of records with a number of columns of 20 bytes.
func benchWire(records, columns int) (wire []*protocol.Record) {
	for i := range records {
		row := &plainbuffer.Row{
			PrimaryKey:  []plainbuffer.Cell{wireCell("id", plainbuffer.IntegerValue(int64(i)), 0)},
			HasSequence: true, Sequence: plainbuffer.Sequence{Timestamp: 1700000000000000 + int64(i)},
		}
		for c := range columns {
			row.Cells = append(row.Cells, wireCell(fmt.Sprintf("column_%d", c), plainbuffer.StringValue("twenty bytes of text"), 1700000000000))
		}
		wire = append(wire, wireRecord(protocol.ActionType_PUT_ROW, row, nil))
	}
	return wire
}

func BenchmarkDecodePage(b *testing.B) {
	const records = 1000
	body := wirePage("next", nil, benchWire(records, 5)...)
	d := testDecoder()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	n := 0
	block := recordDecoder{block: blockCells}
	for b.Loop() {
		p, err := d.decode(body)
		if err != nil {
			b.Fatal(err)
		}
		for i := range p.rows {
			var r ots.Record
			block.decode(p, i, &r)
		}
		n += records
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/record")
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "records/s")
}
