package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/watermill-ots/watermill-ots/emulator"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// varying are the parts of outputs that differ from run to run, with what stands for them.
// Columns keep their places only with words of one length, so spaces are joined.
var varying = []struct {
	pattern *regexp.Regexp
	text    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`\b[0-9a-f]{16}_[0-9]{6}\b`), "PARTITION"},
	{regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z`), "TIME"},
	{regexp.MustCompile(`"lag_seconds": [0-9.e-]+`), `"lag_seconds": LAG`},
	{regexp.MustCompile(`(?m)(^Lag +|\bWAIT +|demo/orders +|OPEN +)([0-9.]+m?s)\b`), "${1}LAG"},
	{regexp.MustCompile(`ots-tail-[0-9a-z]{10}`), "ots-tail-RANDOM"},
	{regexp.MustCompile(`http://127.0.0.1:[0-9]+`), "ENDPOINT"},
	{regexp.MustCompile(`[0-9a-f]{8}:[0-9a-f]{16}:[0-9a-f]{8}`), "SEQUENCE"},
	{regexp.MustCompile(`"timestamp":[0-9]+`), `"timestamp":MICROS`},
	{regexp.MustCompile(` {2,}`), "  "},
}

// golden compares an output with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	for _, v := range varying {
		got = v.pattern.ReplaceAllString(got, v.text)
	}
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run go test -update", err)
	}
	if got != string(want) {
		t.Errorf("the output differs from %s (go test -update rewrites it); got:\n%s\nwant:\n%s", path, got, want)
	}
}

// connected starts an emulator with two tables, and lets the environment name it.
func connected(t *testing.T) *emulator.Emulator {
	t.Helper()
	em := started(t)
	noConnection(t)
	for name, value := range map[string]string{envEndpoint: em.Endpoint(), envInstance: "i", envKeyID: "id", envSecret: "secret"} {
		t.Setenv(name, value)
	}
	if err := em.CreateTable("demo", emulator.Key("id", emulator.Integer)); err != nil {
		t.Fatal(err)
	}
	if err := em.CreateTable("users", emulator.Key("region", emulator.String), emulator.Key("n", emulator.AutoIncrement)); err != nil {
		t.Fatal(err)
	}
	return em
}

// succeeds runs a command that must succeed, and returns what it prints on stdout.
func succeeds(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := command(t, args...)
	if code != exitOK {
		t.Fatalf("ots %v: exit %d, stdout %q, stderr %q", args, code, stdout, stderr)
	}
	return stdout
}
