package keypath_test

import (
	"testing"

	"github.com/watermill-ots/watermill-ots/router/internal/keypath"
)

func TestPaths_of_different_names_differ(t *testing.T) {
	names := []string{"a", "b", "a.b", `"a`, `a"`, `"a"`, `"a".b`, `a\`, "a\n", "a\\n", "é", "é.b", "\xff", "\\xff", `".`, `."`, "."}
	seen := make(map[string][2]string)
	for _, x := range names {
		for _, y := range names {
			path := keypath.Join("top", x, y)
			if other, twice := seen[path]; twice {
				t.Errorf("%q and %q have the path %s", [2]string{x, y}, other, path)
			}
			seen[path] = [2]string{x, y}
			if got, want := keypath.Parent(path), keypath.Join("top", x); got != want {
				t.Errorf("the parent of %s is %s, want %s", path, got, want)
			}
			if got := keypath.Parent(keypath.Parent(path)); got != "top" {
				t.Errorf("the grandparent of %s is %s", path, got)
			}
		}
	}
	if got := keypath.Parent("top"); got != "" {
		t.Errorf("the parent of top is %q", got)
	}
	if got := keypath.Join("tunnels", "\u202e"); got != `tunnels."\u202e"` {
		t.Errorf("a name that turns the text around stands in its path as %q", got)
	}
	if got := keypath.Join("tunnels", "é"); got != "tunnels.é" {
		t.Errorf("a plain name stands in its path as %s", got)
	}
}
