package cli_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/watermill-ots/watermill-ots/examples/cli"
)

// TestMain lets the test binary be a program that only reads its flags.
func TestMain(m *testing.M) {
	if os.Getenv("EXAMPLE_RUN") != "" {
		cli.ParseFlags()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestParseFlags_prints_help_to_stdout_and_faults_to_stderr(t *testing.T) {
	for arg, want := range map[string]struct {
		stdout, stderr string
		status         int
	}{
		"-h":     {stdout: "Usage of cli.test"},
		"--help": {stdout: "Usage of cli.test"},
		"-bogus": {stderr: "not defined: -bogus", status: 2},
	} {
		var stdout, stderr bytes.Buffer
		p := exec.Command(os.Args[0], arg)
		p.Env = append(os.Environ(), "EXAMPLE_RUN=1")
		p.Stdout, p.Stderr = &stdout, &stderr
		_ = p.Run() // the status says it all
		if p.ProcessState.ExitCode() != want.status || !strings.Contains(stdout.String(), want.stdout) || !strings.Contains(stderr.String(), want.stderr) ||
			(want.stdout == "") != (stdout.Len() == 0) || (want.stderr == "") != (stderr.Len() == 0) {
			t.Errorf("%s: status %d, stdout %q, stderr %q", arg, p.ProcessState.ExitCode(), stdout.String(), stderr.String())
		}
	}
}
