package docs

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/watermill-ots/watermill-ots/internal/testbed"
)

// terminal is a shell in the repository's folder, with the commands of a document.
type terminal struct {
	*exec.Cmd
	read sync.WaitGroup

	mu  sync.Mutex
	out []string
}

// open runs commands in a terminal, which is closed with the test.
func open(t *testing.T, commands string) *terminal {
	t.Helper()
	term := &terminal{Cmd: exec.Command("sh", "-e", "-c", commands)}
	term.Dir = ".."
	term.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // go run is the parent of what it runs
	stdout, err := term.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	term.Stderr = term.Stdout
	if err := term.Start(); err != nil {
		t.Fatal(err)
	}
	term.read.Go(func() { // ends with the processes
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			term.mu.Lock()
			term.out = append(term.out, lines.Text())
			term.mu.Unlock()
		}
	})
	t.Cleanup(func() { term.signal(syscall.SIGKILL); term.read.Wait(); _ = term.Wait() })
	return term
}

// signal is Ctrl-C in the terminal, or another signal.
func (term *terminal) signal(s syscall.Signal) { _ = syscall.Kill(-term.Process.Pid, s) } // it may have ended

// has reports whether a line that matches was printed.
func (term *terminal) has(line *regexp.Regexp) bool {
	term.mu.Lock()
	defer term.mu.Unlock()
	for _, l := range term.out {
		if line.MatchString(l) {
			return true
		}
	}
	return false
}

// shows waits until each line is printed. An … in a line is anything.
func (term *terminal) shows(t *testing.T, lines string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		pattern := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*") + "$")
		testbed.Eventually(t, time.Minute, "printed "+line, func() bool { return term.has(pattern) })
	}
}

// TestNewcomer_follows_first_consumer: the commands of the page, in their order, print what
// the page says. Only the ports are others, since a developer's emulator may run here.
func TestNewcomer_follows_first_consumer(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds and runs programs; -short leaves it out")
	}
	ports := make([]string, 2)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, ports[i], _ = net.SplitHostPort(l.Addr().String())
		l.Close()
	}
	code, _ := blocks(read(t, "first-consumer.md"))
	find := func(language, part string) string {
		for _, b := range code {
			if b.language == language && strings.Contains(b.code, part) {
				return strings.NewReplacer(":8087", ":"+ports[0], ":8089", ":"+ports[1]).Replace(b.code)
			}
		}
		t.Fatalf("first-consumer.md has no block of %q with %q", language, part)
		return ""
	}
	if seed, err := os.ReadFile("../examples/consumer/tables.yaml"); err != nil || !strings.Contains(string(seed), find("yaml", "orders:")) {
		t.Errorf("examples/consumer/tables.yaml is not what the page shows: %v", err)
	}
	for _, command := range []string{"go run ./cmd/ots-emulator ", "export OTS_ENDPOINT="} {
		for line := range strings.Lines(read(t, "first-consumer.md")) {
			if line = strings.TrimPrefix(strings.TrimSpace(line), "export "); strings.HasPrefix(line, strings.TrimPrefix(command, "export ")) && !strings.Contains(line, "…") && !strings.Contains(read(t, english), line) {
				t.Errorf("README.md starts it in another way: %s", line)
			}
		}
	}
	start := strings.Replace(find("sh", "./cmd/ots-emulator"), "./cmd/ots-emulator", "./cmd/ots-emulator --addr 127.0.0.1:"+ports[0], 1)
	emulator := open(t, start)
	emulator.shows(t, "listening on http://127.0.0.1:"+ports[0])

	consume := find("sh", "go run ./examples/consumer")
	consumer := open(t, consume)
	consumer.shows(t, find("", `"amount":90`))
	writes := find("sh", "/put -d")
	if out, err := exec.Command("sh", "-e", "-c", writes).CombinedOutput(); err != nil {
		if _, missing := exec.LookPath("curl"); missing != nil {
			t.Skip("curl is not installed")
		}
		t.Fatalf("%v\n%s", err, out)
	}
	consumer.shows(t, find("", `"paid":true`))

	// Ctrl-C, a change, the next start: that change and nothing else.
	consumer.signal(syscall.SIGINT)
	consumer.read.Wait()
	put := fmt.Sprintf(`curl -s 127.0.0.1:%s/tables/orders/put -d '{"id": 4, "amount": 40}'`, ports[1])
	if out, err := exec.Command("sh", "-c", put).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	next := open(t, consume)
	next.shows(t, `[4] {"type":"put","key":{"id":4},"columns":{"amount":40},"timestamp":…,"sequence":"…"}`)
	if next.has(regexp.MustCompile(`^\[[123]\] `)) {
		t.Errorf("it prints earlier changes, too: %q", next.out)
	}
}
