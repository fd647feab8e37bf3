package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recorded records the rows of the table demo, and writes the pipelines files next to it.
func recorded(t *testing.T) (file, pipelines string) {
	t.Helper()
	rows(t, connected(t))
	dir := t.TempDir()
	file, pipelines = filepath.Join(dir, "rec.jsonl"), filepath.Join(dir, "pipelines.yaml")
	succeeds(t, "tunnel", "record", "--table", "demo", "--since", "earliest", "--max", "4", "--file", file)
	if err := os.WriteFile(pipelines, []byte(strings.Replace(goodFile, `access_key_id: id, access_key_secret: hush-hush`, "credentials: vault", 1)+`  coded:
    instance: main
    table_name: orders
    tunnel_name: coded
    payload: protobuf
    forward: {topic: x}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, pipelines
}

func TestReplay_through_a_pipeline_shows_batches_and_topics_and_is_the_same_each_time(t *testing.T) {
	file, pipelines := recorded(t)
	rowsFile := strings.Replace(pipelines, "pipelines", "rows", 1)
	b, err := os.ReadFile(pipelines)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("batch_size: 10", "batch_size: 2", "rows: {", "default: {", "      rest: {}\n", "").Replace(string(b))
	if err := os.WriteFile(rowsFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	first := succeeds(t, "replay", file, "--pipelines", rowsFile, "--pipeline", "orders")
	golden(t, "replay-batches", first)
	for range 2 {
		if again := succeeds(t, "replay", file, "--pipelines", rowsFile, "--pipeline", "orders"); again != first {
			t.Fatalf("first\n%s\nthen\n%s", first, again)
		}
	}
	golden(t, "replay-forward", succeeds(t, "replay", file, "--pipelines", pipelines, "--pipeline", "a#udit", "--key", "1"))
}

func TestReplay_says_what_cannot_be_replayed(t *testing.T) {
	file, pipelines := recorded(t)
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--pipelines", pipelines}, exitUsage, "--pipeline"},
		{[]string{"--pipeline", "orders"}, exitUsage, "--pipelines"},
		{[]string{"--pipelines", pipelines, "--pipeline", "order"}, exitUsage, "orders"},
		{[]string{"--pipelines", file, "--pipeline", "orders"}, exitUsage, "--pipelines"},
		{[]string{"--pipelines", pipelines, "--pipeline", "orders", "--format", "json"}, exitUsage, "--format"},
		{[]string{"--pipelines", pipelines, "--pipeline", "coded"}, exitUsage, "protobuf"},
	} {
		code, stdout, stderr := command(t, append([]string{"replay", file}, test.args...)...)
		if code != test.code || stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("ots replay %v: exit %d, stdout %q, stderr %q; want exit %d and %q", test.args, code, stdout, stderr, test.code, test.want)
		}
	}
}
