package publisher

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestDocs_name_every_field_of_the_configuration(t *testing.T) {
	doc, err := os.ReadFile("../docs/publisher.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(doc), "\n## Configuration\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		if f.Type != reflect.TypeFor[TableSpec]() {
			names = append(names, f.Name)
			continue
		}
		for _, of := range reflect.VisibleFields(f.Type) {
			names = append(names, f.Name+"."+of.Name)
		}
	}
	for _, name := range names {
		if !strings.Contains(table, "`"+name+"`") {
			t.Errorf("the table of the configuration lacks %s", name)
		}
	}
	defaults := reflect.ValueOf(Columns{}.withDefaults())
	for i := range defaults.NumField() {
		if name := defaults.Field(i).String(); !strings.Contains(string(doc), "\n| `"+name+"` | ") || !strings.Contains(table, "`"+name+"`") {
			t.Errorf("the column %s is not documented", name)
		}
	}
}
