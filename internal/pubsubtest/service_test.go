package pubsubtest

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

const (
	instance  = "pubsubtest"
	keyID     = "pubsubtest-id"
	keySecret = "pubsubtest-secret"
)

// service is an emulator process that can be killed and restarted with the same
// data directory and addresses.
//
// Invariants:
//   - The process belongs to the goroutine of run; others send requests through
//     restarts.
//   - endpoint and admin never change after startService has returned.
type service struct {
	dir      string // for data, and the log of all processes
	endpoint string // URL of the Tablestore API
	admin    string // URL of the emulator's admin API
	control  string // URL that restarts the process

	process  *exec.Cmd
	restarts chan chan error
	stop     chan struct{}
	ended    chan error // the result of the last process
}

// startService starts an emulator and stops it at the end of the test.
func startService(t *testing.T) *service {
	t.Helper()
	s := &service{
		dir:      t.TempDir(),
		restarts: make(chan chan error), stop: make(chan struct{}), ended: make(chan error, 1),
	}
	if err := s.start("127.0.0.1:0", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	go s.run() // ends with stop; the cleanup waits for it
	control := httptest.NewServer(http.HandlerFunc(s.serveRestart))
	s.control = control.URL
	t.Cleanup(func() {
		control.Close()
		close(s.stop)
		if err := <-s.ended; err != nil {
			t.Errorf("ending the emulator: %v", err)
		}
		if t.Failed() {
			t.Logf("the emulator's log:\n%s", s.log())
		}
	})
	return s
}

// restartCommand is the command with which the suite restarts the service: this
// test binary, which asks run to restart it.
func (s *service) restartCommand(t *testing.T) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{self, "-restart", s.control}
}

func (s *service) serveRestart(w http.ResponseWriter, _ *http.Request) {
	done := make(chan error, 1)
	s.restarts <- done
	if err := <-done; err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// run owns the process until stop is closed.
func (s *service) run() {
	for {
		select {
		case done := <-s.restarts:
			done <- s.restart()
		case <-s.stop:
			s.ended <- s.end()
			return
		}
	}
}

// restart kills the process as a crash would, and starts another one.
func (s *service) restart() error {
	if err := s.process.Process.Kill(); err != nil {
		return fmt.Errorf("killing the emulator: %w", err)
	}
	_ = s.process.Wait() // the error says that it was killed
	return s.start(strings.TrimPrefix(s.endpoint, "http://"), strings.TrimPrefix(s.admin, "http://"))
}

// end stops the process with a signal and waits for it.
func (s *service) end() error {
	if err := s.process.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	return s.process.Wait()
}

var adminLine = regexp.MustCompile(`msg="admin API" endpoint=(http://\S+)`)

// start starts a process and waits until it serves.
func (s *service) start(addr, admin string) error {
	binary, err := buildEmulator()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	s.process = exec.Command(binary, "-addr", addr, "-admin-addr", admin, "-data-dir", filepath.Join(s.dir, "data"),
		"-instance", instance, "-access-key-id", keyID, "-access-key-secret", keySecret)
	s.process.Stderr = log
	stdout, err := s.process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.process.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	endpoint, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if !ok {
		return errors.Join(fmt.Errorf("the emulator did not start, its first line is %q (%v): %s", line, err, s.log()), s.process.Wait())
	}
	// The admin API's address is logged before the first line on stdout.
	found := adminLine.FindStringSubmatch(s.log())
	if found == nil {
		return fmt.Errorf("the emulator's log does not name its admin API: %s", s.log())
	}
	if s.endpoint == "" {
		s.endpoint, s.admin = endpoint, found[1]
	}
	if endpoint != s.endpoint {
		return fmt.Errorf("the emulator restarted at %s instead of %s", endpoint, s.endpoint)
	}
	return nil
}

func (s *service) logFile() string { return filepath.Join(s.dir, "emulator.log") }

func (s *service) log() string {
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// split divides a partition of the table.
func (s *service) split(table string) error {
	resp, err := http.Post(s.admin+"/tables/"+table+"/split", "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("splitting table %s: %s", table, resp.Status)
	}
	return nil
}

var emulatorDir string // of the built command; empty until it is built

// buildEmulator builds cmd/ots-emulator once for all tests.
var buildEmulator = sync.OnceValues(func() (string, error) {
	var err error
	if emulatorDir, err = os.MkdirTemp("", "pubsubtest"); err != nil {
		return "", err
	}
	binary := filepath.Join(emulatorDir, "ots-emulator")
	out, err := exec.Command("go", "build", "-o", binary, "github.com/watermill-ots/watermill-ots/cmd/ots-emulator").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the emulator: %w\n%s", err, out)
	}
	return binary, nil
})

func removeEmulator() error {
	if emulatorDir == "" {
		return nil
	}
	return os.RemoveAll(emulatorDir)
}
