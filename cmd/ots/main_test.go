package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/verify"
)

// command runs the command in this process.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return commandWith(t, "", args...)
}

// commandWith runs the command in this process, with an input.
func commandWith(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs lines
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	code = run(ctx, args, strings.NewReader(stdin), &out, &errs)
	if ctx.Err() != nil {
		t.Fatalf("ots %v did not end within a minute; stdout %q, stderr %q", args, &out, &errs)
	}
	return code, out.String(), errs.String()
}

// noConnection unsets the variables of a connection.
func noConnection(t *testing.T) {
	t.Helper()
	for _, name := range []string{envEndpoint, envInstance, envRegion, envKeyID, envSecret, envToken, envProfile, envProfiles} {
		t.Setenv(name, "")
	}
	t.Setenv("XDG_CONFIG_HOME", t.TempDir()) // no file of profiles
}

func TestHelp_is_printed_on_stdout(t *testing.T) {
	for _, args := range [][]string{{}, {"--help"}, {"help"}, {"verify", "--help"}} {
		code, stdout, stderr := command(t, args...)
		if code != exitOK || !strings.Contains(stdout, "Usage:") || stderr != "" {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}

func TestUsage_errors_name_the_flag_and_what_it_takes(t *testing.T) {
	noConnection(t)
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"unknown command":     {[]string{"verfy"}, []string{`"verfy"`, "--help"}},
		"argument":            {[]string{"verify", "now"}, []string{`"now"`, "flags"}},
		"unknown flag":        {[]string{"verify", "--emulater"}, []string{"--emulater"}},
		"nothing set":         {[]string{"verify"}, []string{"--endpoint", envEndpoint, "--instance", envKeyID, envSecret}},
		"output":              {[]string{"verify", "--emulator", "-o", "xml"}, []string{"--output", `"xml"`, "table or json"}},
		"unknown check":       {[]string{"verify", "--emulator", "--only", "x"}, []string{`"x"`, "stored-token-ends"}},
		"unknown behaviour":   {[]string{"verify", "--emulator", "--assume", "finish-need-report"}, []string{"--assume", `"finish-need-report"`, "finish-needs-report"}},
		"behaviour alone":     {[]string{"verify", "--assume", "finish-needs-report"}, []string{"--assume", "--emulator"}},
		"two places":          {[]string{"verify", "--emulator", "--endpoint", "http://x"}, []string{"--emulator", "--endpoint"}},
		"timeout":             {[]string{"verify", "--emulator", "--client-timeout", "1500ms"}, []string{"--client-timeout", "whole seconds"}},
		"clean of nothing":    {[]string{"verify", "--emulator", "--clean"}, []string{"--clean"}},
		"insecure endpoint":   {[]string{"verify", "--endpoint", "http://example.com", "--instance", "i"}, []string{envKeyID}},
		"an unfinished value": {[]string{"verify", "--only"}, []string{"--only"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := command(t, test.args...)
			if code != exitUsage || stdout != "" {
				t.Errorf("exit %d, stdout %q", code, stdout)
			}
			for _, want := range test.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("stderr %q does not say %q", stderr, want)
				}
			}
		})
	}
}

func TestVerify_on_the_emulator(t *testing.T) {
	t.Chdir(t.TempDir())
	code, stdout, stderr := command(t, "verify", "--emulator", "--only", "stored-token-ends", "--report", "report.json")
	if code != exitOK || !strings.HasPrefix(stdout, "HOLDS") || !strings.Contains(stdout, "1 of 1 checks hold.") || stderr != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	b, err := os.ReadFile("report.json")
	if err != nil {
		t.Fatal(err)
	}
	var report verify.Report
	if err := json.Unmarshal(b, &report); err != nil || len(report.Results) != 1 || report.Results[0].Outcome != verify.Holds {
		t.Errorf("report %s: %v", b, err)
	}
	if left, _ := filepath.Glob("*.made.json"); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

func TestVerify_fails_where_an_assumption_is_refuted(t *testing.T) {
	t.Chdir(t.TempDir())
	code, stdout, _ := command(t, "verify", "--emulator", "--assume", "sequence-may-grow", "--only", "sequence-number-is-exact")
	if code != exitFailed || !strings.HasPrefix(stdout, "REFUTED") || !strings.Contains(stdout, "not true: ") {
		t.Errorf("exit %d, stdout %q", code, stdout)
	}
}

func TestVerify_as_JSON_prints_nothing_else_on_stdout(t *testing.T) {
	t.Chdir(t.TempDir())
	_, stdout, stderr := command(t, "verify", "--emulator", "--only", "stored-token-ends", "-o", "json")
	var report verify.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || !strings.HasPrefix(stderr, "HOLDS") {
		t.Errorf("stdout %q (%v), stderr %q", stdout, err, stderr)
	}
}

func TestVerify_says_before_what_it_would_make(t *testing.T) {
	noConnection(t)
	for args, want := range map[string]string{"--dry-run": "at most 8 tables", "--list": "stored-token-ends"} {
		if code, stdout, stderr := command(t, "verify", args); code != exitOK || !strings.Contains(stdout, want) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}

// built is the directory of the built command; TestMain removes it.
var built string

// binary builds the command.
var binary = sync.OnceValues(func() (path string, err error) {
	if built, err = os.MkdirTemp("", "ots-test-"); err != nil {
		return "", err
	}
	path = filepath.Join(built, "ots")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return string(out), err
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// process starts ots verify as a process, against an emulator of this test.
func process(t *testing.T, em *emulator.Emulator, dir string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	return start(t, em, dir, append([]string{"verify"}, args...)...)
}

// start starts the command as a process, against an emulator of this test.
func start(t *testing.T, em *emulator.Emulator, dir string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(path, err)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), envEndpoint+"="+em.Endpoint(), envInstance+"=i", envKeyID+"=id", envSecret+"=secret", envToken+"=", envRegion+"=")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, &out
}

// tables lists the emulator's tables.
func tables(t *testing.T, em *emulator.Emulator) []string {
	t.Helper()
	resp, err := tablestore.NewClient(em.Endpoint(), "i", "id", "secret").ListTable()
	if err != nil {
		t.Fatal(err)
	}
	return resp.TableNames
}

// awaitTables waits until the run has made tables.
func awaitTables(t *testing.T, em *emulator.Emulator) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); len(tables(t, em)) == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no table was created")
		}
	}
}

// Another table of the instance, which no run may touch.
const bystander = "orders"

func started(t *testing.T) *emulator.Emulator {
	t.Helper()
	em, err := emulator.Start(emulator.Options{Instance: "i", AccessKeyID: "id", AccessKeySecret: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { em.Close() })
	return em
}

func TestVerify_removes_what_it_made_when_it_is_interrupted(t *testing.T) {
	em, dir := started(t), t.TempDir()
	cmd, out := process(t, em, dir)
	awaitTables(t, em)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // its exit code counts
	if code := cmd.ProcessState.ExitCode(); code != exitError || !strings.Contains(out.String(), "interrupted") {
		t.Errorf("exit %d: %s", code, out)
	}
	if left := tables(t, em); len(left) > 0 {
		t.Errorf("the tables %v are left", left)
	}
}

func TestVerify_clean_removes_what_a_killed_run_left_and_nothing_else(t *testing.T) {
	em, dir := started(t), t.TempDir()
	cmd, _ := process(t, em, dir)
	awaitTables(t, em)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // it was killed
	if err := em.CreateTable(bystander, emulator.Key("id", emulator.String)); err != nil {
		t.Fatal(err)
	}
	cleaner, out := process(t, em, dir, "--clean")
	if err := cleaner.Wait(); err != nil || !strings.Contains(out.String(), "Deleted otsverify_") {
		t.Errorf("%v: %s", err, out)
	}
	if left := tables(t, em); len(left) != 1 || left[0] != bystander {
		t.Errorf("the tables are %v, want %s", left, bystander)
	}
	again, out := process(t, em, dir, "--clean")
	if err := again.Wait(); err != nil || !strings.Contains(out.String(), "nothing to delete") {
		t.Errorf("%v: %s", err, out)
	}
}
