package docs

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/watermill-ots/watermill-ots/"

// ours returns the packages of the module that a program which imports pkg links.
func ours(t *testing.T, pkg string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", module+pkg).Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", pkg, err)
	}
	var deps []string
	for _, dep := range strings.Fields(string(out)) {
		if name, ok := strings.CutPrefix(dep, module); ok && name != pkg {
			deps = append(deps, name)
		}
	}
	return deps
}

// The publisher needs the table API only.
func TestPublisher_links_neither_the_tunnel_client_nor_the_worker(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", module+"publisher").Output()
	if err != nil {
		t.Fatalf("go list -deps: %v", err)
	}
	for _, dep := range strings.Fields(string(out)) {
		if strings.HasSuffix(dep, "aliyun-tablestore-go-sdk/tunnel") {
			t.Errorf("publisher links %s", dep)
		}
	}
}

func TestImports_go_one_way(t *testing.T) {
	for pkg, none := range map[string][]string{
		"ots":             {""}, // nothing of the module
		"ack":             {""},
		"internal/ledger": {""},
		"batching":        {"ots", "subscriber", "router", "publisher", "internal/ledger"},
		"subscriber":      {"batching", "router", "publisher", "metrics", "tracing", "health", "emulator"},
		"publisher":       {"subscriber", "internal/ledger", "batching", "router", "metrics", "tracing", "health", "emulator"},
		"router":          {"metrics", "tracing", "health", "emulator"},

		"router/internal/keypath":    {""},
		"router/internal/strictyaml": {"ots", "ack", "subscriber", "batching", "internal/service"},
		"router/internal/feed":       {"ots", "subscriber", "batching", "router"},
		"router/internal/letters":    {"subscriber", "batching", "router"},

		"metrics":  {"router", "emulator"},
		"tracing":  {"router", "emulator"},
		"health":   {"emulator"},
		"emulator": {"subscriber", "batching", "router", "publisher"},
	} {
		for _, dep := range ours(t, pkg) {
			if slices.ContainsFunc(none, func(n string) bool { return n == "" || dep == n || strings.HasPrefix(dep, n+"/") }) {
				t.Errorf("%s imports %s", pkg, dep)
			}
		}
	}
}
