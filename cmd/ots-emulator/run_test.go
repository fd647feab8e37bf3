package main

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestRun_names_the_flag_that_is_wrong_and_what_to_do(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file("thesis.doc", "") // makes the directory one of another program
	seed := file("seed.yaml", "tables:\n  orders:\n    key: {id: integer}\n    row: []\n")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	taken := listener.Addr().String()
	for _, v := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"an unknown flag", []string{"--adress", "x"}, 2, []string{"--adress", "--addr", "--help"}},
		{"a flag without its value", []string{"--data-dir"}, 2, []string{"--data-dir"}},
		{"an invalid number", []string{"--fault-seed", "x"}, 2, []string{"--fault-seed", `"x"`}},
		{"an argument", []string{"serve"}, 2, []string{`unexpected argument "serve"`}},
		{"a bad address", []string{"--addr", "nowhere"}, 1, []string{"--addr nowhere:", "write HOST:PORT, such as 127.0.0.1:8087"}},
		{"a port alone", []string{"--addr", "8087"}, 1, []string{"--addr 8087:", "write HOST:PORT"}},
		{"a flush of nothing", []string{"--sync"}, 2, []string{"--sync", "--data-dir"}},
		{"a token of no admin API", []string{"--admin-token", "x"}, 2, []string{"--admin-token", "--admin-addr"}},
		{"an address in use", []string{"--addr", taken}, 1, []string{"--addr " + taken, "another program", "port 0 picks a free one"}},
		{"an address of another machine", []string{"--addr", "192.0.2.1:8087"}, 1, []string{"--addr 192.0.2.1:8087"}},
		{"half of the credentials", []string{"--access-key-id", "ak"}, 1, []string{"--access-key-secret"}},
		{"a region without credentials", []string{"--region", "cn-hangzhou"}, 1, []string{"--region", "--access-key-id"}},
		{"a token without credentials", []string{"--security-token", "x"}, 1, []string{"--security-token"}},
		{"a foreign data directory", []string{"--addr", "127.0.0.1:0", "--data-dir", dir}, 1, []string{"--data-dir " + dir}},
		{"a bad admin address", []string{"--addr", "127.0.0.1:0", "--admin-addr", "nowhere"}, 1, []string{"--admin-addr nowhere:", "admin API"}},
		{"an admin address in use", []string{"--addr", "127.0.0.1:0", "--admin-addr", taken}, 1, []string{"--admin-addr " + taken, "another program"}},
		{"an admin API that other machines can reach, without a token,", []string{"--addr", "127.0.0.1:0", "--admin-addr", "0.0.0.0:0"}, 1, []string{"--admin-addr 0.0.0.0:0", "--admin-token"}},
		{"an unknown behaviour", []string{"--addr", "127.0.0.1:0", "--assume", "early-timeot"}, 1, []string{"--assume", `did you mean "early-timeout"`}},
		{"an allowed host that is a URL", []string{"--addr", "127.0.0.1:0", "--allowed-host", "http://a"}, 1, []string{"--allowed-host"}},
		{"a seed file with an unknown key", []string{"--addr", "127.0.0.1:0", "--seed", seed}, 1, []string{"--seed:", seed + ":4: tables.orders.row: unknown key"}},
		{"a seed file that is missing", []string{"--addr", "127.0.0.1:0", "--seed", dir + "/none"}, 1, []string{"--seed:", "none"}},
		{"a number as the seed file", []string{"--addr", "127.0.0.1:0", "--seed", "42"}, 1, []string{"--seed 42", "--fault-seed"}},
	} {
		t.Run(fmt.Sprintf("%s gives exit code %d", v.name, v.code), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), v.args, &stdout, &stderr); code != v.code {
				t.Errorf("exit code %d, want %d", code, v.code)
			}
			for _, says := range v.says {
				if !strings.Contains(stderr.String(), says) {
					t.Errorf("stderr does not say %q: %s", says, &stderr)
				}
			}
			for _, field := range []string{"AccessKey", "SecurityToken", "Region", "AllowedHosts", "Assume", "Options"} {
				if strings.Contains(stderr.String(), field) {
					t.Errorf("stderr names %s, a field of the Go API: %s", field, &stderr)
				}
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout: %s", &stdout)
			}
		})
	}
}

func TestRun_leaves_no_data_directory_when_the_seed_file_is_missing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--addr", "127.0.0.1:0", "--data-dir", dir, "--seed", dir + "/none"}, &stdout, &stderr); code != 1 {
		t.Errorf("exit code %d; stderr: %s", code, &stderr)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the data directory is there")
	}
}

func TestRun_says_that_both_of_its_addresses_are_the_same(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--addr", addr, "--admin-addr", addr}, &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), "the emulator itself listens there") {
		t.Errorf("exit code %d; stderr: %s", code, &stderr)
	}
}

// output runs the command, which must succeed, and returns its stdout.
func output(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), args, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Fatalf("exit code %d; stderr: %s", code, &stderr)
	}
	return stdout.String()
}

func TestHelp_says_what_the_command_is_for_and_has_every_flag_and_examples(t *testing.T) {
	help := output(t, "--help")
	if !strings.HasPrefix(help, "ots-emulator runs a Tablestore") {
		t.Errorf("it begins with %q", strings.SplitN(help, "\n", 2)[0])
	}
	newSettings().flags.VisitAll(func(f *flag.Flag) {
		if !strings.Contains(help, "-"+f.Name) {
			t.Errorf("it does not have %s", f.Name)
		}
	})
	if strings.Contains(help, " \n") {
		t.Error("a line ends with a space")
	}
	// The flags of each command in the examples must parse.
	_, shown, found := strings.Cut(help, "Examples:\n")
	commands := regexp.MustCompile(`(?m)^  ots-emulator ?(.*)$`).FindAllStringSubmatch(shown, -1)
	if !found || len(commands) < 3 {
		t.Errorf("there are %d examples", len(commands))
	}
	for _, c := range commands {
		if err := newSettings().parse(strings.Fields(c[1])); err != nil {
			t.Errorf("%s: %v", c[0], err)
		}
	}
}

func TestVersion_has_the_version_of_Go_and_the_platform(t *testing.T) {
	version := output(t, "--version")
	for _, want := range []string{"ots-emulator ", runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH} {
		if !strings.Contains(version, want) {
			t.Errorf("%q does not have %q", version, want)
		}
	}
}

func TestDocumentation_has_exactly_the_flags_of_the_command(t *testing.T) {
	doc, err := os.ReadFile("../../docs/emulator.md")
	if err != nil {
		t.Fatal(err)
	}
	var there []string
	for line := range strings.Lines(string(doc)) {
		if strings.HasPrefix(line, "| `-") {
			cell := strings.Split(line, "|")[1]
			for _, m := range regexp.MustCompile("`--?([a-z-]+)").FindAllStringSubmatch(cell, -1) {
				there = append(there, m[1])
			}
		}
	}
	var want []string
	newSettings().flags.VisitAll(func(f *flag.Flag) { want = append(want, f.Name) })
	slices.Sort(there)
	if slices.Sort(want); !slices.Equal(there, want) {
		t.Errorf("docs/emulator.md has %q, the command %q", there, want)
	}
}

func TestSeed_is_there_when_the_command_says_where_it_listens(t *testing.T) {
	seed := filepath.Join(t.TempDir(), "seed.yaml")
	if err := os.WriteFile(seed, []byte("tables:\n  t:\n    key: {id: integer}\n    rows: [{id: 7, n: 1}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--addr", "127.0.0.1:0", "--data-dir", t.TempDir(), "--seed", seed}
	for range 2 { // the second start finds the table
		p := launch(t, args...)
		if found, err := get(client(p.endpoint), 7); err != nil || !found {
			t.Errorf("the row is not there: %v", err)
		}
		p.stop(t)
	}
}
