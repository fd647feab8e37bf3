package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/letters"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/router"
)

// withLetters puts letters into a table: three of the pipeline orders, one of audit.
func withLetters(t *testing.T, em *emulator.Emulator) {
	t.Helper()
	c := connection{endpoint: em.Endpoint(), instance: "i", credentials: ots.Credentials{AccessKeyID: "id", AccessKeySecret: "secret"}}
	in := c.dial()
	defer in.close()
	table := letters.NewTable(*in.tables, "dead", watermill.NopLogger{})
	if err := table.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, pipeline := range []string{"orders", "orders", "orders", "audit"} {
		r := &ots.Record{
			Instance: "i", Table: "demo", Tunnel: "orders", Channel: "c", UUID: fmt.Sprint("uuid-", i+1), Type: ots.Put, Attempt: 1,
			Sequence: ots.Sequence{Timestamp: int64(i + 1)}, PrimaryKey: []ots.Column{{Name: "id", Value: ots.IntegerValue(int64(i + 1))}},
		}
		err := table.Put(t.Context(), &letters.Letter{
			Pipeline: pipeline, ID: r.UUID, Identity: r.UUID, Table: r.Table, Tunnel: r.Tunnel, Channel: r.Channel, Type: []string{"put", "update", "delete", "put"}[i], Key: r.KeyText(),
			Sequence: r.Sequence.String(), Error: fmt.Sprintf("boom %d\nof a handler", i+1), Attempts: 5, FailedAt: time.Now().Add(-time.Duration(i) * time.Hour).UTC(),
			Metadata: map[string]string{"ots.table": "demo", "a": "b"}, Payload: []byte(`{"id":1}`), Record: r,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestLetters_outputs(t *testing.T) {
	withLetters(t, connected(t))
	for _, test := range []struct{ name, args string }{
		{"letters-list", "list dead"},
		{"letters-list-json", "list dead --pipeline audit -o json"},
		{"letters-show", "show dead --id uuid-2"},
		{"letters-purge-dry-run", "purge dead --pipeline orders --dry-run"},
		{"letters-purge", "purge dead --pipeline orders --yes"},
		{"letters-list-rest", "list dead"},
		{"letters-purge-none", "purge dead --pipeline orders --yes"},
	} {
		golden(t, test.name, succeeds(t, append([]string{"letters"}, strings.Fields(test.args)...)...))
	}
}

func TestLetters_are_selected_by_each_flag(t *testing.T) {
	withLetters(t, connected(t))
	for args, want := range map[string]string{
		"":                             "uuid-4 uuid-1 uuid-2 uuid-3",
		"--pipeline orders":            "uuid-1 uuid-2 uuid-3",
		"--pipeline none":              "",
		"--id uuid-3":                  "uuid-3",
		"--key 2":                      "uuid-2",
		"--key [2] --key 3":            "uuid-2 uuid-3",
		"--type delete":                "uuid-3",
		"--type put --type update":     "uuid-4 uuid-1 uuid-2",
		"--since 90m":                  "uuid-1 uuid-2",
		"--before 90m":                 "uuid-4 uuid-3",
		"--since 150m --before 90m":    "uuid-3",
		"--since 2999-01-01T00:00:00Z": "",
	} {
		var views []letterView
		out := succeeds(t, append([]string{"letters", "list", "dead", "-o", "json"}, strings.Fields(args)...)...)
		if err := json.Unmarshal([]byte(out), &views); err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, v := range views {
			ids = append(ids, v.ID)
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%s selects %s, want %s", args, got, want)
		}
	}
	if out := succeeds(t, "letters", "list", "dead", "--error", "boom 4"); !strings.Contains(out, "uuid-4") || strings.Contains(out, "uuid-1") {
		t.Errorf("--error selects\n%s", out)
	}
}

func TestLetters_show_as_JSON_is_what_the_router_reads(t *testing.T) {
	withLetters(t, connected(t))
	out := succeeds(t, "letters", "show", "dead", "--id", "uuid-2", "-o", "json")
	letter, err := router.ParseDeadLetter([]byte(out))
	if err != nil || letter.Key != "[2]" || string(letter.Payload) != `{"id":1}` || letter.Record == nil || letter.Record.KeyText() != "[2]" {
		t.Errorf("%+v, %v", letter, err)
	}
}

func TestLetters_refuse_what_they_do_not_understand(t *testing.T) {
	em := connected(t)
	withLetters(t, em)
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"list", exitUsage, "TABLE"},
		{"list demo", exitError, "cannot hold dead letters"},
		{"list none", exitError, "none"},
		{"list dead --since soon", exitUsage, "--since"},
		{"list dead --before -1h", exitUsage, "--before"},
		{"list dead --type insert", exitUsage, "--type"},
		{"list dead --key [", exitUsage, "--key"},
		{"show dead", exitUsage, "--id"},
		{"show dead --id none", exitFailed, "No letter"},
		{"purge dead", exitUsage, "--all"},
		{"purge dead --all --pipeline orders", exitUsage, "--all"},
		{"purge dead --all", exitFailed, "nothing was changed"},
	} {
		code, stdout, stderr := command(t, append([]string{"letters"}, strings.Fields(test.args)...)...)
		if code != test.code || stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("ots letters %s: exit %d, stdout %q, stderr %q; want exit %d and %q", test.args, code, stdout, stderr, test.code, test.want)
		}
	}
	if got := strings.Count(succeeds(t, "letters", "list", "dead"), "uuid-"); got != 4 {
		t.Errorf("%d letters are left", got)
	}
	if out := succeeds(t, "letters", "purge", "dead", "--all", "--yes"); out != "Deleted 4 letters.\n" {
		t.Errorf("it says %q", out)
	}
}
