package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// inDirectory writes files into a directory and makes it the working directory.
func inDirectory(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	goodFile = `instances:
  main: {name: i, endpoint: "https://i.example.com", access_key_id: id, access_key_secret: hush-hush}
tunnels:
  orders:
    instance: main
    table_name: orders
    tunnel_name: warehouse
    batchers:
      rows: {batch_size: 10, forward: {publisher: kafka, topic: "orders"}}
      rest: {}
    failure: {dead_letter: {table: letters}}
  "a#udit":
    instance: main
    enabled: false
    table_name: orders
    tunnel_name: audit
    forward: {topic: audit}
    failure: {dead_letter: {topic: dead}}
`
	badFile = `instances:
  main: {name: i, endpoint: "https://i.example.com", access_key_id: id, access_key_secret: hush-hush}
tunnels:
  orders:
    instance: mian
    table_name: orders
    tunnel_name: warehouse
    worker_sise: 2
    batchers:
      rows: {batch_size: 0}
`
)

func TestLint_outputs(t *testing.T) {
	inDirectory(t, map[string]string{"good.yaml": goodFile, "bad.yaml": badFile, "broken.yaml": "tunnels: {\n\tx"})
	if code, stdout, stderr := command(t, "lint", "good.yaml"); code != exitOK || stdout+stderr != "" {
		t.Errorf("a good file: exit %d, %q, %q", code, stdout, stderr)
	}
	outputs := make(map[string]string)
	for _, format := range []string{"text", "json", "github"} {
		code, stdout, stderr := command(t, "lint", "bad.yaml", "good.yaml", "broken.yaml", "--format", format)
		if code != exitFailed || stderr != "" || strings.Contains(stdout, "hush") {
			t.Errorf("%s: exit %d, %q, %q", format, code, stdout, stderr)
		}
		outputs[format] = stdout
	}
	back(t)
	for format, out := range outputs {
		golden(t, "lint-"+format, out)
	}
}

// packageDirectory is the directory of this package, where the golden files are.
var packageDirectory, _ = os.Getwd()

// back returns to the directory of the golden files.
func back(t *testing.T) {
	t.Helper()
	t.Chdir(packageDirectory)
}

func TestLint_points_at_the_key(t *testing.T) {
	inDirectory(t, map[string]string{"bad.yaml": badFile})
	_, stdout, _ := command(t, "lint", "bad.yaml", "--format", "json")
	var faults []fileFault
	if err := json.Unmarshal([]byte(stdout), &faults); err != nil || len(faults) == 0 {
		t.Fatalf("%v: %q", err, stdout)
	}
	lines := strings.Split(badFile, "\n")
	for _, f := range faults {
		key := f.Path[strings.LastIndexByte(f.Path, '.')+1:]
		if at := lines[f.Line-1][f.Column-1:]; !strings.HasPrefix(at, key) {
			t.Errorf("%s points at %q", f.line(), at)
		}
	}
}

func TestLint_and_graph_refuse_what_they_cannot_read(t *testing.T) {
	inDirectory(t, map[string]string{"bad.yaml": badFile})
	for _, test := range []struct{ args, want string }{
		{"lint", "FILE"},
		{"lint none.yaml", "none.yaml"},
		{"lint bad.yaml --format xml", "--format"},
		{"graph", "FILE"},
		{"graph bad.yaml", "ots lint bad.yaml"},
		{"schema x", `"x"`},
	} {
		if code, stdout, stderr := command(t, strings.Fields(test.args)...); code != exitUsage || stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("ots %s: exit %d, %q, %q", test.args, code, stdout, stderr)
		}
	}
}

func TestGraph_shows_tables_pipelines_batchers_topics_and_dead_letters(t *testing.T) {
	inDirectory(t, map[string]string{"good.yaml": goodFile})
	out := succeeds(t, "graph", "good.yaml")
	back(t)
	golden(t, "graph", out)
	if strings.Contains(out, "hush") || strings.Contains(out, "example.com") {
		t.Errorf("it shows more than names:\n%s", out)
	}
}

func TestSchema_is_that_of_the_router(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("..", "..", "router", "schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	if succeeds(t, "schema") != string(want) {
		t.Error("the schema is another one")
	}
}
