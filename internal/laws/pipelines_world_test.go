package laws

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
)

// pipelinesWorld is one world of pipelines: an emulator, a sink, tables that
// are written to, and worker processes. Its fields belong to the test's
// goroutine.
type pipelinesWorld struct {
	*testing.T
	seed     uint64
	emulator *emulator.Emulator
	tunnels  tunnel.TunnelClient
	client   *tablestore.TableStoreClient
	sink     *recordingSink
	tables   map[string]*table
	ids      map[string]string // of the tunnels, by pipeline
	config   string            // the workers' configuration file

	slots    []*pipelineProcess
	draining []*pipelineProcess
	next     int
	unsure   []unsure
	losses   []time.Time                       // when faults were injected that make a worker lose channels, and notice it
	samples  map[string]map[string][]committed // by pipeline and channel

	story strings.Builder // what was done and when, for a failing seed
	began time.Time
}

// pipelineProcess is a worker process. A goroutine waits for its end.
type pipelineProcess struct {
	*process
	number int
	killed bool
	asked  time.Time // when it was asked to end
	paused time.Time // since when it has been stopped
	ended  chan struct{}
	err    error     // result of Wait, once ended is closed
	at     time.Time // when it ended, once ended is closed
}

func (p *pipelineProcess) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// unsure is a period in which a worker may have lost channels without knowing
// it: one process, one channel, or all of them.
type unsure struct {
	stop
	isProcess bool
	process   int
	channel   string
}

func newPipelinesWorld(t *testing.T, seed uint64) *pipelinesWorld {
	bed := testbed.New(t, emulator.Options{Seed: seed})
	w := &pipelinesWorld{
		T: t, seed: seed, emulator: bed.Emulator, tunnels: bed.Tunnels, client: bed.Client,
		tables: make(map[string]*table), ids: make(map[string]string), slots: make([]*pipelineProcess, workerSlots),
		samples: make(map[string]map[string][]committed), began: time.Now(),
	}
	w.sink = newRecordingSink(t, seed, batchedPipe.name, behindDoor, plainPipe.name, forwardPipe.name, lettersDoor, fencedDoor, abandonedDoor)
	t.Cleanup(w.cleanUp)
	for _, name := range []string{ordersTable, stockTable} {
		w.tables[name] = newTable(w.client, name, seed)
		w.must(w.tables[name].create())
		w.must(w.emulator.SplitAt(name, stillKey(0))) // two channels from the start
		w.must(w.tables[name].fill())
	}
	for _, p := range pipes {
		made, err := w.tunnels.CreateTunnel(&tunnel.CreateTunnelRequest{TableName: p.table, TunnelName: p.name, Type: tunnel.TunnelTypeBaseStream})
		w.must(err)
		w.ids[p.name], w.samples[p.name] = made.TunnelId, make(map[string][]committed)
	}
	w.config = filepath.Join(t.TempDir(), "pipelines.yaml")
	w.must(os.WriteFile(w.config, []byte(pipelinesFile(w.emulator.Endpoint())), 0o600))
	return w
}

// cleanUp ends what is left after a failure, and logs the story of the run.
func (w *pipelinesWorld) cleanUp() {
	left := append(slices.Clone(w.draining), w.slots...)
	for _, p := range left {
		if p != nil {
			_ = p.Process.Kill() // it may have ended
			<-p.ended
		}
	}
	if !w.Failed() {
		return
	}
	w.Logf("seed %d: rerun with -pipelines.seed=%d\n%s", w.seed, w.seed, &w.story)
	for _, p := range left {
		if p != nil {
			w.Logf("process %d:\n%s", p.number, p.output)
		}
	}
}

func (w *pipelinesWorld) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *pipelinesWorld) tell(format string, args ...any) {
	fmt.Fprintf(&w.story, "%6dms ", time.Since(w.began).Milliseconds())
	fmt.Fprintf(&w.story, format+"\n", args...)
}

// startWorker starts a worker process.
func (w *pipelinesWorld) startWorker() *pipelineProcess {
	w.Helper()
	spec, err := json.Marshal(pipelineWorker{Number: w.next, Config: w.config, Doors: w.sink.urls(), OneByOne: w.seed%2 == 0})
	w.must(err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envWorker+"="+string(spec))
	cmd.Dir = w.TempDir()
	p := &pipelineProcess{process: &process{Cmd: cmd, output: new(output)}, number: w.next, ended: make(chan struct{})}
	w.next++
	cmd.Stderr = p.output
	out, err := cmd.StdoutPipe()
	w.must(err)
	w.must(cmd.Start())
	line, lineErr := bufio.NewReader(out).ReadString('\n')
	go func() { // ends with the process; p.ended signals its end
		defer close(p.ended)
		p.err, p.at = p.Wait(), time.Now()
	}()
	if lineErr != nil || line != consuming {
		w.draining = append(w.draining, p)
		w.Fatalf("a worker's first line is %q, %v\n%s", line, lineErr, p.output)
	}
	return p
}

// askToEnd sends a worker the signal to end. It may have ended by itself, which
// reap detects.
func (w *pipelinesWorld) askToEnd(p *pipelineProcess) {
	p.asked = time.Now()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		w.Fatalf("ending a worker: %v", err)
	}
}

// endBound is how long a worker may take to end: close_timeout, and the time
// that the Router allows for the last requests.
const endBound = workerCloseTimeout + 12*time.Second

// reap waits for the end of a worker that was killed or asked to end, and
// checks L7.
func (w *pipelinesWorld) reap(p *pipelineProcess) {
	w.Helper()
	select {
	case <-p.ended:
	case <-time.After(endBound):
		w.Errorf("L7: process %d has not ended %v after the signal\n%s", p.number, endBound, p.output)
		return
	}
	state := p.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case p.killed && state.Signaled(), p.err == nil, state.ExitStatus() == exitNoService:
	case state.ExitStatus() == exitUnsettled && w.mayHaveLost(p):
	default:
		w.Errorf("L7: process %d did not end cleanly (asked: %t, %v after it): %v\n%s", p.number, !p.asked.IsZero(), p.at.Sub(p.asked), p.err, p.output)
	}
}

// mayHaveLost reports whether p may have lost a channel while it drained.
func (w *pipelinesWorld) mayHaveLost(p *pipelineProcess) bool {
	return slices.ContainsFunc(w.unsure, func(u unsure) bool {
		return (!u.isProcess || u.process == p.number) && u.from.Before(p.at) && u.to.Add(zombieAfter).After(p.asked)
	}) || slices.ContainsFunc(w.losses, func(at time.Time) bool { return at.Before(p.at) && at.Add(2*leaseTime).After(p.asked) })
}
