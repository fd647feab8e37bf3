package letters

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/ots"
)

// A letter in a table holds any row that the service can hold, and what an
// Unmarshaler may have made of it.
func TestTable_holds_any_row(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes the largest rows; -short leaves it out")
	}
	b := newBed(t, func(*message.Message) error { return nil })
	with := func(l *Letter, change func(*Letter)) *Letter {
		change(l)
		return l
	}
	var wide, fat, text []ots.Cell
	for i := range uint64(1024) {
		wide = append(wide, blob(i, 2000))
	}
	for i := range uint64(4) {
		fat = append(fat, blob(i, 2<<20))
		text = append(text, ots.Cell{Name: "t", Value: ots.StringValue(strings.Repeat("\xff\x00é", 300<<10)), Type: ots.CellPut})
	}
	letters := map[string]*Letter{
		"small":                   letterOfRow("small", 1),
		"binary of 2 MiB":         letterOfRow("binary", 1, blob(1, 2<<20)),
		"1024 columns":            letterOfRow("wide", 1, wide...),
		"base data of 8 MiB":      with(letterOfRow("fat", 0, fat...), func(l *Letter) { l.Payload = noise(9, 11<<20) }),
		"text that is not UTF-8":  letterOfRow("text", 1, text...),
		"without a record":        with(letterOfRow("bare", 0), func(l *Letter) { l.Record = nil }),
		"without a payload":       with(letterOfRow("empty", 1), func(l *Letter) { l.Payload = nil }),
		"without metadata":        with(letterOfRow("plain", 1), func(l *Letter) { l.Metadata = nil }),
		"payload as a column has": with(letterOfRow("edge", 1), func(l *Letter) { l.Payload = noise(3, maxSection) }),
		"payload one byte more":   with(letterOfRow("over", 1), func(l *Letter) { l.Payload = noise(3, maxSection+1) }),
		"metadata of 3 MiB":       with(letterOfRow("talk", 1), func(l *Letter) { l.Metadata = map[string]string{"t": strings.Repeat("x", 3<<20)} }),
		"all below a column's size": with(letterOfRow("sum", 1, blob(5, 1400<<10)), func(l *Letter) {
			l.Payload, l.Metadata = noise(4, 1900<<10), map[string]string{"t": strings.Repeat("x", 1<<20)}
		}),
		"metadata of any bytes": with(letterOfRow("bytes", 1), func(l *Letter) {
			l.Metadata = map[string]string{"\xff": "x", "y": "\xfe", "z": "ok"}
		}),
		"UUID of its own":           with(letterOfRow("own", 1), func(l *Letter) { l.ID = "order-17" }),
		"UUID longer than a key":    with(letterOfRow("long", 0), func(l *Letter) { l.ID, l.Identity, l.Record = strings.Repeat("u", 5000), "", nil }),
		"UUID longer than a column": with(letterOfRow("huge", 0), func(l *Letter) { l.ID, l.Identity, l.Record = strings.Repeat("u", 3<<20), "", nil }),
		"UUID of any bytes":         with(letterOfRow("odd", 0), func(l *Letter) { l.ID, l.Identity, l.Record = "\xff\x00/", "", nil }),
		"key text of 100 KiB":       with(letterOfRow("key", 0), func(l *Letter) { l.Key, l.Record = strings.Repeat("k", 100<<10), nil }),
	}
	byID := make(map[string]*Letter)
	for _, l := range letters {
		byID[l.identity()] = l
		b.put(t, l)
		b.put(t, l) // once more is one letter
	}
	got := b.letters(t)
	if len(got) != len(letters) {
		t.Errorf("%d letters were written, %d are there", len(letters), len(got))
	}
	for _, k := range got {
		if want := byID[k.identity()]; want != nil {
			same(t, k, want)
		} else {
			t.Errorf("there is a letter %.40q that was not written", k.identity())
		}
	}
}

// A small letter can be read in the table by people and other programs.
func TestTable_small_letters_are_readable(t *testing.T) {
	b := newBed(t, func(*message.Message) error { return nil })
	l := letterOfRow("a", 1)
	l.Error = strings.Repeat("é", maxErrorText) + "\xff"
	b.put(t, l)
	resp, err := b.Client.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: &tablestore.SingleRowQueryCriteria{TableName: "dead", PrimaryKey: rowKey("numbers", l.Sequence, l.ID), MaxVersion: 1}})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]any)
	for _, c := range resp.Columns {
		got[c.ColumnName] = c.Value
	}
	record, err := EncodeRecord(l.Record)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"table": l.Table, "tunnel": l.Tunnel, "channel": "c", "type": "put", "key": `["a"]`, "error": strings.Repeat("é", maxErrorText/2),
		"attempts": int64(5), "failed_at": l.FailedAt.UnixMilli(), "metadata": `{"a":"b"}`, "payload": []byte("{}"), "record": record,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the row has %v, not %v", got, want)
	}
	if _, parts := b.rows(t); len(parts) != 0 {
		t.Errorf("a small letter has parts %v", parts)
	}
}

// Wherever the writing of a letter is cut off, the letter is complete or absent.
func TestTable_a_cut_write_leaves_no_half_letter(t *testing.T) {
	t.Parallel() // it waits in real time
	b := newBed(t, func(*message.Message) error { return nil })
	l := letterOfRow("a", 1, blob(1, 3<<20))
	complete := 0
	for n := 0; complete == 0; n++ {
		table, w := b.open(t)
		w.cutAfter(n)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		err := table.Put(ctx, l)
		cancel()
		switch got := b.letters(t); {
		case err != nil && !errors.Is(err, errCut):
			t.Fatal(err)
		case err == nil && len(got) == 1:
			same(t, got[0], l)
			complete = n
		case err == nil || len(got) != 0:
			t.Fatalf("after %d requests %d letters are there, and put returned %v", n, len(got), err)
		}
	}
	if complete < 4 {
		t.Errorf("the letter was written by %d requests: it has no parts to be cut off between", complete)
	}
}

// A letter with a part that could not be written is absent, and so are its other parts. It is
// complete when it is written again.
func TestTable_a_part_that_fails_leaves_nothing(t *testing.T) {
	t.Parallel() // it waits in real time
	b := newBed(t, func(*message.Message) error { return nil })
	l := letterOfRow("a", 1, blob(1, 3<<20))
	for n := range 4 { // the parts
		table, w := b.open(t)
		w.fail(n)
		if err := table.Put(context.Background(), l); !errors.Is(err, errCut) {
			t.Fatalf("after a failure of part %d put returned %v", n, err)
		}
		if letters, parts := b.rows(t); len(letters)+len(parts) != 0 {
			t.Errorf("after a failure of part %d letters %v and parts %v are there", n, letters, parts)
		}
	}
	b.put(t, l)
	if got := b.letters(t); len(got) == 1 {
		same(t, got[0], l)
	} else {
		t.Errorf("%d letters are there", len(got))
	}
}

// Parts that a crash left are deleted once they are old; the parts of letters stay.
func TestTable_deletes_parts_of_no_letter(t *testing.T) {
	b := newBed(t, func(*message.Message) error { return nil })
	ctx := context.Background()
	l := letterOfRow("a", 1, blob(1, 3<<20))
	l.Identity = "with/slashes/00"
	b.put(t, l)
	b.put(t, l) // leaves the parts of the first one
	crashed := letterOfRow("b", 1, blob(2, 3<<20))
	_, s, err := sectionsOf(crashed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.table.writeParts(ctx, crashed, s); err != nil {
		t.Fatal(err)
	}
	_, parts := b.rows(t)
	whole := len(parts) / 3
	if err := b.table.deleteOrphans(ctx, "numbers"); err != nil {
		t.Fatal(err)
	}
	if _, left := b.rows(t); len(left) != len(parts) {
		t.Errorf("parts that have just been written were deleted: %d of %d are left", len(left), len(parts))
	}
	for _, id := range parts {
		b.set(t, rowKey("numbers", partsSequence, id), map[string]any{columnWrittenAt: time.Now().Add(-2 * orphanAge).UnixMilli()})
	}
	if err := b.table.deleteOrphans(ctx, "numbers"); err != nil {
		t.Fatal(err)
	}
	if _, left := b.rows(t); len(left) != whole {
		t.Errorf("%d of %d parts are left, the letter has %d", len(left), len(parts), whole)
	}
	if got := b.letters(t); len(got) == 1 {
		same(t, got[0], l)
	} else {
		t.Errorf("%d letters are left", len(got))
	}
}
