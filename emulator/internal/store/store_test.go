package store

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// clock is a service clock that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// schema has the keys id (integer) and sub (string).
func schema(name string) Schema {
	return Schema{
		Name:    name,
		Key:     []KeyColumn{{Name: "id", Kind: plainbuffer.Integer}, {Name: "sub", Kind: plainbuffer.String}},
		Options: Options{TTL: -1, MaxVersions: 3, Deviation: 86400, AllowUpdate: true},
	}
}

func create(t *testing.T, s *Store, sc Schema, spec StreamSpec, splits ...int64) *Table {
	t.Helper()
	var values []plainbuffer.Value
	for _, n := range splits {
		values = append(values, plainbuffer.IntegerValue(n))
	}
	if err := s.CreateTable(sc, spec, values); err != nil {
		t.Fatal(err)
	}
	table, err := s.Table(sc.Name)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func pk(id int64, sub string) []plainbuffer.Cell {
	return []plainbuffer.Cell{
		{Name: "id", HasValue: true, Value: plainbuffer.IntegerValue(id)},
		{Name: "sub", HasValue: true, Value: plainbuffer.StringValue(sub)},
	}
}

func text(name, value string) plainbuffer.Cell {
	return plainbuffer.Cell{Name: name, HasValue: true, Value: plainbuffer.StringValue(value)}
}

func number(name string, n int64) plainbuffer.Cell {
	return plainbuffer.Cell{Name: name, HasValue: true, Value: plainbuffer.IntegerValue(n)}
}

func at(c plainbuffer.Cell, millis int64) plainbuffer.Cell {
	c.HasTimestamp, c.Timestamp = true, millis
	return c
}

func change(a Action, id int64, cells ...plainbuffer.Cell) *Change {
	return &Change{Action: a, Row: &plainbuffer.Row{PrimaryKey: pk(id, "s"), Cells: cells}}
}

// apply makes changes that must succeed.
func apply(t *testing.T, table *Table, changes ...*Change) {
	t.Helper()
	if err := table.Apply(changes, false); err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if c.Err != nil {
			t.Fatal(c.Err)
		}
	}
}

// row returns a row's cells as text, "-" if it does not exist.
func row(t *testing.T, table *Table, id int64) string {
	t.Helper()
	var r plainbuffer.Row
	ok, err := table.Get(pk(id, "s"), &r)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return "-"
	}
	return cellsText(r.Cells)
}

func cellsText(cells []plainbuffer.Cell) string {
	out := ""
	for _, c := range cells {
		switch {
		case c.Op == plainbuffer.DeleteAllVersion:
			out += fmt.Sprintf("[%s gone]", c.Name)
		case c.Op == plainbuffer.DeleteOneVersion:
			out += fmt.Sprintf("[%s without %d]", c.Name, c.Timestamp)
		case c.Value.Kind() == plainbuffer.Integer:
			out += fmt.Sprintf("[%s=%d]", c.Name, c.Value.Integer())
		default:
			out += fmt.Sprintf("[%s=%s]", c.Name, c.Value.Str())
		}
	}
	return out
}

func code(err error) string {
	var e *wire.Error
	if !errors.As(err, &e) {
		return fmt.Sprint(err)
	}
	return e.Code
}

// record is a decoded log or base record.
type record struct {
	action protocol.ActionType
	row    plainbuffer.Row
	origin *plainbuffer.Row
}

func (r record) String() string {
	s := fmt.Sprintf("%s %d %s", r.action, r.row.PrimaryKey[0].Value.Integer(), cellsText(r.row.Cells))
	if r.origin != nil {
		s += " was " + cellsText(r.origin.Cells)
	}
	return s
}

func decodeRecords(t fataler, data []byte) []record {
	t.Helper()
	// next_token is required, and not the source's responsibility.
	var resp protocol.ReadRecordsResponse
	if err := proto.Unmarshal(append(data[:len(data):len(data)], 2<<3|2, 0), protoadapt.MessageV2Of(&resp)); err != nil {
		t.Fatal(err)
	}
	var records []record
	for _, msg := range resp.GetRecords() {
		r := record{action: msg.GetActionType()}
		if err := plainbuffer.Decode(msg.GetRecord(), &r.row); err != nil {
			t.Fatal(err)
		}
		if msg.OriginRecord != nil {
			r.origin = new(plainbuffer.Row)
			if err := plainbuffer.Decode(msg.GetOriginRecord(), r.origin); err != nil {
				t.Fatal(err)
			}
		}
		records = append(records, r)
	}
	return records
}

// log returns all records of a shard.
func log(t *testing.T, s *Store, table, shard string) []record {
	t.Helper()
	page, err := s.ReadShard(nil, tableID(t, s, table), shard, 0, time.Time{}, 1<<30, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	records := decodeRecords(t, page.Data)
	if len(records) != page.Records {
		t.Fatalf("the page reports %d records and holds %d", page.Records, len(records))
	}
	return records
}

func shards(t *testing.T, s *Store, table string) []tunnels.Shard {
	t.Helper()
	list, err := s.Shards(tableID(t, s, table))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func expectText(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %s, want %s", what, got, want)
	}
}

func expectLog(t *testing.T, s *Store, table, shard string, want ...string) {
	t.Helper()
	records := log(t, s, table, shard)
	for i := range max(len(records), len(want)) {
		switch {
		case i >= len(records):
			t.Errorf("record %d is missing: %s", i, want[i])
		case i >= len(want):
			t.Errorf("record %d is unexpected: %s", i, records[i])
		case records[i].String() != want[i]:
			t.Errorf("record %d is %s, want %s", i, records[i], want[i])
		}
	}
}

// fataler is what a test and a rapid check have in common.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

// tableID returns the id by which a tunnels.Source identifies a table.
func tableID(t interface {
	Helper()
	Fatal(args ...any)
}, s *Store, name string) string {
	t.Helper()
	id, err := s.TableID(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
