package laws

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// process is a running consumer process.
type process struct {
	*exec.Cmd
	output *output
}

// start starts the consumer, and waits until it handles signals.
func (c consumer) start(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), c.env())
	cmd.Dir = t.TempDir() // where the SDK would leave a log file
	p := &process{Cmd: cmd, output: new(output)}
	cmd.Stderr = p.output
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != consuming {
		t.Fatalf("a consumer's first line is %q, %v\n%s", line, err, p.output)
	}
	return p
}

// kill kills the process.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.Process.Kill(); err != nil {
		t.Fatalf("killing a process: %v\n%s", err, p.output)
	}
	_ = p.Wait() // the error says that it was killed
	if state := p.ProcessState.Sys().(syscall.WaitStatus); !state.Signaled() {
		t.Fatalf("a process ended by itself before it was killed: %v\n%s", p.ProcessState, p.output)
	}
}

// signal sends a signal.
func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatalf("sending %v to a process: %v\n%s", s, err, p.output)
	}
}

// alive reports whether the process is still running.
func (p *process) alive() bool { return p.Process.Signal(syscall.Signal(0)) == nil && !p.defunct() }

// defunct reports whether the process has ended and was not waited for yet.
func (p *process) defunct() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	if err != nil {
		return false // no such file on this system: rely on the signal
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "Z")
}

// terminate asks the process to end and checks that it ends cleanly.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	if err := p.Wait(); err != nil {
		t.Fatalf("a process did not end cleanly: %v\n%s", err, p.output)
	}
	if entries, err := os.ReadDir(p.Dir); err != nil || len(entries) > 0 {
		t.Errorf("a process left files behind: %v %v", entries, err)
	}
}

// output keeps the end of a process's output. Its methods may be called
// concurrently.
type output struct {
	mu  sync.Mutex
	end []byte
}

// shownOutput is how much of the output is shown.
const shownOutput = 4000

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.end = append(o.end, p...)
	if len(o.end) > 16*shownOutput {
		o.end = append(o.end[:0], o.end[len(o.end)-shownOutput:]...)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.end) > shownOutput {
		return "..." + string(o.end[len(o.end)-shownOutput:])
	}
	return string(o.end)
}
