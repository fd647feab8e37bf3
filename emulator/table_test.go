package emulator_test

import (
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// tableBed is an emulator with a table "orders" created by CreateTable, and the
// official SDK, which reads what was written.
func tableBed(t testing.TB, last emulator.KeyType) (*emulator.Emulator, *sdk) {
	t.Helper()
	e := start(t, keys)
	if err := e.CreateTable("orders", emulator.Key("pk", emulator.String), emulator.Key("id", last)); err != nil {
		t.Fatal(err)
	}
	return e, &sdk{tablestore.NewClient(e.Endpoint(), "inst", "ak", "sk"), t}
}

func TestCreateTable_makes_the_table_that_the_SDK_describes(t *testing.T) {
	_, s := tableBed(t, emulator.AutoIncrement)
	d, err := s.DescribeTable(&tablestore.DescribeTableRequest{TableName: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	var columns []string
	for _, c := range d.TableMeta.SchemaEntry {
		columns = append(columns, *c.Name)
	}
	expect(t, "key columns, in the order of the options", strings.Join(columns, " "), "pk id")
	expect(t, "first type", *d.TableMeta.SchemaEntry[0].Type, tablestore.PrimaryKeyType_STRING)
	expect(t, "second option", *d.TableMeta.SchemaEntry[1].Option, tablestore.AUTO_INCREMENT)
	expect(t, "stream", d.StreamDetails.EnableStream, true)
	expect(t, "hours that the stream keeps a change", d.StreamDetails.ExpirationTime, 168)
	expect(t, "versions", d.TableOption.MaxVersion, 1)
	expect(t, "time to live", d.TableOption.TimeToAlive, -1)
}

func TestRows_that_a_line_writes_are_what_the_SDK_reads(t *testing.T) {
	e, s := tableBed(t, emulator.Integer)
	for _, step := range []struct {
		what  string
		write func(table string, rows ...emulator.Row) error
		row   emulator.Row
		want  string
	}{
		{"a put of each kind of value", e.Put, emulator.Row{"pk": "a", "id": 1, "f": 1.5, "s": "text", "b": []byte{7}, "t": true, "n": uint16(7)}, "b=[7] f=1.5 n=7 s=text t=true"},
		{"an update", e.Update, emulator.Row{"pk": "a", "id": int64(1), "s": "other"}, "b=[7] f=1.5 n=7 s=other t=true"},
		{"a put of the same row", e.Put, emulator.Row{"pk": "a", "id": int8(1), "n": -1}, "n=-1"},
		{"a deletion", e.Delete, emulator.Row{"pk": "a", "id": uint64(1)}, "-"},
	} {
		if err := step.write("orders", step.row); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		expect(t, step.what, s.get("a", 1), step.want)
	}
}

func TestPut_leaves_the_number_of_an_AutoIncrement_column_to_the_service(t *testing.T) {
	e, s := tableBed(t, emulator.AutoIncrement)
	if err := e.Put("orders", emulator.Row{"pk": "a"}, emulator.Row{"pk": "a"}); err != nil {
		t.Fatal(err)
	}
	resp, err := s.GetRange(&tablestore.GetRangeRequest{RangeRowQueryCriteria: &tablestore.RangeRowQueryCriteria{
		TableName: "orders", StartPrimaryKey: key("a", "min"), EndPrimaryKey: key("a", "max"), MaxVersion: 1, Direction: tablestore.FORWARD,
	}})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "rows", len(resp.Rows), 2)
}

// Rows written with a method are not requests: a test that injects a fault into
// PutRow or pauses the service can still prepare its data.
func TestPut_meets_no_fault_and_no_pause(t *testing.T) {
	e, s := tableBed(t, emulator.Integer)
	if err := e.Inject(emulator.Fault{Operation: "PutRow", Code: "OTSServerBusy", Times: -1}); err != nil {
		t.Fatal(err)
	}
	e.Pause()
	if err := e.Put("orders", emulator.Row{"pk": "a", "id": 1, "n": 1}); err != nil {
		t.Error(err)
	}
	e.Resume()
	expect(t, "the row", s.get("a", 1), "n=1")
	expect(t, "requests", e.Stats().Operations["PutRow"].Requests, 0)
}

func TestRows_that_are_refused_are_named_with_what_the_service_says(t *testing.T) {
	e, s := tableBed(t, emulator.Integer)
	row := emulator.Row{"pk": "a", "id": 1}
	with := func(name string, value any) emulator.Row { return emulator.Row{"pk": "a", "id": 1, name: value} }
	for _, v := range []struct {
		what string
		err  error
		want []string
	}{
		{"no such table", e.Put("order", row), []string{"putting a row into table order:", "OTSObjectNotExist"}},
		{"a key column is missing", e.Put("orders", emulator.Row{"pk": "a"}), []string{"table orders:", `row {pk: a}`, `no value for the key column "id"`}},
		{"a key of another type", e.Put("orders", emulator.Row{"pk": 7, "id": 1}), []string{"row {pk: 7, id: 1}", "Validate PK type fail. Input: VT_INTEGER, Meta: VT_STRING."}},
		{"a value of another type", e.Update("orders", with("c", []int{1})), []string{"updating a row of table orders:", `column "c" is a []int`}},
		{"no value", e.Put("orders", with("c", nil)), []string{`column "c" is a <nil>`}},
		{"an integer that is too large", e.Put("orders", with("c", uint64(1)<<63)), []string{`column "c" is 9223372036854775808`}},
		{"a name that is not allowed", e.Put("orders", with("1st", 1)), []string{"OTSParameterInvalid"}},
		{"columns outside the key", e.Delete("orders", with("c", 1)), []string{"deleting a row of table orders:", "row {pk: a, id: 1}", "OTSParameterInvalid"}},
		{"an existing table", e.CreateTable("orders", emulator.Key("id", emulator.Integer)), []string{"creating table orders:", "OTSObjectAlreadyExist"}},
		{"a table without a key", e.CreateTable("t"), []string{"creating table t:", "OTSParameterInvalid"}},
		{"an unknown type", e.CreateTable("t", emulator.Key("id", 9)), []string{`key column "id" has the unknown type KeyType(9)`}},
		{"a good row and a bad one", e.Put("orders", emulator.Row{"pk": "b", "id": 1, "n": 1}, emulator.Row{}), []string{"row {}"}},
	} {
		for _, want := range v.want {
			if v.err == nil || !strings.Contains(v.err.Error(), want) {
				t.Errorf("%s: the error does not say %q: %v", v.what, want, v.err)
			}
		}
	}
	expect(t, "the refused row", s.get("a", 1), "-")
	expect(t, "the row before a bad one", s.get("b", 1), "n=1")
}
