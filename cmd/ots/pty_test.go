//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// terminal is a pseudo-terminal and what was written to it.
type terminal struct {
	control, side *os.File

	mu   sync.Mutex
	text strings.Builder
}

// openTerminal opens a pseudo-terminal and reads what is written to it until the test ends.
func openTerminal(t *testing.T) *terminal {
	t.Helper()
	control, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(control.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(control.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	side, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{control: control, side: side}
	var reader sync.WaitGroup
	reader.Go(func() { // ends when the last other side is closed
		buf := make([]byte, 4096)
		for {
			n, err := control.Read(buf)
			term.mu.Lock()
			term.text.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	t.Cleanup(func() { side.Close(); reader.Wait(); control.Close() })
	return term
}

func (term *terminal) String() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.text.String()
}

// on starts the command with all streams on the terminal.
func (term *terminal) on(t *testing.T, em *emulator.Emulator, args ...string) *exec.Cmd {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(path, err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), envEndpoint+"="+em.Endpoint(), envInstance+"=i", envKeyID+"=id", envSecret+"=secret", "TERM=xterm", "NO_COLOR=")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = term.side, term.side, term.side
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() }) // a test that failed has left it
	return cmd
}

func TestTerminal_tail_has_colours(t *testing.T) {
	em := connected(t)
	rows(t, em)
	term := openTerminal(t)
	if err := term.on(t, em, "tunnel", "tail", "--table", "demo", "--since", "earliest", "--max", "4").Wait(); err != nil {
		t.Fatal(err, term)
	}
	eventually(t, "the last line", func() bool { return strings.Contains(term.String(), "\x1b[31mdelete\x1b[0m [1]") })
	if !strings.Contains(term.String(), "\x1b[32mput   \x1b[0m [1]") {
		t.Errorf("the screen is %q", term)
	}
}

func TestTerminal_watch_replaces_its_view(t *testing.T) {
	em := connected(t)
	succeeds(t, "tunnel", "create", "demo/orders")
	term := openTerminal(t)
	cmd := term.on(t, em, "tunnel", "watch", "demo/orders", "--interval", "100ms")
	eventually(t, "three views", func() bool { return strings.Count(term.String(), "\x1b[H\x1b[2J") >= 3 })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
}

func TestTerminal_is_asked_before_something_is_deleted(t *testing.T) {
	em := connected(t)
	withLetters(t, em)
	term := openTerminal(t)
	cmd := term.on(t, em, "letters", "purge", "dead", "--all")
	eventually(t, "the question", func() bool { return strings.Contains(term.String(), "[y/N]") })
	if _, err := term.control.WriteString("y\n"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err, term)
	}
	eventually(t, "the bar and the result", func() bool {
		return strings.Contains(term.String(), "[##############################] 4/4") && strings.Contains(term.String(), "Deleted 4 letters.")
	})
}

// Without a terminal there is no answer, so the command refuses.
func TestDestructive_commands_need_yes_where_there_is_no_terminal(t *testing.T) {
	em := connected(t)
	succeeds(t, "tunnel", "create", "demo/orders")
	cmd, out := start(t, em, t.TempDir(), "tunnel", "delete", "demo/orders") // its input is /dev/null
	cmd.Wait()                                                               // its exit code counts
	if code := cmd.ProcessState.ExitCode(); code != exitUsage || !strings.Contains(out.String(), "--yes") {
		t.Errorf("exit %d: %s", code, out)
	}
	succeeds(t, "tunnel", "describe", "demo/orders")
}

func TestTail_into_a_closed_pipe_ends_well_and_removes_its_tunnel(t *testing.T) {
	em := connected(t)
	rows(t, em)
	path, err := binary()
	if err != nil {
		t.Fatal(path, err)
	}
	cmd := exec.Command(path, "tunnel", "tail", "--table", "demo", "--since", "earliest", "-q")
	cmd.Env = append(os.Environ(), envEndpoint+"="+em.Endpoint(), envInstance+"=i", envKeyID+"=id", envSecret+"=secret")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }() // ends with the process
	for i := 10; ; i++ {
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%v", err)
			}
			if got := succeeds(t, "tunnel", "list"); strings.Contains(got, ownTunnelPrefix) {
				t.Errorf("a tunnel is left:\n%s", got)
			}
			return
		case <-time.After(50 * time.Millisecond):
			if err := em.Put("demo", emulator.Row{"id": i}); err != nil {
				t.Fatal(err)
			}
			if i > 600 {
				t.Fatal("it does not end")
			}
		}
	}
}
