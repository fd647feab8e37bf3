package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/router"
)

// Sink is a broker or a database to which a pipeline publishes.
type Sink struct {
	// Server is the address of the real server.
	Server string

	// Open creates what holds the topic's messages on the server, and a
	// publisher that reaches the server only through the proxy. It is removed
	// at the end of t.
	Open func(t *testing.T, p *Proxy, topic string, logger watermill.LoggerAdapter) message.Publisher

	// Read reaches the server directly and calls got for each message of the
	// topic, in the server's order, until ctx ends. got may be called
	// concurrently.
	Read func(ctx context.Context, topic string, got func(payload []byte)) error

	// Unordered says that the publisher does not keep the order of a key after
	// a failure.
	Unordered bool
}

const (
	keys     = 20
	versions = 100 // of each key
	// roundPause makes the writes take as long as the outages.
	roundPause = 100 * time.Millisecond
	// stall is the longest time without any arrival while the proxy is open and
	// versions are missing.
	stall = 45 * time.Second
	// closeBound is how long the Router may take to end: close_timeout and the
	// last requests.
	closeBound = 20 * time.Second
)

// Skip skips the test if no server answers at addr, and says so.
func Skip(t *testing.T, what, addr string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		t.Skipf("no %s answers at %s: %v", what, addr, err)
	}
	conn.Close()
}

// Run publishes the changes of a table to the sink while the proxy goes through
// a seeded schedule of outages, and checks what has arrived. It logs the seed.
func Run(t *testing.T, seed uint64, s Sink) {
	t.Helper()
	t.Logf("seed %d", seed)
	tr := &trial{T: t, sink: s, topic: fmt.Sprintf("chaos-%08x", rand.Uint32()), arrived: make(map[string][]int), first: make(map[string]int), changed: make(chan struct{}, 1)}
	tr.setUp()
	read := tr.read()
	stop := tr.route()
	wrote := make(chan error, 1)
	go func() { wrote <- tr.write() }() // ends by itself; received below
	tr.outages(rand.New(rand.NewPCG(seed, 0)))
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	tr.await()
	stop()
	read()
	tr.check()
}

// trial is one run.
type trial struct {
	*testing.T
	sink     Sink
	topic    string
	emulator *emulator.Emulator
	client   *tablestore.TableStoreClient
	proxy    *Proxy
	pub      message.Publisher
	letters  letters

	mu      sync.Mutex // guards the following
	arrived map[string][]int
	first   map[string]int // by key: number of different versions that have arrived
	count   int            // sum of first
	changed chan struct{}  // capacity 1: something has arrived
}

func (t *trial) must(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (t *trial) setUp() {
	t.Helper()
	var err error
	t.emulator, err = emulator.Start(emulator.Options{})
	t.must(err)
	t.Cleanup(func() {
		if err := t.emulator.Close(); err != nil {
			t.Errorf("closing the emulator: %v", err)
		}
	})
	t.client = tablestore.NewClient(t.emulator.Endpoint(), "chaos", "any", "any")
	meta := &tablestore.TableMeta{TableName: "numbers"}
	meta.AddPrimaryKeyColumn("k", tablestore.PrimaryKeyType_STRING)
	_, err = t.client.CreateTable(&tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24},
	})
	t.must(err)
	t.proxy, err = NewProxy(t.sink.Server)
	t.must(err)
	t.Cleanup(func() {
		if err := t.proxy.Close(); err != nil {
			t.Errorf("closing the proxy: %v", err)
		}
	})
	t.pub = t.sink.Open(t.T, t.proxy, t.topic, watermill.NopLogger{})
}

// file is the configuration of the pipeline, as a user would write it.
const file = `
instances:
  main: {name: chaos, endpoint: "%s", access_key_id: any, access_key_secret: any}
tunnels:
  numbers:
    instance: main
    table_name: numbers
    tunnel_name: chaos
    tunnel: {create: true, type: Stream}
    checkpoint_interval: 100ms
    max_poll_interval: 50ms
    close_timeout: 10s
    batchers:
      default: {batch_size: 50, batch_timeout: 30ms, concurrency: 2, forward: {publisher: sink, topic: "%s"}}
    failure:
      attempts: 3
      backoff_initial: 20ms
      backoff_max: 500ms
      dead_letter: {publisher: letters, topic: letters}
`

// route runs the pipeline. The returned function stops it and checks L7.
func (t *trial) route() (stop func()) {
	t.Helper()
	cfg, err := router.Parse("chaos.yaml", fmt.Appendf(nil, file, t.emulator.Endpoint(), t.topic))
	t.must(err)
	r, err := router.New(cfg, nil)
	t.must(err)
	t.must(r.RegisterPublisher("sink", t.pub))
	t.must(r.RegisterPublisher("letters", &t.letters))
	t.must(r.Handle("numbers", router.Handlers{}))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(context.Background()) }() // ends with Close; received below
	var once sync.Once
	stop = func() {
		once.Do(func() {
			began := time.Now()
			if err := r.Close(); err != nil {
				t.Errorf("L7: closing the router: %v", err)
			}
			<-ended // the same error
			if took := time.Since(began); took > closeBound {
				t.Errorf("L7: closing the router took %v", took)
			}
		})
	}
	t.Cleanup(stop)
	select {
	case <-r.Running():
	case err := <-ended:
		ended <- err
		t.Fatalf("the router ends: %v", err)
	}
	return stop
}

// write writes the versions of all keys, in rounds.
func (t *trial) write() error {
	for v := 1; v <= versions; v++ {
		req := new(tablestore.BatchWriteRowRequest)
		for k := range keys {
			put := &tablestore.PutRowChange{TableName: "numbers", PrimaryKey: new(tablestore.PrimaryKey)}
			put.PrimaryKey.AddPrimaryKeyColumn("k", fmt.Sprintf("key-%02d", k))
			put.AddColumn("v", int64(v))
			put.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
			req.AddRowChange(put)
		}
		if _, err := t.client.BatchWriteRow(req); err != nil {
			return fmt.Errorf("writing version %d: %w", v, err)
		}
		time.Sleep(roundPause) // the writer's pace
	}
	return nil
}

// outages puts the proxy into all its modes, some of them twice, for about as
// long as the writes take.
func (t *trial) outages(random *rand.Rand) {
	t.Helper()
	type spell struct {
		mode     Mode
		from, to time.Duration
	}
	spells := []spell{
		{Refuse, 1500 * time.Millisecond, 3 * time.Second}, {Refuse, 200 * time.Millisecond, time.Second},
		{Hang, 500 * time.Millisecond, 1500 * time.Millisecond}, {Lose, 300 * time.Millisecond, time.Second},
		{Open, 0, 1}, {Open, 0, 1}, // only cuts connections
	}
	random.Shuffle(len(spells), func(i, j int) { spells[i], spells[j] = spells[j], spells[i] })
	pause := func(from, to time.Duration) {
		timer := time.NewTimer(from + time.Duration(random.Int64N(int64(to-from))))
		<-timer.C // the schedule
	}
	for _, s := range spells {
		pause(300*time.Millisecond, 900*time.Millisecond)
		t.must(t.proxy.Turn(s.mode))
		if s.mode == Lose { // the publisher or the pipeline may have to finish a pause first
			select {
			case <-t.proxy.lost:
			case <-time.After(stall):
				t.Errorf("nothing was published within %v, so no response could be lost", stall)
			}
		}
		pause(s.from, s.to)
		t.must(t.proxy.Turn(Open))
	}
}

// read reads from the server. The returned function stops it.
func (t *trial) read() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- t.sink.Read(ctx, t.topic, t.got) }() // ends with ctx; received below
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("reading from the server: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}
