package emulator_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// site is an emulator, the clients of its table "t" and tunnel "all", and the
// records that its workers received.
type site struct {
	t      *testing.T
	opts   emulator.Options
	e      *emulator.Emulator
	road   *road // the test's own
	table  *tablestore.TableStoreClient
	client tunnel.TunnelClient
	id     string // of the tunnel
	crew   []*worker

	mu       sync.Mutex // guards the following
	written  map[string][]int64
	received []receipt
	writes   int64
	fail     func(receipt) error // returns what ProcessFunc returns, nil: success
	pause    time.Duration       // how long ProcessFunc takes
}

// receipt is one record that a worker received.
type receipt struct {
	worker, channel, key string
	value                int64
	base                 bool
}

// road is an http.RoundTripper to the running emulator. It can block requests.
type road struct {
	mu     sync.Mutex
	to     *http.Transport
	closed chan struct{} // requests wait while it is open and not nil
}

func (r *road) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	to, gate := r.to, r.closed
	r.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
	return to.RoundTrip(req)
}

// block holds all later requests until the returned function is called.
func (r *road) block() (open func()) {
	gate := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = gate
	return func() { close(gate) }
}

func (r *road) lead(e *emulator.Emulator) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to != nil {
		r.to.CloseIdleConnections()
	}
	r.to = e.Transport()
}

// worker is a running TunnelWorkerDaemon.
type worker struct {
	*tunnel.TunnelWorkerDaemon
	name string
	road *road
	done chan struct{}
	err  error // of Run, once done is closed
	shut bool
}

// inBubble runs f with a new site, in its own bubble.
func inBubble(t *testing.T, opts emulator.Options, f func(s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		opts.InMemory, opts.Instance, opts.AccessKeyID, opts.AccessKeySecret = true, "inst", "ak", "sk"
		s := &site{t: t, opts: opts, road: &road{}, written: make(map[string][]int64)}
		s.boot()
		cfg := tablestore.NewDefaultTableStoreConfig()
		cfg.Transport = s.road
		s.table = tablestore.NewClientWithConfig(s.e.Endpoint(), "inst", "ak", "sk", "", cfg)
		s.client = s.tunnelClient(s.road)
		defer s.closeDown()
		f(s)
	})
}

func (s *site) boot() {
	s.t.Helper()
	e, err := emulator.Start(s.opts)
	s.must(err)
	s.e = e
	s.road.lead(e)
	for _, w := range s.crew {
		w.road.lead(e)
	}
}

// reboot restarts the emulator on the same data directory.
func (s *site) reboot() {
	s.t.Helper()
	s.must(s.e.Close())
	s.boot()
}

// closeDown ends everything; the bubble reports goroutines that remain.
func (s *site) closeDown() {
	for _, w := range s.crew {
		s.dismiss(w)
	}
	time.Sleep(time.Minute) // for what the SDK does not wait for: closing channels, sleeping reads
	if err := s.e.Close(); err != nil {
		s.t.Errorf("close: %v", err)
	}
	s.road.to.CloseIdleConnections()
	for _, w := range s.crew {
		w.road.to.CloseIdleConnections()
	}
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) tunnelClient(r *road) tunnel.TunnelClient {
	return tunnel.NewTunnelClientWithConfig(s.e.Endpoint(), "inst", "ak", "sk",
		&tunnel.TunnelConfig{Transport: r, RequestTimeout: time.Minute, MaxRetryElapsedTime: 75 * time.Second})
}

func (s *site) createTable(partitions int) {
	s.t.Helper()
	meta := &tablestore.TableMeta{TableName: "t"}
	meta.AddPrimaryKeyColumn("k", tablestore.PrimaryKeyType_STRING)
	_, err := s.table.CreateTable(&tablestore.CreateTableRequest{
		TableMeta:          meta,
		TableOption:        &tablestore.TableOption{TimeToAlive: -1, MaxVersion: 1},
		ReservedThroughput: &tablestore.ReservedThroughput{},
		StreamSpec:         &tablestore.StreamSpecification{EnableStream: true, ExpirationTime: 24},
	})
	s.must(err)
	for i := range 4 * partitions { // a split needs rows
		s.put(fmt.Sprintf("seed%02d", i))
	}
	for range partitions - 1 {
		s.must(s.e.Split("t"))
	}
}

func (s *site) createTunnel(typ tunnel.TunnelType, cfg *tunnel.StreamTunnelConfig) {
	s.t.Helper()
	resp, err := s.client.CreateTunnel(&tunnel.CreateTunnelRequest{TableName: "t", TunnelName: "all", Type: typ, StreamTunnelConfig: cfg})
	s.must(err)
	s.id = resp.TunnelId
	if typ == tunnel.TunnelTypeStream {
		s.written = make(map[string][]int64) // earlier writes are not in the tunnel
	}
}

// put writes the next value to a key.
func (s *site) put(key string) {
	s.t.Helper()
	s.writes++
	pk := &tablestore.PrimaryKey{}
	pk.AddPrimaryKeyColumn("k", key)
	row := &tablestore.PutRowChange{TableName: "t", PrimaryKey: pk}
	row.AddColumn("v", s.writes)
	row.SetCondition(tablestore.RowExistenceExpectation_IGNORE)
	_, err := s.table.PutRow(&tablestore.PutRowRequest{PutRowChange: row})
	s.must(err)
	s.written[key] = append(s.written[key], s.writes)
}

// hire starts a worker.
func (s *site) hire(name string, change ...func(*tunnel.TunnelWorkerConfig, *tunnel.SimpleProcessFactory)) *worker {
	s.t.Helper()
	w := &worker{name: name, road: &road{}, done: make(chan struct{})}
	w.road.lead(s.e)
	factory := &tunnel.SimpleProcessFactory{
		Logger: zap.NewNop(), // otherwise each channel opens tunnelClient.log
		ProcessFunc: func(ctx *tunnel.ChannelContext, records []*tunnel.Record) error {
			return s.process(name, ctx, records)
		},
	}
	logs := tunnel.DefaultLogConfig
	cfg := &tunnel.TunnelWorkerConfig{ProcessorFactory: factory, LogConfig: &logs, LogWriteSyncer: zapcore.AddSync(io.Discard)}
	for _, f := range change {
		f(cfg, factory)
	}
	w.TunnelWorkerDaemon = tunnel.NewTunnelDaemon(s.tunnelClient(w.road), s.id, cfg)
	s.crew = append(s.crew, w)
	go func() { // dismiss ends it and waits
		defer close(w.done)
		w.err = w.Run()
	}()
	return w
}

func (s *site) dismiss(w *worker) {
	if !w.shut {
		w.shut = true
		w.Close()
		<-w.done
	}
}

func (s *site) process(name string, ctx *tunnel.ChannelContext, records []*tunnel.Record) error {
	s.mu.Lock()
	pause := s.pause
	s.mu.Unlock()
	time.Sleep(pause)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		rc := receipt{worker: name, channel: ctx.ChannelId, key: r.PrimaryKey.PrimaryKeys[0].Value.(string), value: r.Columns[0].Value.(int64), base: r.SequenceInfo == nil}
		if s.fail != nil {
			if err := s.fail(rc); err != nil {
				return err
			}
		}
		s.received = append(s.received, rc)
	}
	return nil
}

// within waits until a condition holds, at most for d in the bubble's time.
func (s *site) within(d time.Duration, what string, cond func() bool) {
	s.t.Helper()
	for end := time.Now().Add(d); !cond(); time.Sleep(time.Second) {
		if time.Now().After(end) {
			s.t.Fatalf("not within %v: %s; channels: %s; missing: %v", d, what, s.channels(), s.missing())
		}
	}
}

// missing returns what was written to the stream and not received yet.
func (s *site) missing() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := make(map[int64]bool)
	for _, r := range s.received {
		if !r.base {
			seen[r.value] = true
		}
	}
	var missing []int64
	for _, values := range s.written {
		for _, v := range values {
			if !seen[v] {
				missing = append(missing, v)
			}
		}
	}
	return missing
}

func (s *site) allReceived() bool { return len(s.missing()) == 0 }

// checkOrder checks that the first receipts of each key's writes are in order
// and, if once is set, that there are no others.
func (s *site) checkOrder(once bool) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := make(map[int64]bool)
	newest := make(map[string]int64)
	for _, r := range s.received {
		if r.base {
			continue
		}
		if seen[r.value] {
			if once {
				s.t.Errorf("%s: value %d was received twice", r.key, r.value)
			}
			continue
		}
		seen[r.value] = true
		if r.value < newest[r.key] {
			s.t.Errorf("%s: value %d was received after %d", r.key, r.value, newest[r.key])
		}
		newest[r.key] = r.value
	}
}

func (s *site) describe() *tunnel.DescribeTunnelResponse {
	s.t.Helper()
	d, err := s.client.DescribeTunnel(&tunnel.DescribeTunnelRequest{TableName: "t", TunnelName: "all"})
	s.must(err)
	return d
}

// channels returns "STATUS ..." for all channels, with their ids.
func (s *site) channels() string {
	s.t.Helper()
	var all []string
	for _, c := range s.describe().Channels {
		all = append(all, c.ChannelId+":"+c.ChannelStatus)
	}
	return strings.Join(all, " ")
}

// count returns the number of channels with a type and status.
func (s *site) count(typ, status string) int {
	s.t.Helper()
	n := 0
	for _, c := range s.describe().Channels {
		if c.ChannelType == typ && c.ChannelStatus == status {
			n++
		}
	}
	return n
}

// holdings returns how many open channels each client holds, sorted.
func (s *site) holdings() []int {
	s.t.Helper()
	held := make(map[string]int)
	for _, c := range s.describe().Channels {
		if c.ChannelStatus == "OPEN" {
			held[c.ClientId]++
		}
	}
	var counts []int
	for _, n := range held {
		counts = append(counts, n)
	}
	slices.Sort(counts)
	return counts
}

// clients returns the sorted ids of the clients that hold channels.
func (s *site) clients() []string {
	s.t.Helper()
	var ids []string
	for _, c := range s.describe().Channels {
		if c.ClientId != "" && !slices.Contains(ids, c.ClientId) {
			ids = append(ids, c.ClientId)
		}
	}
	slices.Sort(ids)
	return ids
}

// wantEnd waits until the daemon's Run has returned an error with that code.
func (s *site) wantEnd(w *worker, code string) {
	s.t.Helper()
	select {
	case <-w.done:
	case <-time.After(5 * time.Minute):
		s.t.Fatal("the daemon still runs")
	}
	if te, ok := w.err.(*tunnel.TunnelError); !ok || te.Code != code {
		s.t.Errorf("the daemon ended with %v, want %s", w.err, code)
	}
}

// schedule applies change to all channels with a status.
func (s *site) schedule(status string, change func(string) *tunnel.ScheduleChannel) {
	s.t.Helper()
	api := tunnel.NewTunnelApi(s.e.Endpoint(), "inst", "ak", "sk", &tunnel.TunnelConfig{Transport: s.road, RequestTimeout: time.Minute, MaxRetryElapsedTime: time.Minute})
	req := &tunnel.ScheduleRequest{TunnelId: s.id}
	for _, c := range s.describe().Channels {
		if c.ChannelStatus == status {
			req.Channels = append(req.Channels, change(c.ChannelId))
		}
	}
	_, err := api.Schedule(req)
	s.must(err)
}
