// Package exampletest runs an example as a separate process, for its test.
package exampletest

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// runAsProgram is the environment variable that makes a test binary run the
// example.
const runAsProgram = "EXAMPLE_RUN"

// limit is how long any step of an example may take.
const limit = 60 * time.Second

// Main is for TestMain: it lets the test binary run the example, whose main
// function is given.
func Main(m *testing.M, main func()) {
	if os.Getenv(runAsProgram) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Program is a running example. It is for the test's goroutine.
type Program struct {
	t       *testing.T
	cmd     *exec.Cmd
	out     output
	overdue *time.Timer
}

// output collects what a process prints, and signals when text that matches awaited
// has been printed. It may be read after waiting for the process.
type output struct {
	text    bytes.Buffer
	awaited *regexp.Regexp // nil: nothing, or it was seen
	seen    chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.text.Write(p)
	if o.awaited != nil && o.awaited.Match(o.text.Bytes()) {
		o.awaited = nil
		close(o.seen)
	}
	return n, err
}

// Start starts the example in an empty directory, which must also be empty at
// the end. It adds env to the environment, from which it removes the caller's
// AWS_ variables and DATABASE_URL. The example is killed if it takes too long. awaited is
// the regular expression that Await, Interrupt and Kill wait for, "" if none is called.
func Start(t *testing.T, awaited string, env []string, args ...string) *Program {
	t.Helper()
	p := &Program{t: t, cmd: exec.Command(os.Args[0], args...), out: output{seen: make(chan struct{})}}
	if awaited != "" {
		p.out.awaited = regexp.MustCompile(awaited)
	}
	p.cmd.Dir = t.TempDir()
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "AWS_") && !strings.HasPrefix(v, "DATABASE_URL=") {
			p.cmd.Env = append(p.cmd.Env, v)
		}
	}
	p.cmd.Env = append(append(p.cmd.Env, runAsProgram+"=1"), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.overdue = time.AfterFunc(limit, func() { _ = p.cmd.Process.Kill() }) // fails if it has ended
	t.Cleanup(func() {
		p.overdue.Stop()
		_ = p.cmd.Process.Kill() // if the test failed half way
		files, err := os.ReadDir(p.cmd.Dir)
		if err != nil || len(files) > 0 {
			t.Errorf("the example left files behind: %v %v", files, err)
		}
	})
	return p
}

// Await waits for the text given to Start.
func (p *Program) Await() {
	p.t.Helper()
	select {
	case <-p.out.seen:
	case <-time.After(limit):
		p.t.Fatalf("the example did not print the awaited text within %v", limit)
	}
}

// Interrupt waits for the text given to Start, and then sends the signal of
// Ctrl-C.
func (p *Program) Interrupt() {
	p.t.Helper()
	p.Await()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		p.t.Fatal(err)
	}
}

// Kill waits for the text that Start was given, and then kills the example.
func (p *Program) Kill() {
	p.t.Helper()
	p.Await()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	if status := p.WaitStatus(); status != -1 {
		p.t.Fatalf("the example ended with status %d before it was killed:\n%s", status, p.Output())
	}
}

// Wait waits for the example to end with status 0.
func (p *Program) Wait() {
	p.t.Helper()
	if status := p.WaitStatus(); status != 0 {
		p.t.Fatalf("the example ended with status %d:\n%s", status, p.Output())
	}
}

// WaitStatus waits for the example to end and returns its exit status, -1 if it
// was killed.
func (p *Program) WaitStatus() int {
	_ = p.cmd.Wait() // the status says it all
	return p.cmd.ProcessState.ExitCode()
}

// Output returns what was printed. Call it after Wait.
func (p *Program) Output() string { return p.out.text.String() }

// Figure returns a number from the closing table. Call it after Wait.
func (p *Program) Figure(row string) int {
	p.t.Helper()
	m := regexp.MustCompile(`(?m)^  ` + regexp.QuoteMeta(row) + ` +(\d+)`).FindStringSubmatch(p.Output())
	if m == nil {
		p.t.Fatalf("no row %q in\n%s", row, p.Output())
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// Want fails unless the output contains the texts. Call it after Wait.
func (p *Program) Want(texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		if !strings.Contains(p.Output(), text) {
			p.t.Errorf("the output does not say %q:\n%s", text, p.Output())
		}
	}
}
