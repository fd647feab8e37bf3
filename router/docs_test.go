package router_test

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/router"
)

const docsFile = "../docs/config.md"

// unitOf is what values of a key are, for people.
func unitOf(k key) string {
	switch {
	case k.typ == reflect.TypeFor[time.Duration]():
		return "duration"
	case k.typ == reflect.TypeFor[time.Time]():
		return "time"
	case k.tag.Get("unit") != "":
		return k.tag.Get("unit")
	case k.tag.Get("enum") != "":
		return strings.ReplaceAll(k.tag.Get("enum"), ",", ", ")
	}
	switch k.typ.Kind() {
	case reflect.Map:
		return "mapping of names to [" + k.typ.Elem().Name() + "](#" + strings.ToLower(k.typ.Elem().Name()) + ")"
	case reflect.Pointer:
		return "[" + k.typ.Elem().Name() + "](#" + strings.ToLower(k.typ.Elem().Name()) + ")"
	case reflect.Struct:
		return "[" + k.typ.Name() + "](#" + strings.ToLower(k.typ.Name()) + ")"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "number"
	}
	return "text"
}

// table is the table of a section as docs/config.md has it.
func (s section) table() string {
	var b strings.Builder
	b.WriteString("| key | value | default | example | meaning |\n|---|---|---|---|---|\n")
	for _, k := range s.keys {
		name, def, example := "`"+k.name+"`", k.tag.Get("default"), ""
		if k.alias != "" {
			name += " or `" + k.alias + "`"
		}
		switch {
		case k.tag.Get("required") != "":
			def = "**required**"
		case def == "":
			def = "none"
		}
		if k.example != "" {
			example = "`" + k.example + "`"
		}
		unit := unitOf(k)
		if least := k.tag.Get("min"); least != "" {
			unit += ", at least " + least
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, unit, def, example, k.doc)
	}
	return b.String()
}

var tableMarks = regexp.MustCompile(`(?s)<!-- keys of (\w+) -->\n.*?<!-- end -->`)

func TestDocs_have_every_key(t *testing.T) {
	text, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	missing := make(map[string]section)
	for _, s := range sections(t) {
		missing[s.typ.Name()] = s
	}
	want := tableMarks.ReplaceAllStringFunc(string(text), func(old string) string {
		name := tableMarks.FindStringSubmatch(old)[1]
		s, ok := missing[name]
		if !ok {
			t.Errorf("docs/config.md has a table for %s, which does not exist or comes twice", name)
			return old
		}
		delete(missing, name)
		return "<!-- keys of " + name + " -->\n" + s.table() + "<!-- end -->"
	})
	for name := range missing {
		t.Errorf("docs/config.md has no table for %s", name)
	}
	if *update {
		if err := os.WriteFile(docsFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(text) != want {
		t.Error("docs/config.md is out of date; run: go test ./router -run Docs -update")
	}
}

// yamlBlock matches a whole configuration in a document.
var yamlBlock = regexp.MustCompile("(?s)```yaml\n(# yaml-language-server.*?)```")

// Examples in the documents are read like any file.
func TestDocs_examples_are_valid(t *testing.T) {
	for _, name := range []string{"OTS_ID", "OTS_SECRET"} {
		t.Setenv(name, "x")
	}
	for _, file := range []string{docsFile, "../docs/from-broadway.md", "../docs/backfill.md", "../docs/gaps.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		blocks := yamlBlock.FindAllSubmatch(text, -1)
		if len(blocks) == 0 {
			t.Errorf("%s has no example", file)
		}
		for _, b := range blocks {
			if _, err := router.Parse(file, b[1]); err != nil {
				t.Errorf("an example in %s: %v", file, err)
			}
		}
	}
}
