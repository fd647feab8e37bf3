package emulator_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
)

const orders = `
tables:
  orders:
    key: {pk: string, id: integer}
    split_at: [h, p]
    rows:
      - {pk: a, id: 1, amount: 250, rate: 0.5, paid: true, note: "7", day: 2026-11-30, raw: !!binary aGk=}
      - &b {pk: b, id: 2, amount: -9223372036854775808}
      - *b
  numbered:
    key:
      pk: string
      id: auto_increment
    rows: [{pk: a}, {pk: a}]
  empty:
    key: {id: binary}
`

func TestLoadSeed_makes_the_tables_and_rows_of_the_file(t *testing.T) {
	e := start(t, emulator.Options{})
	if err := e.LoadSeed("seed.yaml", []byte(orders)); err != nil {
		t.Fatal(err)
	}
	s := &sdk{tablestore.NewClient(e.Endpoint(), "inst", "ak", "sk"), t}
	expect(t, "a row", s.get("a", 1), "amount=250 day=2026-11-30 note=7 paid=true rate=0.5 raw=[104 105]")
	expect(t, "a row with the smallest integer", s.get("b", 2), "amount=-9223372036854775808")
	d, err := s.DescribeTable(&tablestore.DescribeTableRequest{TableName: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "key columns", len(d.TableMeta.SchemaEntry), 2)
	expect(t, "first key column", *d.TableMeta.SchemaEntry[0].Name, "pk")
	tables, err := s.ListTable()
	if err != nil {
		t.Fatal(err)
	}
	expect(t, "tables", fmt.Sprint(tables.TableNames), "[empty numbered orders]")
	if _, _, channels := newRaw(t, e).openTunnel("orders", 1); len(channels) != 3 {
		t.Errorf("split_at with two values gives %d channels", len(channels))
	}
}

func TestLoadSeed_leaves_tables_that_exist_as_they_are(t *testing.T) {
	opts := keys
	opts.DataDir = t.TempDir()
	e := start(t, opts)
	if err := e.LoadSeed("seed.yaml", []byte(orders)); err != nil {
		t.Fatal(err)
	}
	if err := e.Put("orders", emulator.Row{"pk": "a", "id": 1, "amount": 7}); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = start(t, opts)
	if err := e.LoadSeed("seed.yaml", []byte(orders)); err != nil {
		t.Fatal(err)
	}
	s := &sdk{tablestore.NewClient(e.Endpoint(), "inst", "ak", "sk"), t}
	expect(t, "the changed row", s.get("a", 1), "amount=7")
}

func TestLoadSeed_names_all_that_is_wrong_with_its_line_and_writes_nothing(t *testing.T) {
	for _, v := range []struct {
		what, file string
		want       []string
	}{
		{"an empty file", "", []string{"seed.yaml: the file is empty"}},
		{"comments only", "# nothing\n", []string{"seed.yaml: the file is empty"}},
		{"a syntax error", "tables: {", []string{"seed.yaml: not valid YAML: line 1"}},
		{"two documents", "tables: {}\n---\ntables: {}\n", []string{"seed.yaml:2: a second document"}},
		{"a list at the top", "- a", []string{"seed.yaml:1: is a list; it must be a mapping"}},
		{"unknown keys", "table:\n  a:\n", []string{`seed.yaml:1: table: unknown key; the keys here are: tables`}},
		{"unknown keys of a table", "tables:\n  a:\n    key: {id: integer}\n    row: []\n    partitions: 1\n", []string{
			"seed.yaml:4: tables.a.row: unknown key; the keys here are: key, rows, split_at", "seed.yaml:5: tables.a.partitions: unknown key"}},
		{"a table twice", "tables:\n  a: {key: {id: integer}}\n  a: {key: {id: integer}}\n", []string{"seed.yaml:3: tables.a: is given twice, first on line 2"}},
		{"a table without a key", "tables:\n  a: {rows: []}\n", []string{"seed.yaml:2: tables.a: has no key"}},
		{"an unknown type", "tables:\n  a: {key: {id: int}}\n", []string{`seed.yaml:2: tables.a.key.id: is "int"; the types of key columns are: auto_increment, binary, integer, string`}},
		{"a row without its key", rows("{n: 1}"), []string{`seed.yaml:5: tables.a.rows[0]: has no value for the key column "id"`}},
		{"a key of another type", rows("{id: x}"), []string{`seed.yaml:5: tables.a.rows[0].id: is "x", but the key column is of the type integer`}},
		{"a float as a key", rows("{id: 1.5}"), []string{`is "1.5", but the key column is of the type integer`}},
		{"a number of auto_increment", strings.Replace(rows("{id: 1, n: 2}"), "id: integer", "id: integer, n: auto_increment", 1), []string{"tables.a.rows[0].n: is given"}},
		{"a number for a string", strings.Replace(rows("{id: 1}"), "integer", "string", 1), []string{"seed.yaml:5: tables.a.rows[0].id: is \"1\", but the key column is of the type string; put it in quotes"}},
		{"text for a binary", strings.Replace(rows("{id: x}"), "integer", "binary", 1), []string{"write !!binary"}},
		{"nested values", rows("{id: 1, c: [1]}", "{id: 2, c: {d: 1}}"), []string{"seed.yaml:5: tables.a.rows[0].c: is a list; a column holds one value", "seed.yaml:6: tables.a.rows[1].c: is a mapping"}},
		{"no value", rows("{id: 1, c: }"), []string{"tables.a.rows[0].c: has no value; leave the column out"}},
		{"an integer that is too large", rows("{id: 9223372036854775808}"), []string{`seed.yaml:5: tables.a.rows[0].id: is "9223372036854775808", which is not a value of its type`}},
		{"a tag", rows("{id: 1, c: !secret x}"), []string{"tables.a.rows[0].c: has the tag !secret"}},
		{"bad base64", rows("{id: 1, c: !!binary '*'}"), []string{"tables.a.rows[0].c: is \"*\", which is not a value"}},
		{"a merge", rows("{id: 1, <<: {c: 1}}"), []string{"has a key that is not a name"}},
		{"rows that are a mapping", "tables:\n  a:\n    key: {id: integer}\n    rows: {id: 1}\n", []string{"seed.yaml:4: tables.a.rows: is a mapping; it must be a list"}},
		{"a name that the service refuses", "tables:\n  1st: {key: {id: integer}}\n", []string{"seed.yaml:2: creating table 1st: OTSParameterInvalid"}},
		{"a column that the service refuses", "tables:\n  b: {key: {id: integer}}\n" + strings.TrimPrefix(rows("{id: 1}", "{id: 2, 1st: 2}"), "tables:\n"), []string{"seed.yaml:7: putting a row into table a: row {id: 2}: OTSParameterInvalid"}},
		{"a split of another type", "tables:\n  a: {key: {id: integer}, split_at: [x]}\n", []string{"seed.yaml:2: splitting table a"}},
	} {
		e := start(t, emulator.Options{})
		err := e.LoadSeed("seed.yaml", []byte(v.file))
		if !errors.Is(err, emulator.ErrInvalidSeed) {
			t.Errorf("%s: the error is %v", v.what, err)
			continue
		}
		for _, want := range v.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: the error does not say %q:\n%v", v.what, want, err)
			}
		}
		tables, err := tablestore.NewClient(e.Endpoint(), "inst", "ak", "sk").ListTable()
		if err != nil || len(tables.TableNames) > 0 {
			t.Errorf("%s: tables are left: %v %v", v.what, tables, err)
		}
	}
}

// rows is a seed file with a table a of the key id and these rows, from line 5 on.
func rows(rows ...string) string {
	return "tables:\n  a:\n    key: {id: integer}\n    rows:\n    - " + strings.Join(rows, "\n    - ") + "\n"
}

func TestDocumentation_has_a_seed_file_that_is_taken(t *testing.T) {
	doc, err := os.ReadFile("../docs/emulator.md")
	if err != nil {
		t.Fatal(err)
	}
	_, file, found := strings.Cut(string(doc), "```yaml\ntables:\n")
	file, _, closed := strings.Cut("tables:\n"+file, "```\n")
	if !found || !closed {
		t.Fatal("the documentation has no seed file")
	}
	e := start(t, emulator.Options{})
	if err := e.LoadSeed("tables.yaml", []byte(file)); err != nil {
		t.Fatal(err)
	}
	if _, _, channels := newRaw(t, e).openTunnel("orders", 1); len(channels) != 3 {
		t.Errorf("the comment says three channels, not %d", len(channels))
	}
}
