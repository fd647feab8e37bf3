package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
)

// TestMain makes the test binary run the command if asked to, so that tests can
// kill a real process.
func TestMain(m *testing.M) {
	if os.Getenv("OTS_EMULATOR_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is a running ots-emulator.
type process struct {
	*exec.Cmd
	t        *testing.T
	endpoint string
	stdout   *bufio.Reader
	stderr   *bytes.Buffer
}

func launch(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0], args...), t: t, stderr: new(bytes.Buffer)}
	p.Env = append(os.Environ(), "OTS_EMULATOR_MAIN=1")
	p.Stderr = p.stderr
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Process.Kill(); p.Wait() })
	p.stdout = bufio.NewReader(out)
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		p.Wait()
		t.Fatalf("no first line: %v; stderr: %s", err, p.stderr)
	}
	match := regexp.MustCompile(`^listening on (http://127\.0\.0\.1:\d+)\n$`).FindStringSubmatch(line)
	if match == nil {
		t.Fatalf("the first line is %q", line)
	}
	p.endpoint = match[1]
	return p
}

// end waits for the process to exit and returns its exit code.
func (p *process) end() int {
	p.t.Helper()
	io.Copy(io.Discard, p.stdout)
	p.Wait()
	return p.ProcessState.ExitCode()
}

// stop stops the process with a signal, as a user would, and expects a clean
// exit.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.end(); code != 0 {
		t.Errorf("exit code %d; stderr: %s", code, p.stderr)
	}
}

func client(endpoint string) *tablestore.TableStoreClient {
	cfg := tablestore.NewDefaultTableStoreConfig()
	cfg.RetryTimes = 0
	return tablestore.NewClientWithConfig(endpoint, "inst", "ak", "sk", "", cfg)
}

func createTable(t *testing.T, c *tablestore.TableStoreClient) {
	t.Helper()
	meta := &tablestore.TableMeta{TableName: "t"}
	meta.AddPrimaryKeyColumn("id", tablestore.PrimaryKeyType_INTEGER)
	if _, err := c.CreateTable(&tablestore.CreateTableRequest{
		TableMeta: meta, TableOption: &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24},
	}); err != nil {
		t.Fatal(err)
	}
}

func put(c *tablestore.TableStoreClient, id int64) error {
	change := &tablestore.PutRowChange{TableName: "t", PrimaryKey: &tablestore.PrimaryKey{}}
	change.PrimaryKey.AddPrimaryKeyColumn("id", id)
	change.AddColumn("n", id)
	change.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	_, err := c.PutRow(&tablestore.PutRowRequest{PutRowChange: change})
	return err
}

func get(c *tablestore.TableStoreClient, id int64) (found bool, err error) {
	q := &tablestore.SingleRowQueryCriteria{TableName: "t", PrimaryKey: &tablestore.PrimaryKey{}, MaxVersion: 1}
	q.PrimaryKey.AddPrimaryKeyColumn("id", id)
	r, err := c.GetRow(&tablestore.GetRowRequest{SingleRowQueryCriteria: q})
	return err == nil && len(r.PrimaryKey.PrimaryKeys) > 0, err
}

func TestCommand(t *testing.T) {
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(fmt.Sprintf("prints where it listens first, and ends cleanly on %v", signal), func(t *testing.T) {
			p := launch(t, "--addr", "127.0.0.1:0", "--instance", "inst", "--access-key-id", "ak", "--access-key-secret", "sk")
			createTable(t, client(p.endpoint))
			p.Process.Signal(signal)
			if code := p.end(); code != 0 {
				t.Errorf("exit code %d; stderr: %s", code, p.stderr)
			}
		})
	}
	t.Run("has no admin API unless asked", func(t *testing.T) {
		p := launch(t, "--addr", "127.0.0.1:0")
		resp, err := http.Post(p.endpoint+"/pause", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("/pause at the service's address gives %s", resp.Status)
		}
	})
	t.Run("accepts the allowed host names", func(t *testing.T) {
		p := launch(t, "--addr", "127.0.0.1:0", "--allowed-host", "one", "--allowed-host", "two")
		for host, want := range map[string]int{"one": 200, "two:8087": 200, "three": 403} {
			req, err := http.NewRequest("POST", p.endpoint+"/ListTable", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("host %s: %s", host, resp.Status)
			}
		}
	})
	t.Run("serves the admin API where asked", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		admin := l.Addr().String()
		l.Close()
		p := launch(t, "--addr", "127.0.0.1:0", "--admin-addr", admin, "--admin-token", "sesame")
		for token, want := range map[string]int{"Bearer sesame": 200, "": 403} {
			req, err := http.NewRequest("GET", "http://"+admin+"/stats", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", token)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("/stats with the token %q gives %s", token, resp.Status)
			}
		}
		p.stop(t)
	})
}

// TestKill kills the process at random moments while rows are written, and
// expects every acknowledged row afterwards.
func TestKill(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	dir := t.TempDir()
	args := []string{"--addr", "127.0.0.1:0", "--data-dir", dir, "--instance", "inst", "--access-key-id", "ak", "--access-key-secret", "sk"}
	p := launch(t, args...)
	createTable(t, client(p.endpoint))
	var next atomic.Int64
	var mu sync.Mutex
	var acked []int64
	const kills = 5
	for range kills {
		c := client(p.endpoint)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					id := next.Add(1)
					if put(c, id) != nil {
						return // killed
					}
					mu.Lock()
					acked = append(acked, id)
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(50+random.IntN(200)) * time.Millisecond) // the moment of death
		p.Process.Kill()
		wg.Wait()
		p.end()
		p = launch(t, args...)
	}
	c := client(p.endpoint)
	for _, id := range acked {
		if found, err := get(c, id); err != nil || !found {
			t.Errorf("row %d was acknowledged and is lost (%v)", id, err)
		}
	}
	t.Logf("%d rows acknowledged over %d kills", len(acked), kills)
	if len(acked) == 0 {
		t.Error("nothing was acknowledged")
	}
}
