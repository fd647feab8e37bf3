package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

func TestTable_and_tunnel_outputs(t *testing.T) {
	connected(t)
	for _, test := range []struct {
		name string
		args []string
	}{
		{"table-list", []string{"table", "list"}},
		{"table-list-json", []string{"table", "list", "-o", "json"}},
		{"table-describe", []string{"table", "describe", "users"}},
		{"table-describe-json", []string{"table", "describe", "users", "-o", "json"}},
		{"tunnel-list-none", []string{"tunnel", "list", "-o", "json"}},
		{"tunnel-create", []string{"tunnel", "create", "demo/orders"}},
		{"tunnel-create-stream", []string{"tunnel", "create", "users/audit", "--type", "Stream", "--start", "earliest"}},
		{"tunnel-list", []string{"tunnel", "list"}},
		{"tunnel-list-table", []string{"tunnel", "list", "users", "-o", "json"}},
		{"tunnel-describe", []string{"tunnel", "describe", "users/audit"}},
		{"tunnel-describe-json", []string{"tunnel", "describe", "demo/orders", "-o", "json"}},
		{"tunnel-lag", []string{"tunnel", "lag", "demo/orders"}},
		{"tunnel-lag-json", []string{"tunnel", "lag", "demo/orders", "-o", "json"}},
		{"tunnel-watch", []string{"tunnel", "watch", "demo/orders", "--count", "2", "--interval", "100ms"}},
		{"tunnel-reset", []string{"tunnel", "reset", "demo/orders", "--yes"}},
		{"tunnel-delete", []string{"tunnel", "delete", "demo/orders", "--yes"}},
	} {
		golden(t, test.name, succeeds(t, test.args...))
	}
}

func TestHelp_of_every_command(t *testing.T) {
	var all strings.Builder
	for _, args := range commandPaths(t, newRoot(), nil) {
		out := succeeds(t, append(args, "--help")...)
		if len(args) > 0 && args[0] != "completion" && !strings.Contains(out, "Usage:") {
			t.Errorf("ots %v --help has no usage", args)
		}
		if cmd, _, err := newRoot().Find(args); err != nil || len(args) > 0 && !cmd.HasSubCommands() && cmd.Example == "" && args[0] != "completion" && args[0] != "help" {
			t.Errorf("ots %v has no example (%v)", args, err)
		}
		if len(args) > 0 && args[0] == "tunnel" {
			all.WriteString("$ ots " + strings.Join(args, " ") + " --help\n" + out + "\n")
		}
	}
	golden(t, "help-tunnel", all.String())
}

func TestCommands_refuse_what_they_do_not_understand(t *testing.T) {
	connected(t)
	succeeds(t, "tunnel", "create", "demo/base")
	succeeds(t, "tunnel", "create", "demo/stream", "--type", "Stream")
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	if err := os.WriteFile(taken, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"table lst", exitUsage, "it has describe, list"},
		{"table describe", exitUsage, "needs the name of a TABLE"},
		{"table describe 1x", exitUsage, "does not begin with a digit"},
		{"table describe nothing", exitError, "describing table nothing"},
		{"table list --output xml", exitUsage, "--output"},
		{"tunnel list a b", exitUsage, `"b"`},
		{"tunnel describe demo", exitUsage, "TABLE/TUNNEL"},
		{"tunnel describe demo/", exitUsage, "behind the slash"},
		{"tunnel describe demo/none", exitError, "the table has base, stream"},
		{"tunnel describe users/none", exitError, "the table has no tunnels"},
		{"tunnel create demo/base", exitError, "ots tunnel reset demo/base"},
		{"tunnel create none/x", exitError, "the table must exist"},
		{"tunnel create demo/x --type Both", exitUsage, "--type"},
		{"tunnel create demo/x --start 1h", exitUsage, "--start is of --type Stream"},
		{"tunnel create demo/x --type Stream --start tomorrow", exitUsage, "--start"},
		{"tunnel create demo/x --type Stream --start 2199-01-01T00:00:00Z", exitUsage, "in the past"},
		{"tunnel create demo/x --end never", exitUsage, "--end"},
		{"tunnel create demo/x --end 2999-01-01T00:00:00Z", exitUsage, "2261"},
		{"tunnel create demo/x --type BaseData --end 2199-01-01T00:00:00Z", exitUsage, "--end"},
		{"tunnel create demo/x --type Stream --start 1h --end 2001-01-01T00:00:00Z", exitUsage, "after --start"},
		{"tunnel delete demo/base", exitFailed, "nothing was changed"},
		{"tunnel reset demo/stream --yes", exitUsage, "--start is not set"},
		{"tunnel reset demo/base --start 1h --yes", exitUsage, "begins with all rows"},
		{"tunnel lag demo/base --max -1s", exitUsage, "--max"},
		{"tunnel watch demo/base --interval 1ms", exitUsage, "--interval"},
		{"tunnel watch demo/base --count -1", exitUsage, "--count"},
		{"tunnel tail", exitUsage, "--table"},
		{"tunnel tail demo/base --table demo", exitUsage, "--table replaces"},
		{"tunnel tail --table demo --join", exitUsage, "--join"},
		{"tunnel tail demo/base --join --since 1h", exitUsage, "--since"},
		{"tunnel tail demo/base --force", exitUsage, "--force"},
		{"tunnel tail demo/none", exitError, "the table has base, stream"},
		{"tunnel tail demo/base --since yesterday", exitUsage, "--since"},
		{"tunnel tail demo/base --base --since 1h", exitUsage, "--base"},
		{"tunnel tail demo/base --since 9000h", exitError, "ots table describe demo"},
		{"tunnel tail demo/base --where key", exitUsage, "--where"},
		{"tunnel tail demo/base --format xml", exitUsage, "--format"},
		{"tunnel tail demo/base --max -1", exitUsage, "--max"},
		{"tunnel tail demo/base --key [true]", exitUsage, "--key"},
		{"tunnel record demo/base", exitUsage, "--file"},
		{"tunnel record demo/base --file " + taken, exitUsage, "--overwrite"},
		{"replay " + taken, exitUsage, "not a recording"},
		{"replay " + dir + "/none", exitUsage, "FILE"},
	} {
		code, stdout, stderr := command(t, strings.Fields(test.args)...)
		if code != test.code || stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("ots %s: exit %d, stdout %q, stderr %q; want exit %d and %q", test.args, code, stdout, stderr, test.code, test.want)
		}
	}
	if got := succeeds(t, "tunnel", "list", "demo"); strings.Contains(got, ownTunnelPrefix) || !strings.Contains(got, "demo/base") {
		t.Errorf("the tunnels are\n%s", got)
	}
}

func TestTunnel_delete_asks_first(t *testing.T) {
	connected(t)
	succeeds(t, "tunnel", "create", "demo/orders")
	code, _, stderr := commandWith(t, "n\n", "tunnel", "delete", "demo/orders")
	if code != exitFailed || !strings.Contains(stderr, "cannot be undone") {
		t.Errorf("answered with no: exit %d, %q", code, stderr)
	}
	succeeds(t, "tunnel", "describe", "demo/orders")
	if code, stdout, stderr := commandWith(t, "y\n", "tunnel", "delete", "demo/orders"); code != exitOK || !strings.Contains(stdout, "Deleted") {
		t.Errorf("answered with yes: exit %d, %q, %q", code, stdout, stderr)
	}
}

// consumer subscribes to a tunnel as a production consumer does, and returns what it gets.
func consumer(t *testing.T, em *emulator.Emulator, topic string) (keys func() []string) {
	t.Helper()
	sub, err := subscriber.New(subscriber.Config{Endpoint: em.Endpoint(), Instance: "i", AccessKeyID: "id", AccessKeySecret: "secret", HeartbeatInterval: time.Second, HeartbeatTimeout: 4 * time.Second}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got []string
	if _, err := sub.Handle(t.Context(), topic, func(msg *message.Message) error {
		r, ok := ots.RecordFromMessage(msg)
		if !ok {
			return errors.New("no record")
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.KeyText())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Close() }) // what it leaves is of no interest
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), got...)
	}
}

// eventually waits until f is true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}

func TestDestructive_commands_refuse_while_clients_hold_channels(t *testing.T) {
	em := connected(t)
	succeeds(t, "tunnel", "create", "demo/orders", "--type", "Stream")
	consumer(t, em, "demo/orders")
	eventually(t, "the consumer holds the channel", func() bool {
		var v tunnelView
		if err := json.Unmarshal([]byte(succeeds(t, "tunnel", "describe", "demo/orders", "-o", "json")), &v); err != nil {
			t.Fatal(err)
		}
		return v.Clients == 1
	})
	for _, args := range []string{"tunnel delete demo/orders --yes", "tunnel reset demo/orders --start 1h --yes", "tunnel tail demo/orders --join"} {
		code, _, stderr := command(t, strings.Fields(args)...)
		if code != exitError || !strings.Contains(stderr, "--force") || !strings.Contains(stderr, "hold") {
			t.Errorf("ots %s: exit %d, %q", args, code, stderr)
		}
	}
	succeeds(t, "tunnel", "delete", "demo/orders", "--yes", "--force")
}

func TestReset_keeps_the_type_and_begins_where_it_is_told(t *testing.T) {
	em := connected(t)
	succeeds(t, "tunnel", "create", "demo/audit", "--type", "Stream", "--end", "2199-01-01T00:00:00Z")
	if err := em.Put("demo", emulator.Row{"id": 1}); err != nil {
		t.Fatal(err)
	}
	before := describe(t, "demo/audit")
	out := succeeds(t, "tunnel", "reset", "demo/audit", "--start", "earliest", "--yes")
	after := describe(t, "demo/audit")
	if after.Type != "Stream" || after.End != before.End || after.End == "" || after.ID == before.ID || !strings.Contains(out, "oldest change") {
		t.Errorf("before %+v, after %+v: %s", before, after, out)
	}
	if got := succeeds(t, "tunnel", "tail", "demo/audit", "--join", "--max", "1", "-q"); !strings.Contains(got, "put    [1]") {
		t.Errorf("it delivers %q", got)
	}
}

func describe(t *testing.T, topic string) (v tunnelView) {
	t.Helper()
	if err := json.Unmarshal([]byte(succeeds(t, "tunnel", "describe", topic, "-o", "json")), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestLag_beyond_max_is_exit_1(t *testing.T) {
	em := connected(t)
	succeeds(t, "tunnel", "create", "demo/audit", "--type", "Stream")
	time.Sleep(20 * time.Millisecond)
	if code, stdout, _ := command(t, "tunnel", "lag", "demo/audit", "--max", "1ms"); code != exitFailed || !strings.Contains(stdout, "demo/audit") {
		t.Errorf("exit %d, %q", code, stdout)
	}
	if code, _, _ := command(t, "tunnel", "lag", "demo/audit", "--max", "1h"); code != exitOK {
		t.Errorf("exit %d", code)
	}
	if err := em.ExpireTunnel("demo", "audit"); err != nil {
		t.Fatal(err)
	}
	if code, stdout, _ := command(t, "tunnel", "lag", "demo/audit", "--max", "1h"); code != exitFailed || !strings.Contains(stdout, "EXPIRED") {
		t.Errorf("an expired tunnel: exit %d, %q", code, stdout)
	}
}

// rows writes a put, an update and a delete of the row 1, and a put of the row 2.
func rows(t *testing.T, em *emulator.Emulator) {
	t.Helper()
	for _, err := range []error{
		em.Put("demo", emulator.Row{"id": 1, "amount": 12.5, "note": "hot"}),
		em.Put("demo", emulator.Row{"id": 2, "amount": 1.0}),
		em.Update("demo", emulator.Row{"id": 1, "amount": 13.0}),
		em.Delete("demo", emulator.Row{"id": 1}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestTail_prints_the_selected_changes_and_leaves_no_tunnel(t *testing.T) {
	em := connected(t)
	succeeds(t, "tunnel", "create", "demo/orders")
	rows(t, em)
	for name, args := range map[string]string{
		"tail-text":        "--max 4",
		"tail-json":        "--max 4 --format json",
		"tail-key":         "--max 1 --key 2",
		"tail-key-array":   "--max 3 --key [1]",
		"tail-where":       "--max 2 --where row.amount>12",
		"tail-cloudevents": "--max 1 --format json --where type=='delete'",
	} {
		golden(t, name, succeeds(t, append([]string{"tunnel", "tail", "demo/orders", "--since", "earliest", "-q"}, strings.Fields(args)...)...))
	}
	golden(t, "tail-base", succeeds(t, "tunnel", "tail", "--table", "demo", "--base", "--max", "1"))
	if got := succeeds(t, "tunnel", "list"); strings.Contains(got, ownTunnelPrefix) {
		t.Errorf("a tunnel is left:\n%s", got)
	}
}

func TestTail_takes_nothing_from_a_consumer(t *testing.T) {
	em := connected(t)
	succeeds(t, "tunnel", "create", "demo/orders", "--type", "Stream")
	got := consumer(t, em, "demo/orders")
	rows(t, em)
	eventually(t, "the consumer has all", func() bool { return len(got()) == 4 })
	succeeds(t, "tunnel", "tail", "demo/orders", "--since", "earliest", "--max", "4", "-q")
	if err := em.Put("demo", emulator.Row{"id": 3}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the consumer has the next change", func() bool { return len(got()) == 5 })
}

func TestTail_fails_when_the_expression_does(t *testing.T) {
	em := connected(t)
	rows(t, em)
	code, stdout, stderr := command(t, "tunnel", "tail", "--table", "demo", "--since", "earliest", "--where", `row.amount > "x"`)
	if code != exitError || stdout != "" || !strings.Contains(stderr, "--where, on the record [1]") || strings.Contains(stderr, "level=ERROR") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	if got := succeeds(t, "tunnel", "list"); strings.Contains(got, ownTunnelPrefix) {
		t.Errorf("a tunnel is left:\n%s", got)
	}
}

func TestTail_ends_with_an_interrupt_and_removes_its_tunnel(t *testing.T) {
	em := connected(t)
	cmd, out := start(t, em, t.TempDir(), "tunnel", "tail", "--table", "demo")
	eventually(t, "the tunnel of the tail", func() bool { return strings.Contains(succeeds(t, "tunnel", "list"), ownTunnelPrefix) })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if got := succeeds(t, "tunnel", "list"); strings.Contains(got, ownTunnelPrefix) {
		t.Errorf("a tunnel is left:\n%s", got)
	}
}

func TestRecording_is_whole_and_replays_the_same_each_time(t *testing.T) {
	em := connected(t)
	rows(t, em)
	file := filepath.Join(t.TempDir(), "bug.jsonl")
	if out := succeeds(t, "tunnel", "record", "--table", "demo", "--since", "earliest", "--max", "4", "--file", file); out != "Recorded 4 records.\n" {
		t.Errorf("it says %q", out)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	tail := succeeds(t, "tunnel", "tail", "--table", "demo", "--since", "earliest", "--max", "4", "-q", "--format", "json")
	for range 2 {
		if got := succeeds(t, "replay", file, "--format", "json"); got != tail {
			t.Errorf("replayed\n%s\nbut tail printed\n%s", got, tail)
		}
	}
	if got := succeeds(t, "replay", file, "--where", "type == 'delete'"); strings.Count(got, "\n") != 1 || !strings.Contains(got, "delete [1]") {
		t.Errorf("selected %q", got)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Replace(b, []byte(`"version":1`), []byte(`"version":2`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := command(t, "replay", file); code != exitUsage || !strings.Contains(stderr, "version 2") {
		t.Errorf("another version: exit %d, %q", code, stderr)
	}
}

func TestEmulator_with_the_demo_has_a_table_that_changes(t *testing.T) {
	noConnection(t)
	ctx, stop := context.WithCancel(t.Context())
	var out lines
	ended := make(chan int, 1)
	go func() { // ends with stop
		ended <- run(ctx, []string{"emulator", "--demo", "--demo-pause", "10ms", "--addr", "127.0.0.1:0"}, strings.NewReader(""), &out, new(lines))
	}()
	eventually(t, "the emulator listens", func() bool { return strings.Contains(out.String(), "listening on http") })
	endpoint := strings.TrimSpace(strings.TrimPrefix(out.String(), "listening on "))
	for name, value := range map[string]string{envEndpoint: endpoint, envInstance: "demo", envKeyID: "any", envSecret: "any"} {
		t.Setenv(name, value)
	}
	if got := succeeds(t, "tunnel", "tail", "demo/orders", "--max", "3", "-q"); strings.Count(got, "\n") != 3 {
		t.Errorf("tail printed %q", got)
	}
	stop()
	if code := <-ended; code != exitOK {
		t.Errorf("exit %d", code)
	}
}

// lines is a bytes.Buffer for several goroutines.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
