package strictyaml_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/router/internal/strictyaml"
)

// shop has a field of each kind and each tag.
type shop struct {
	Name    string           `yaml:"name" required:"true"`
	Shelves map[string]shelf `yaml:"shelves" required:"true"`
	Door    *door            `yaml:"door"`
	Kind    string           `yaml:"kind" alias:"type" enum:"books,music"`
	Key     string           `yaml:"key" secret:"true"`

	note string // not a key
}

type shelf struct {
	Size   int64         `yaml:"size" unit:"bytes" min:"1" default:"1MiB"`
	Rows   int           `yaml:"rows" min:"2"`
	Wait   time.Duration `yaml:"wait" min:"1s" zero:"never"`
	Open   bool          `yaml:"open" zero:"Closed"`
	Closed bool          `yaml:"-"`
}

type door struct {
	Since time.Time `yaml:"since"`
}

// environment has two variables.
func environment(name string) (string, bool) {
	value, ok := map[string]string{"KEY": "hush", "ROWS": "7"}[name]
	return value, ok
}

func TestRead_fills_any_struct(t *testing.T) {
	got, doc := strictyaml.Read[shop]("shop.yaml", []byte(`x-shelf: &shelf {size: 2KiB, wait: 0}
name: corner
type: books
key: ${KEY}
door: {since: 2026-01-31T00:00:00Z}
shelves:
  upper: {<<: *shelf, rows: "${ROWS}", open: false}
  lower: {size: 3, rows: 2, wait: 90}
`), environment)
	want := shop{
		Name: "corner", Kind: "books", Key: "hush", Door: &door{Since: time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)},
		Shelves: map[string]shelf{
			"upper": {Size: 2 << 10, Rows: 7, Wait: strictyaml.Off, Closed: true},
			"lower": {Size: 3, Rows: 2, Wait: 90 * time.Second},
		},
	}
	if len(doc.Faults()) != 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v", got, doc.Faults())
	}
	if doc.File() != "shop.yaml" || doc.Line("shelves.upper") != 7 || doc.Line("shelves.upper.none") != 7 || doc.Line("kind") != 3 {
		t.Errorf("shelves.upper is on line %d, kind on line %d", doc.Line("shelves.upper"), doc.Line("kind"))
	}
	if shown := doc.Show("key", got.Key); strings.Contains(shown, "hush") || doc.Show("name", got.Name) != `"corner"` {
		t.Errorf("the key is shown as %s", shown)
	}
	if faults := strictyaml.Check(got); len(faults) != 0 {
		t.Errorf("Check finds %v", faults)
	}
	if redacted := strictyaml.Redacted(got); redacted.Key != "REDACTED" || redacted.Name != "corner" || got.Key != "hush" {
		t.Errorf("redacted %+v", redacted)
	}
}

func TestRead_reports_all_faults_with_their_lines(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"", `0 : the file is empty; it needs name and shelves`},
		{"name: a\n---\nname: b\n", `2 : a second document begins here; put everything into one`},
		{"name: [a\n", `1 : not valid YAML: did not find expected ',' or ']'`},
		{`nme: a
type: toys
key: {a: b}
door:
shelves:
  upper: {size: 1MB, rows: 1, wait: 500ms}
`, `1 nme: unknown key; did you mean "name"?
2 type: is "toys"; possible values are: books, music
3 key: is a mapping; it must be a text
4 door: is empty; fill it in or leave it out
6 shelves.upper.rows: is "1"; it must be at least 2
6 shelves.upper.size: is "1MB"; it must be a number of bytes such as 65536, 512KiB or 64MiB
6 shelves.upper.wait: is "500ms"; it must be at least 1s`},
	} {
		_, doc := strictyaml.Read[shop]("shop.yaml", []byte(c.file), environment)
		if got := text(doc.Faults()); got != c.want {
			t.Errorf("of\n%sit finds\n%s\nnot\n%s", c.file, got, c.want)
		}
		for _, f := range doc.Faults() {
			if !doc.Faulty(f.Path) {
				t.Errorf("%q is not faulty", f.Path)
			}
		}
	}
}

func TestCheck_finds_in_code_what_Read_finds_in_a_file(t *testing.T) {
	faults := strictyaml.Check(shop{Kind: "toys", Shelves: map[string]shelf{"a.b": {Size: -1, Rows: 1, Wait: time.Millisecond}}, note: "x"})
	const want = `0 kind: is toys; possible values are: books, music
0 name: is missing
0 shelves."a.b".rows: is 1; it must be at least 2
0 shelves."a.b".size: is -1; it must be at least 1
0 shelves."a.b".wait: is 1ms; it must be at least 1s`
	if got := text(faults); got != want {
		t.Errorf("it finds\n%s\nnot\n%s", got, want)
	}
	if got := text(strictyaml.Check(shop{Name: "a"})); got != "0 shelves: is missing or empty; at least one is needed" {
		t.Errorf("it finds\n%s", got)
	}
}

func TestDocument_of_a_struct_made_in_code(t *testing.T) {
	var doc *strictyaml.Document
	if doc.File() != "" || doc.Line("name") != 0 || doc.Show("name", "a") != `"a"` {
		t.Error("a nil Document has a file, lines or templates")
	}
}

// text returns the faults in the order of their lines and paths.
func text(faults []strictyaml.Fault) string {
	lines := make([]string, len(faults))
	for i, f := range faults {
		lines[i] = fmt.Sprintf("%d %s: %s", f.Line, f.Path, f.Text)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
