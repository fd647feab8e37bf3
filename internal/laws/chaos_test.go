package laws

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/internal/testsize"
)

var (
	chaosSeeds   = flag.Int("chaos.seeds", 0, "how many seeds the chaos test runs; 0: 6 in the full form of tests, 2 otherwise and with -race, 1 with -short")
	chaosRecords = flag.Int("chaos.records", 20_000, "how many records the chaos test writes for each seed")
	chaosSeed    = flag.Uint64("chaos.seed", 0, "run this seed only")
)

const (
	chaosKeys      = 400
	chaosConsumers = 3
	// chaosBatch is the number of rows that are written at once; the writer
	// pauses in between so that the writes take as long as the faults.
	chaosBatch = 100
	chaosPause = 25 * time.Millisecond
	// chaosStall is the longest time without any handled record once all faults
	// have ended and records are missing.
	chaosStall = 90 * time.Second
)

// TestLaws_under_chaos runs three consumer processes and an emulator process
// through a seeded schedule of faults. It checks the laws on what the consumers
// have logged and on the checkpoints that the service had meanwhile.
func TestLaws_under_chaos(t *testing.T) {
	t.Parallel() // it waits in real time
	needsSignals(t)
	binary := buildEmulator(t)
	seeds := make([]uint64, seedsOf(*chaosSeeds, 6))
	first := uint64(time.Now().UnixNano())
	for i := range seeds {
		seeds[i] = first + uint64(i)
	}
	if *chaosSeed != 0 {
		seeds = []uint64{*chaosSeed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed_%d", seed), func(t *testing.T) {
			t.Parallel()
			worlds <- struct{}{}
			defer func() { <-worlds }()
			c := newChaos(t, binary, seed)
			c.run()
			c.check()
		})
	}
}

// worlds bounds the worlds of processes that exist at a time, of all tests together.
var worlds = make(chan struct{}, 2)

// seedsOf returns how many seeds to run: those asked for, or by the form of tests.
func seedsOf(asked, full int) int {
	switch {
	case asked != 0:
		return asked
	case testing.Short():
		return 1
	case testsize.Full() && !raceEnabled:
		return full
	}
	return 2
}

func buildEmulator(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "ots-emulator")
	out, err := exec.Command("go", "build", "-o", binary, "github.com/watermill-ots/watermill-ots/cmd/ots-emulator").CombinedOutput()
	if err != nil {
		t.Fatalf("building the emulator: %v\n%s", err, out)
	}
	return binary
}

// chaos is one world: an emulator process, consumer processes and a writer.
type chaos struct {
	*testing.T
	seed   uint64
	random *rand.Rand
	mode   mode

	binary, addr, admin, dataDir string
	emulator                     *process
	client                       *tablestore.TableStoreClient
	tunnels                      tunnel.TunnelClient
	tunnelID                     string

	consumers []*process
	paused    map[int]time.Time // by consumer: since when it has been stopped
	stops     map[int][]stop    // by process number
	numbers   []int             // process number by consumer
	next      int

	log    *commonLog
	ledger *ledger
	story  strings.Builder // what was done and when, for a failing seed
	began  time.Time
}

func newChaos(t *testing.T, binary string, seed uint64) *chaos {
	c := &chaos{
		T: t, seed: seed, random: rand.New(rand.NewPCG(seed, 1)), binary: binary,
		addr: freeAddr(t), admin: freeAddr(t), dataDir: t.TempDir(), log: newLog(t),
		paused: make(map[int]time.Time), stops: make(map[int][]stop), ledger: newLedger(), began: time.Now(),
	}
	c.mode = []mode{plain, batched, byChannel}[seed%3]
	c.startEmulator()
	t.Cleanup(func() {
		for _, p := range append(slices.Clone(c.consumers), c.emulator) {
			_ = p.Process.Kill() // remaining processes after a failure
			_ = p.Wait()
		}
		if t.Failed() {
			t.Logf("seed %d, mode %s: rerun with -chaos.seed=%d\n%s", seed, c.mode, seed, &c.story)
			for i, p := range c.consumers {
				t.Logf("consumer %d:\n%s", i, p.output)
			}
			t.Logf("emulator:\n%s", c.emulator.output)
		}
	})
	endpoint := "http://" + c.addr
	c.client = tablestore.NewClient(endpoint, testbed.Instance, testbed.KeyID, testbed.KeySecret)
	c.tunnels = tunnel.NewTunnelClient(endpoint, testbed.Instance, testbed.KeyID, testbed.KeySecret)
	if err := testbed.CreateTable(c.client); err != nil {
		t.Fatal(err)
	}
	made, err := c.tunnels.CreateTunnel(&tunnel.CreateTunnelRequest{TableName: testbed.Table, TunnelName: testbed.Tunnel, Type: tunnel.TunnelTypeStream})
	if err != nil {
		t.Fatal(err)
	}
	c.tunnelID = made.TunnelId
	for range chaosConsumers {
		c.consumers, c.numbers = append(c.consumers, nil), append(c.numbers, 0)
		c.startConsumer(len(c.consumers) - 1)
	}
	return c
}

// freeAddr returns an address that stays free while the emulator is down.
// Addresses that the system picks do not: it may also give them to outgoing
// connections.
func freeAddr(t *testing.T) string {
	t.Helper()
	var err error
	for range 100 {
		var l net.Listener
		// Below the range for outgoing connections of Linux (32768) and of all
		// others (49152).
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.N(12000))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal(err)
	return ""
}

func (c *chaos) tell(format string, args ...any) {
	fmt.Fprintf(&c.story, "%6dms ", time.Since(c.began).Milliseconds())
	fmt.Fprintf(&c.story, format+"\n", args...)
}

func (c *chaos) startEmulator() {
	c.Helper()
	cmd := exec.Command(c.binary, "--addr", c.addr, "--admin-addr", c.admin, "--data-dir", c.dataDir, "--instance", testbed.Instance,
		"--access-key-id", testbed.KeyID, "--access-key-secret", testbed.KeySecret, "--fault-seed", fmt.Sprint(c.seed), "-v")
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.Fatal(err)
	}
	p := &process{Cmd: cmd, output: new(output)}
	cmd.Stderr = p.output
	if err := cmd.Start(); err != nil {
		c.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "listening on http://"+c.addr+"\n" {
		c.Fatalf("the emulator's first line is %q, %v\n%s", line, err, p.output)
	}
	c.emulator = p
}

func (c *chaos) startConsumer(i int) {
	c.Helper()
	c.numbers[i] = c.next
	c.next++
	ownLoop := (uint64(c.numbers[i])+c.seed)%2 == 0
	c.consumers[i] = consumer{number: c.numbers[i], endpoint: "http://" + c.addr, log: c.log.name, mode: c.mode, ownLoop: ownLoop, trouble: true}.start(c.T)
	c.tell("consumer %d starts as process %d, own loop: %t", i, c.numbers[i], ownLoop)
}

// run causes faults while records are written, then ends them and waits until
// everything is handled and committed, so that nothing is redelivered when the
// consumers end.
func (c *chaos) run() {
	wrote := make(chan error, 1)
	go func() { wrote <- c.write() }() // ends by itself; received below
	trouble := time.NewTimer(0)
	defer trouble.Stop()
	for writing := true; writing; {
		select {
		case err := <-wrote:
			if err != nil {
				c.Fatal(err)
			}
			writing = false
		case <-trouble.C:
			c.trouble()
			c.sample()
			c.read()
			trouble.Reset(time.Duration(50+c.random.IntN(350)) * time.Millisecond)
		}
	}
	c.heal()
	grew, handled := time.Now(), 0
	for c.read(); c.ledger.versions < *chaosRecords || !c.ledger.settled(); c.read() {
		if c.ledger.versions > handled {
			grew, handled = time.Now(), c.ledger.versions
		} else if time.Since(grew) > chaosStall {
			c.Fatalf("L1: %d of %d records are handled, without progress, or they are not committed, %v after the faults ended", handled, *chaosRecords, chaosStall)
		}
		time.Sleep(100 * time.Millisecond)
		c.sample()
	}
	for _, p := range c.consumers {
		p.terminate(c.T)
	}
	c.sample()
	c.read()
}

// read reads what the consumers have logged meanwhile.
func (c *chaos) read() {
	c.log.next(func(h handled) { c.ledger.add(h, c.zombie(h)) })
}

// write writes the records: versions of each key, counting up. A batch whose
// response is lost is written again, so a version may exist more than once.
func (c *chaos) write() error {
	for n := 0; n < *chaosRecords; n += chaosBatch {
		req := new(tablestore.BatchWriteRowRequest)
		for i := n; i < min(n+chaosBatch, *chaosRecords); i++ {
			req.AddRowChange(testbed.PutChange(testbed.Key(i%chaosKeys), i/chaosKeys+1))
		}
		for try := 0; ; try++ {
			err := testbed.BatchWrite(c.client, req)
			if err == nil {
				break
			}
			if try > 200 {
				return fmt.Errorf("writing records from %d: %w", n, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(chaosPause)
	}
	return nil
}

// trouble causes one fault of the seeded schedule.
func (c *chaos) trouble() {
	i := c.random.IntN(chaosConsumers)
	switch n := c.random.IntN(100); {
	case n < 18:
		c.tell("kill consumer %d", i)
		c.resume(i)
		c.killConsumer(i)
		c.startConsumer(i)
	case n < 26:
		if _, paused := c.paused[i]; !paused {
			c.tell("stop consumer %d", i)
			c.paused[i] = time.Now()
			c.consumers[i].signal(c.T, stopSignal)
		}
	case n < 40:
		c.resume(i)
	case n < 48:
		c.tell("split: %v", c.post("/tables/"+testbed.Table+"/split", nil))
	case n < 54:
		c.tell("merge: %v", c.post("/tables/"+testbed.Table+"/merge", nil))
	case n < 58:
		c.tell("rebalance: %v", c.post("/tunnels/"+testbed.Table+"/"+testbed.Tunnel+"/rebalance", nil))
	case n < 62:
		c.tell("kill the emulator")
		c.emulator.kill(c.T)
		time.Sleep(time.Duration(c.random.IntN(500)) * time.Millisecond)
		c.startEmulator()
	case n < 66:
		c.tell("pause the emulator: %v", c.post("/pause", nil))
		time.Sleep(time.Duration(c.random.IntN(400)) * time.Millisecond)
		c.must(c.post("/resume", nil))
	default:
		c.fault()
	}
}

func (c *chaos) resume(i int) {
	if since, paused := c.paused[i]; paused {
		c.tell("continue consumer %d", i)
		c.consumers[i].signal(c.T, continueSignal)
		delete(c.paused, i)
		n := c.numbers[i]
		c.stops[n] = append(c.stops[n], stop{since, time.Now()})
	}
}

// killConsumer kills a consumer, unless it found no service at its start and
// ended.
func (c *chaos) killConsumer(i int) {
	p := c.consumers[i]
	_ = p.Process.Kill() // it may have ended
	_ = p.Wait()
	if state := p.ProcessState.Sys().(syscall.WaitStatus); !state.Signaled() && state.ExitStatus() != exitNoService {
		c.Fatalf("consumer %d ended by itself: %v\n%s", i, p.ProcessState, p.output)
	}
}

// fault injects a fault into the tunnel API.
func (c *chaos) fault() {
	ops := []string{"readrecords", "readrecords", "checkpoint", "checkpoint", "heartbeat", "getcheckpoint", "connect", "shutdown"}
	op := "tunnel/" + ops[c.random.IntN(len(ops))]
	kinds := []map[string]any{
		{"code": "OTSTunnelServerUnavailable"},
		{"code": "OTSServerBusy"},
		{"code": "OTSInternalServerError"},
		{"code": "OTSTimeout", "status": 503},
		{"code": "OTSResourceGone"},
		{"code": "OTSSequenceNumberNotMatch"},
		{"delay": "300ms"},
		{"hang": true},
		{"break": "before-request"},
		{"break": "before-answer"},
		{"break": "mid-answer"},
		{"corrupt": true},
		{"trickle": "20ms"},
		{"duplicate": true},
	}
	fault := kinds[c.random.IntN(len(kinds))]
	fault["operation"], fault["times"] = op, 1+c.random.IntN(4)
	c.tell("fault %v: %v", fault, c.post("/faults", fault))
}

// heal ends all faults, except that handlers still fail sometimes.
func (c *chaos) heal() {
	c.tell("heal")
	req, err := http.NewRequest(http.MethodDelete, "http://"+c.admin+"/faults", nil)
	c.must(err)
	resp, err := http.DefaultClient.Do(req)
	c.must(err)
	resp.Body.Close()
	for i, p := range c.consumers {
		c.resume(i)
		if !p.alive() {
			c.killConsumer(i)
			c.startConsumer(i)
		}
	}
}

func (c *chaos) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// post calls the emulator's admin API.
func (c *chaos) post(path string, body any) error {
	c.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		c.Fatal(err)
	}
	if body == nil {
		data = nil
	}
	resp, err := http.Post("http://"+c.admin+path, "application/json", bytes.NewReader(data))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode > 299 {
		err = fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(text))
	}
	return err
}

// sample requests the checkpoints from the service.
func (c *chaos) sample() {
	resp, err := c.tunnels.GetRpoByOffset(&tunnel.GetRpoRequest{TunnelId: c.tunnelID})
	if err != nil {
		c.tell("no sample: %v", err)
		return
	}
	at := time.Now()
	for _, channels := range resp.RpoInfos {
		for id, info := range channels {
			c.ledger.committed(id, int(info.TotalCount), info.Status == "TERMINATED", at)
		}
	}
}

// stop is a period in which a process was stopped.
type stop struct{ from, to time.Time }

const (
	// zombieBefore covers lines that were being written when their process was
	// stopped, and were added to the log when it was continued.
	zombieBefore = 50 * time.Millisecond
	// zombieAfter is how long a process may take to notice that it has lost its
	// channels.
	zombieAfter = 2 * time.Second
)

// zombie reports whether h was handled by a process that had, or may have, lost
// the channel without knowing it yet: two workers may then handle a record at
// the same time, which the service's at-least-once delivery allows.
func (c *chaos) zombie(h handled) bool {
	return h.fenced || slices.ContainsFunc(c.stops[h.process], func(s stop) bool {
		return h.at.After(s.from.Add(-zombieBefore)) && h.at.Before(s.to.Add(zombieAfter))
	})
}

// check checks the laws.
func (c *chaos) check() {
	if err := c.ledger.check(); err != nil {
		c.Fatal(err)
	}
	c.Logf("seed %d, mode %s: %d records, %d deliveries handled, %d checkpoints seen, %d processes", c.seed, c.mode, len(c.ledger.records), c.log.lines, c.ledger.checkpoints, c.next)
}
