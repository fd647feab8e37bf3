package laws

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"go.uber.org/goleak"

	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// The test binary is also the consumer process of the tests that kill one.
const (
	envEndpoint = "LAWS_CONSUMER_ENDPOINT"
	envLog      = "LAWS_CONSUMER_LOG"
	envNumber   = "LAWS_CONSUMER_NUMBER"
)

func TestMain(m *testing.M) {
	if os.Getenv(envEndpoint) != "" {
		if err := consume(); err != nil {
			fmt.Fprintln(os.Stderr, "consumer:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// handled is a line of the consumers' common log: one record that a handler was
// done with, written before its ack.
type handled struct {
	process  int
	channel  string
	sequence string
	changed  time.Time
	uuid     string
	key      string
	version  int
	attempt  int
}

func (h handled) line() string {
	return fmt.Sprintf("%d %s %s %d %s %s %d %d\n", h.process, h.channel, h.sequence, h.changed.UnixMicro(), h.uuid, h.key, h.version, h.attempt)
}

func parseHandled(line string) (h handled, err error) {
	var micros int64
	_, err = fmt.Sscanf(line, "%d %s %s %d %s %s %d %d", &h.process, &h.channel, &h.sequence, &micros, &h.uuid, &h.key, &h.version, &h.attempt)
	h.changed = time.UnixMicro(micros)
	return h, err
}

// consume is the consumer process: a Watermill Router over the tunnel until
// SIGTERM. It appends a line to the log for each record that it handled.
func consume() error {
	log, err := os.OpenFile(os.Getenv(envLog), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer log.Close()
	number, err := strconv.Atoi(os.Getenv(envNumber))
	if err != nil {
		return err
	}
	cfg := testbed.Config(os.Getenv(envEndpoint))
	cfg.MaxInFlight = 256
	sub, err := subscriber.New(cfg, watermill.NewStdLogger(false, false))
	if err != nil {
		return err
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 10 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	router.AddConsumerHandler("log", testbed.Topic, sub, func(msg *message.Message) error {
		time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond) // the handler's work
		r, ok := subscriber.RecordFromMessage(msg)
		if !ok {
			return fmt.Errorf("message %s has no record", msg.UUID)
		}
		version, _ := r.Column("v")
		_, err := log.WriteString(handled{
			process: number, channel: r.Channel, sequence: r.Sequence.String(), changed: time.UnixMicro(r.Sequence.Timestamp),
			uuid: msg.UUID, key: r.PrimaryKey[0].Value.String(), version: int(version.Int64()), attempt: r.Attempt,
		}.line())
		return err
	})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return router.Run(ctx)
}

// process is a running consumer process.
type process struct {
	*exec.Cmd
	stderr *strings.Builder
}

func startConsumer(t *testing.T, number int, endpoint, log string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envEndpoint+"="+endpoint, envLog+"="+log, envNumber+"="+strconv.Itoa(number))
	cmd.Dir = t.TempDir() // where the SDK would leave a log file
	p := &process{Cmd: cmd, stderr: new(strings.Builder)}
	cmd.Stderr = p.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// kill ends the process as the kernel does: at once.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.Process.Kill(); err != nil {
		t.Fatalf("killing the consumer: %v\n%s", err, p.stderr)
	}
	_ = p.Wait() // the error says that it was killed
	if state := p.ProcessState.Sys().(syscall.WaitStatus); !state.Signaled() {
		t.Fatalf("the consumer ended by itself before it was killed: %v\n%s", p.ProcessState, p.stderr)
	}
}

// terminate asks the process to end and checks that it ends well.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("ending the consumer: %v\n%s", err, p.stderr)
	}
	if err := p.Wait(); err != nil {
		t.Fatalf("the consumer did not end well: %v\n%s", err, p.stderr)
	}
	if entries, err := os.ReadDir(p.Dir); err != nil || len(entries) > 0 {
		t.Errorf("the consumer left files behind: %v %v", entries, err)
	}
}

// readLog returns the consumers' log. A killed process may leave half a line at
// the end of what it wrote; no other process writes into it, because each line
// is one write.
func readLog(t *testing.T, name string) []handled {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []handled
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		h, err := parseHandled(lines.Text())
		if err != nil {
			t.Fatalf("log line %d %q: %v", len(all)+1, lines.Text(), err)
		}
		all = append(all, h)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
