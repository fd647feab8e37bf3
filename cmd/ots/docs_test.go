package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/cmd/ots/internal/expression"
)

// page returns docs/ots.md.
func page(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "ots.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDocumentation_has_every_command(t *testing.T) {
	text := page(t)
	for _, path := range commandPaths(t, newRoot(), nil) {
		if len(path) > 0 && path[0] != "help" && !strings.Contains(text, "`ots "+path[0]) && !strings.Contains(text, "`"+path[0]+"`") {
			t.Errorf("docs/ots.md does not name ots %s", path[0])
		}
		if len(path) == 2 && path[0] != "completion" && !strings.Contains(text, "`"+path[1]+"`") && !strings.Contains(text, "`ots "+strings.Join(path, " ")) {
			t.Errorf("docs/ots.md does not name ots %s", strings.Join(path, " "))
		}
	}
}

func TestDocumentation_has_the_names_of_expressions(t *testing.T) {
	section := page(t)
	section = section[strings.Index(section, "### Expressions"):]
	section = section[:strings.Index(section, "\n## ")]
	for _, field := range reflect.VisibleFields(reflect.TypeFor[expression.Env]()) {
		name := field.Tag.Get("expr")
		if !strings.Contains(section, "`"+name+"`") || !slices.Contains(regexp.MustCompile(`\w+`).FindAllString(expression.Names, -1), name) {
			t.Errorf("%s is not among the documented names", name)
		}
	}
}

func TestDocumentation_shows_profiles_that_can_be_read(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```yaml\n(default: .*?)```").FindStringSubmatch(page(t))
	if blocks == nil {
		t.Fatal("docs/ots.md has no file of profiles")
	}
	file, err := readProfiles(profilesIn(t, 0o600, blocks[1]))
	if err != nil || file.Default != "test" || file.Profiles["prod"].Region == "" {
		t.Errorf("%v: %v", file, err)
	}
}
