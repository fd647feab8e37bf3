package docs

import (
	"bufio"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/internal/testsize"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// build returns the README's program, built once for all tests.
func build(t *testing.T) (program string) {
	t.Helper()
	program, err := readmeProgram()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

var readmeProgram = sync.OnceValues(func() (string, error) {
	return compile(filepath.Join(programs, "readme"))
})

// programs is a directory for programs, which exists while the tests run.
var programs string

func TestMain(m *testing.M) {
	var err error
	if programs, err = os.MkdirTemp("", "docs"); err != nil {
		log.Fatal(err)
	}
	code := m.Run()
	if err := os.RemoveAll(programs); err != nil {
		log.Fatal(err)
	}
	os.Exit(code)
}

// compile builds the README's program in a directory that it creates, with parts of the
// source replaced: old, new, ...
func compile(dir string, replace ...string) (program string, err error) {
	readme, err := os.ReadFile(english)
	if err != nil {
		return "", err
	}
	code, _ := blocks(string(readme))
	at := slices.IndexFunc(code, func(b block) bool { return strings.HasPrefix(b.code, "package main") })
	if at < 0 {
		return "", errors.New("the README has no program")
	}
	source := code[at].code
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(source, replace[i]) {
			return "", fmt.Errorf("the program does not have %q", replace[i])
		}
		source = strings.ReplaceAll(source, replace[i], replace[i+1])
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	file, program := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-o", program, file).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return program, nil
}

// process is the README's program, running.
type process struct {
	*exec.Cmd
	started chan struct{} // closed when it has logged something: it hears signals after that
	first   chan struct{} // closed when it has printed something
	read    sync.WaitGroup

	mu      sync.Mutex
	printed []string
	logged  strings.Builder
}

// start starts the program, as a consumer of the emulator. It is killed when the
// test ends, or takes a minute.
func start(t *testing.T, program, endpoint string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(program), started: make(chan struct{}), first: make(chan struct{})}
	p.Env = append(os.Environ(), "OTS_ENDPOINT="+endpoint, "OTS_INSTANCE=shop", "OTS_ACCESS_KEY_ID=id", "OTS_ACCESS_KEY_SECRET=secret")
	stdout, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(time.Minute, func() { _ = p.Process.Kill() }) // end tells
	t.Cleanup(func() { limit.Stop(); _ = p.Process.Kill() })              // if the test failed half way
	p.read.Go(func() {                                                    // ends with the process
		var once sync.Once
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			p.mu.Lock()
			p.printed = append(p.printed, lines.Text())
			p.mu.Unlock()
			once.Do(func() { close(p.first) })
		}
	})
	p.read.Go(func() { // ends with the process
		var once sync.Once
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.mu.Lock()
			p.logged.WriteString(lines.Text() + "\n")
			p.mu.Unlock()
			once.Do(func() { close(p.started) })
		}
	})
	return p
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Errorf("%v: %v", s, err)
	}
}

// await waits for one of the process's channels.
func (p *process) await(t *testing.T, event <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-event:
	case <-time.After(50 * time.Second):
		t.Fatalf("the program has not %s after 50s", what)
	}
}

// end waits for the process's end, which must be a good one.
func (p *process) end(t *testing.T) {
	t.Helper()
	p.read.Wait()
	if err := p.Wait(); err != nil {
		t.Errorf("the program ended with %v\n%s", err, p.logged.String())
	}
}

// shop is an emulator with the table and the tunnel of the README's program.
func shop(t *testing.T, typ subscriber.TunnelType) (*emulator.Emulator, *tablestore.TableStoreClient) {
	t.Helper()
	em, err := emulator.Start(emulator.Options{Instance: "shop", AccessKeyID: "id", AccessKeySecret: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { em.Close() })
	client := tablestore.NewClient(em.Endpoint(), "shop", "id", "secret")
	meta := &tablestore.TableMeta{TableName: "orders"}
	meta.AddPrimaryKeyColumn("id", tablestore.PrimaryKeyType_INTEGER)
	_, err = client.CreateTable(&tablestore.CreateTableRequest{
		TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24},
	})
	if err != nil {
		t.Fatal(err)
	}
	if typ == subscriber.BaseAndStream {
		for id, amount := range map[int64]int64{1: 250, 2: 90} {
			putOrder(t, client, id, amount)
		}
	}
	sub, err := subscriber.New(subscriber.Config{
		Endpoint: em.Endpoint(), Instance: "shop", AccessKeyID: "id", AccessKeySecret: "secret",
		Tunnel: subscriber.TunnelSpec{Type: typ},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if err := sub.SubscribeInitialize("orders/to-warehouse"); err != nil {
		t.Fatal(err)
	}
	return em, client
}

func putOrder(t *testing.T, client *tablestore.TableStoreClient, id, amount int64) {
	t.Helper()
	put := &tablestore.PutRowChange{TableName: "orders", PrimaryKey: new(tablestore.PrimaryKey)}
	put.PrimaryKey.AddPrimaryKeyColumn("id", id)
	put.AddColumn("amount", amount)
	put.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	if _, err := client.PutRow(&tablestore.PutRowRequest{PutRowChange: put}); err != nil {
		t.Error(err)
	}
}

// The example has a comment above the package, and the README's program has not.
func TestReadme_program_is_the_example(t *testing.T) {
	_, example, _ := strings.Cut(read(t, "../examples/consumer/main.go"), "\npackage main\n")
	code, _ := blocks(read(t, english))
	if !slices.Contains(code, block{"go", "package main\n" + example}) {
		t.Error("README.md does not have examples/consumer/main.go")
	}
}

func TestReadme_program_prints_each_change_and_ends_at_a_signal(t *testing.T) {
	program := build(t)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		em, _ := shop(t, subscriber.BaseAndStream)
		p := start(t, program, em.Endpoint())
		testbed.Eventually(t, 30*time.Second, "both orders are printed", func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return len(p.printed) >= 2
		})
		p.signal(t, s)
		p.end(t)
		slices.Sort(p.printed)
		want := []string{
			`[1] {"type":"put","key":{"id":1},"columns":{"amount":250}}`,
			`[2] {"type":"put","key":{"id":2},"columns":{"amount":90}}`,
		}
		if !slices.Equal(p.printed, want) {
			t.Errorf("the program printed %q\n%s", p.printed, p.logged.String())
		}
	}
}

func TestReadme_program_ends_at_once_at_the_second_signal(t *testing.T) {
	em, client := shop(t, subscriber.Stream)
	program, err := compile(t.TempDir(), "return nil // acks", "select {} // acks")
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, program, em.Endpoint())
	p.await(t, p.started, "started")
	putOrder(t, client, 1, 1)
	p.await(t, p.first, "printed anything")
	began := time.Now()
	p.signal(t, syscall.SIGTERM)
	time.Sleep(500 * time.Millisecond) // it drains, and would for CloseTimeout, 10s
	if p.Process.Signal(syscall.Signal(0)) != nil {
		t.Fatal("the first signal ended it at once")
	}
	p.signal(t, syscall.SIGTERM)
	p.read.Wait()
	_ = p.Wait() // the status says it all
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it ended %v after the first signal", took)
	}
	if status, ok := p.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v", p.ProcessState)
	}
}

func TestReadme_program_ends_with_an_error_when_its_tunnel_is_deleted(t *testing.T) {
	em, client := shop(t, subscriber.Stream)
	p := start(t, build(t), em.Endpoint())
	putOrder(t, client, 1, 1)
	p.await(t, p.first, "printed anything")
	tunnels := tunnel.NewTunnelClient(em.Endpoint(), "shop", "id", "secret")
	if _, err := tunnels.DeleteTunnel(&tunnel.DeleteTunnelRequest{TableName: "orders", TunnelName: "to-warehouse"}); err != nil {
		t.Fatal(err)
	}
	p.read.Wait()
	_ = p.Wait() // the status says it all
	if code := p.ProcessState.ExitCode(); code != 1 || !strings.Contains(p.logged.String(), "orders/to-warehouse") {
		t.Errorf("it ended with status %d:\n%s", code, p.logged.String())
	}
}

// TestReadme_program_that_SIGTERM_ends_hands_over_at_once: at whatever moment it comes,
// the next process, which starts with the signal or when the first one has ended,
// handles the next change within two seconds, and no change is lost or comes twice.
func TestReadme_program_that_SIGTERM_ends_hands_over_at_once(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds programs and ends them many times; -short leaves it out")
	}
	program := build(t)
	em, client := shop(t, subscriber.Stream)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	var writes sync.WaitGroup
	stop, written := make(chan struct{}), int64(0)
	writes.Go(func() { // ends with stop
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				written++
				putOrder(t, client, written, written)
			}
		}
	})
	p := start(t, program, em.Endpoint())
	processes := []*process{p}
	var took []time.Duration
	rounds := 3
	if testsize.Full() {
		rounds = 9
	}
	for round := range rounds {
		p.await(t, p.started, "started")
		time.Sleep(time.Duration(random.Int64N(int64(1500 * time.Millisecond)))) // while it connects, reads, idles, commits
		signalled := time.Now()
		p.signal(t, syscall.SIGTERM)
		if round%2 == 0 {
			p.end(t)
		}
		next := start(t, program, em.Endpoint())
		if round%2 == 1 {
			p.end(t)
		}
		next.await(t, next.first, "printed anything")
		took = append(took, time.Since(signalled))
		p = next
		processes = append(processes, p)
	}
	close(stop)
	writes.Wait()
	printed := make(map[string]int)
	all := func() int {
		clear(printed)
		for _, p := range processes {
			p.mu.Lock()
			for _, line := range p.printed {
				key, _, _ := strings.Cut(line, " ")
				printed[key]++
			}
			p.mu.Unlock()
		}
		return len(printed)
	}
	testbed.Eventually(t, 30*time.Second, "every change is handled", func() bool { return all() == int(written) })
	p.signal(t, syscall.SIGTERM)
	p.end(t)
	all()
	for key, n := range printed {
		if n != 1 {
			t.Errorf("order %s was handled %d times", key, n)
		}
	}
	slices.Sort(took)
	t.Logf("%d changes; from SIGTERM to the next process's first change: %v", written, took)
	// The median, since a machine that is busy with something else may stop a process for seconds.
	if median := took[len(took)/2]; median >= 2*time.Second {
		t.Errorf("the hand-over took %v in the median: %v", median, took)
	}
}

// A handler that hangs costs both timeouts in sequence: with those of the README
// and the manifest the program must end by itself.
func TestReadme_program_with_a_handler_that_hangs_ends_within_the_grace_period_of_the_manifest(t *testing.T) {
	number := func(path, pattern string) time.Duration {
		m := regexp.MustCompile(pattern).FindStringSubmatch(read(t, path))
		if m == nil {
			t.Fatalf("%s has no %s", path, pattern)
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(n) * time.Second
	}
	router := number(english, `RouterConfig\{CloseTimeout: (\d+) \* time\.Second\}`)
	grace := number("operations.md", `terminationGracePeriodSeconds: (\d+)`)
	if router <= subscriber.DefaultCloseTimeout || subscriber.DefaultCloseTimeout+router > grace-4*time.Second {
		t.Errorf("the subscriber drains for %v, then the Router waits for %v: that must end within %v", subscriber.DefaultCloseTimeout, router, grace)
	}
}
