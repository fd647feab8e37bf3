package laws

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"
	"go.uber.org/goleak"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// The test binary is also the consumer process of the tests: envConsumer holds
// what makes it one.
const envConsumer = "LAWS_CONSUMER"

// mode is what a consumer process does with its messages.
type mode string

const (
	plain     mode = "plain"     // a Router, OrderByKey
	byChannel mode = "bychannel" // a Router, OrderByChannel
	batched   mode = "batched"   // a Router with the batching middleware, OrderByKey
)

// consumer says what a consumer process is to do.
type consumer struct {
	number   int
	endpoint string
	log      string
	mode     mode
	trouble  bool // its handlers fail, panic and stall now and then
}

func (c consumer) env() string {
	return fmt.Sprintf("%s=%d %s %s %s %t", envConsumer, c.number, c.endpoint, c.log, c.mode, c.trouble)
}

func TestMain(m *testing.M) {
	if spec := os.Getenv(envConsumer); spec != "" {
		var c consumer
		if _, err := fmt.Sscanf(spec, "%d %s %s %s %t", &c.number, &c.endpoint, &c.log, &c.mode, &c.trouble); err != nil {
			fmt.Fprintln(os.Stderr, "consumer:", err)
			os.Exit(2)
		}
		if err := c.run(); err != nil {
			fmt.Fprintln(os.Stderr, "consumer:", err)
			if strings.Contains(err.Error(), "cannot subscribe") { // the Router's words
				os.Exit(exitNoService)
			}
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// exitNoService is the exit code of a consumer that could not subscribe.
const exitNoService = 3

// maxHeap bounds a consumer's memory (law L6): the window is 256 records.
const maxHeap = 128 << 20

// run is the consumer process: a Watermill Router over the tunnel until
// SIGTERM. It appends a line to the common log for each record that was handled,
// before its ack. It ends with an error if something is left behind.
func (c consumer) run() error {
	log, err := os.OpenFile(c.log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	cfg := testbed.Config(c.endpoint)
	cfg.MaxInFlight = 256
	cfg.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(10 * time.Millisecond) }
	if c.mode == byChannel {
		cfg.Ordering = subscriber.OrderByChannel
	}
	logger := watermill.NewStdLogger(os.Getenv("LAWS_DEBUG") != "", false)
	sub, err := subscriber.New(cfg, logger)
	if err != nil {
		return err
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 10 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	write := func(msg *message.Message) error {
		h, err := c.handledOf(msg)
		if err == nil {
			_, err = log.WriteString(h.line())
		}
		return err
	}
	handler := func(msg *message.Message) error {
		if err := c.work(); err != nil {
			return err
		}
		return write(msg)
	}
	var batches *batching.Batching
	if c.mode == batched {
		batches, err = batching.New(batching.Config{Batchers: map[string]batching.Batcher{"default": {
			Size: 20, Timeout: 50 * time.Millisecond, Concurrency: 4,
			Handler: func(_ context.Context, b *batching.Batch) error {
				if err := c.work(); err != nil {
					return err
				}
				for _, msg := range b.Messages {
					if c.trouble && rand.IntN(100) == 0 {
						b.Fail(msg, errTrouble)
						// A later change of its key must not be handled before it:
						// as a batch handler has to, it leaves the rest of the key.
						failKey(b, msg)
						return nil
					}
					if err := write(msg); err != nil {
						return err
					}
				}
				return nil
			},
		}}}, nil)
		if err != nil {
			return err
		}
		router.AddMiddleware(batches.Middleware)
		handler = func(*message.Message) error { return nil }
	}
	router.AddConsumerHandler("log", testbed.Topic, sub, handler)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	for sub.SubscribeInitialize(testbed.Topic) != nil && ctx.Err() == nil { // the service may be away for a moment
		time.Sleep(50 * time.Millisecond)
	}
	err = router.Run(ctx)
	if batches != nil {
		err = errors.Join(err, batches.Close())
	}
	err = errors.Join(err, sub.Close())
	stop()
	signal.Reset()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	if mem.HeapSys > maxHeap {
		err = errors.Join(err, fmt.Errorf("L6: the heap grew to %d MiB", mem.HeapSys>>20))
	}
	return errors.Join(err, goleak.Find(goleak.IgnoreTopFunction("os/signal.loop"), goleak.IgnoreTopFunction("os/signal.signal_recv")))
}

// failKey fails the rest of the batch from msg on.
func failKey(b *batching.Batch, msg *message.Message) {
	failing := false
	for _, m := range b.Messages {
		failing = failing || m == msg
		if failing && m != msg {
			b.Fail(m, errTrouble)
		}
	}
}

var errTrouble = errors.New("made up")

// work is what a handler does before it is done: it takes a while, and with
// trouble it fails, panics or stalls now and then.
func (c consumer) work() error {
	longest := 2000
	if c.mode == byChannel { // one at a time
		longest = 300
	}
	time.Sleep(time.Duration(rand.IntN(longest)) * time.Microsecond)
	if !c.trouble {
		return nil
	}
	switch n := rand.IntN(1000); {
	case n < 15:
		return errTrouble
	case n < 20:
		panic("made up")
	case n < 23 && c.mode != byChannel:
		time.Sleep(time.Duration(rand.IntN(700)) * time.Millisecond)
	}
	return nil
}

// handled is a line of the consumers' common log: one record that a handler was
// done with, written before its ack.
type handled struct {
	at       time.Time
	process  int
	fenced   bool // the channel was lost while the handler ran
	channel  string
	sequence string
	changed  time.Time
	uuid     string
	key      string
	version  int
	attempt  int
}

func (c consumer) handledOf(msg *message.Message) (handled, error) {
	r, ok := subscriber.RecordFromMessage(msg)
	if !ok {
		return handled{}, fmt.Errorf("message %s has no record", msg.UUID)
	}
	version, _ := r.Column("v")
	return handled{
		at: time.Now(), process: c.number, fenced: msg.Context().Err() != nil, channel: r.Channel, sequence: r.Sequence.String(),
		changed: time.UnixMicro(r.Sequence.Timestamp), uuid: msg.UUID, key: r.PrimaryKey[0].Value.String(), version: int(version.Int64()), attempt: r.Attempt,
	}, nil
}

const lineFormat = "%d %d %t %s %s %d %s %s %d %d\n"

func (h handled) line() string {
	return fmt.Sprintf(lineFormat, h.at.UnixMicro(), h.process, h.fenced, h.channel, h.sequence, h.changed.UnixMicro(), h.uuid, h.key, h.version, h.attempt)
}

func parseHandled(line string) (h handled, err error) {
	var at, changed int64
	_, err = fmt.Sscanf(line+"\n", lineFormat, &at, &h.process, &h.fenced, &h.channel, &h.sequence, &changed, &h.uuid, &h.key, &h.version, &h.attempt)
	h.at, h.changed = time.UnixMicro(at), time.UnixMicro(changed)
	return h, err
}

// process is a running consumer process.
type process struct {
	*exec.Cmd
	stderr *strings.Builder
}

func (c consumer) start(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), c.env())
	cmd.Dir = t.TempDir() // where the SDK would leave a log file
	p := &process{Cmd: cmd, stderr: new(strings.Builder)}
	cmd.Stderr = p.stderr
	cmd.Stdout = p.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// kill ends the process as the kernel does: at once.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.Process.Kill(); err != nil {
		t.Fatalf("killing a process: %v\n%s", err, tail(p.stderr))
	}
	_ = p.Wait() // the error says that it was killed
	if state := p.ProcessState.Sys().(syscall.WaitStatus); !state.Signaled() {
		t.Fatalf("a process ended by itself before it was killed: %v\n%s", p.ProcessState, tail(p.stderr))
	}
}

// signal sends a signal.
func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatalf("sending %v to a process: %v\n%s", s, err, tail(p.stderr))
	}
}

// alive reports whether the process still runs.
func (p *process) alive() bool { return p.Process.Signal(syscall.Signal(0)) == nil && !p.defunct() }

// defunct reports whether the process has ended and nobody waited for it yet.
func (p *process) defunct() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
	if err != nil {
		return false // no such file on this system: believe the signal
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "Z")
}

// terminate asks the process to end and checks that it ends well.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	if err := p.Wait(); err != nil {
		t.Fatalf("a process did not end well: %v\n%s", err, tail(p.stderr))
	}
	if entries, err := os.ReadDir(p.Dir); err != nil || len(entries) > 0 {
		t.Errorf("a process left files behind: %v %v", entries, err)
	}
}

// tail returns the end of a process's output.
func tail(b *strings.Builder) string {
	s := b.String()
	if len(s) > 4000 {
		s = "..." + s[len(s)-4000:]
	}
	return s
}

// readLog returns the consumers' log. Lines are written whole, by one write each.
func readLog(t *testing.T, name string) []handled {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var all []handled
	for line := range strings.Lines(string(data)) {
		h, err := parseHandled(strings.TrimSuffix(line, "\n"))
		if err != nil {
			t.Fatalf("log line %d %q: %v", len(all)+1, line, err)
		}
		all = append(all, h)
	}
	return all
}

func newLog(t *testing.T) string {
	t.Helper()
	name := t.TempDir() + "/handled.log"
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
