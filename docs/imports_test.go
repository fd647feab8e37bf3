package docs

import (
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/watermill-ots/watermill-ots/"

// dependencies returns, for each of these packages of the module, the packages that a program
// which imports it links, itself included. It lists them all in one call of the go command.
func dependencies(t *testing.T, pkgs ...string) map[string][]string {
	t.Helper()
	args := []string{"list", "-f", "{{.ImportPath}} {{join .Deps \" \"}}"}
	for _, pkg := range pkgs {
		args = append(args, module+pkg)
	}
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := make(map[string][]string)
	for line := range strings.Lines(string(out)) {
		linked := strings.Fields(line)
		deps[strings.TrimPrefix(linked[0], module)] = linked
	}
	for _, pkg := range pkgs {
		if len(deps[pkg]) < 2 {
			t.Fatalf("go list names no dependencies of %s: %q", pkg, out)
		}
	}
	return deps
}

// The publisher needs the table API only.
func TestPublisher_links_neither_the_tunnel_client_nor_the_worker(t *testing.T) {
	for _, dep := range dependencies(t, "publisher")["publisher"] {
		if strings.HasSuffix(dep, "aliyun-tablestore-go-sdk/tunnel") {
			t.Errorf("publisher links %s", dep)
		}
	}
}

func TestImports_go_one_way(t *testing.T) {
	forbidden := map[string][]string{
		"ots":             {""}, // nothing of the module
		"ack":             {""},
		"internal/ledger": {""},
		"batching":        {"ots", "subscriber", "router", "publisher", "internal/ledger"},
		"subscriber":      {"batching", "router", "publisher", "metrics", "tracing", "health", "emulator"},
		"publisher":       {"subscriber", "internal/ledger", "batching", "router", "metrics", "tracing", "health", "emulator"},
		"router":          {"metrics", "tracing", "health", "emulator"},

		"router/internal/keypath":    {""},
		"router/internal/strictyaml": {"ots", "ack", "subscriber", "batching", "internal/service"},
		"internal/feed":              {"ots", "subscriber", "batching", "router"},
		"internal/letters":           {"subscriber", "batching", "router"},

		"metrics":  {"router", "emulator"},
		"tracing":  {"router", "emulator"},
		"health":   {"emulator"},
		"emulator": {"subscriber", "batching", "router", "publisher"},
	}
	linked := dependencies(t, slices.Collect(maps.Keys(forbidden))...)
	for pkg, none := range forbidden {
		for _, path := range linked[pkg] {
			dep, ok := strings.CutPrefix(path, module)
			if ok && dep != pkg && slices.ContainsFunc(none, func(n string) bool { return n == "" || dep == n || strings.HasPrefix(dep, n+"/") }) {
				t.Errorf("%s imports %s", pkg, dep)
			}
		}
	}
}
