package emulator_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tablestore"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// The official SDK's TunnelWorkerDaemon, unmodified and with its default
// intervals, is the only witness of the real wire there is. It runs in a
// testing/synctest bubble: minutes of heartbeats take milliseconds.

// site is an emulator, the clients of one table "t" and tunnel "all", and what
// its workers were given.
type site struct {
	t      *testing.T
	opts   emulator.Options
	e      *emulator.Emulator
	road   *road // of the test itself
	table  *tablestore.TableStoreClient
	client tunnel.TunnelClient
	id     string // of the tunnel
	crew   []*worker

	mu       sync.Mutex // guards the following
	written  map[string][]int64
	received []receipt
	writes   int64
	fail     func(receipt) error // decides what ProcessFunc returns, nil: success
}

// receipt is one record that a worker was given.
type receipt struct {
	worker, channel, key string
	value                int64
	base                 bool
}

// road is an http.RoundTripper to whatever emulator runs, with a gate in it.
type road struct {
	mu     sync.Mutex
	to     *http.Transport
	closed chan struct{} // requests wait while it is not nil and open
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

// inBubble runs f on a new site, in a bubble of its own.
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

// closeDown ends everything; the bubble reports what is left.
func (s *site) closeDown() {
	for _, w := range s.crew {
		s.dismiss(w)
	}
	time.Sleep(time.Minute) // what the SDK does not wait for: closing channels, reads that sleep
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
		s.written = make(map[string][]int64) // what came before is none of the tunnel's
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

// within waits for a condition, up to a time in the bubble.
func (s *site) within(d time.Duration, what string, cond func() bool) {
	s.t.Helper()
	for end := time.Now().Add(d); !cond(); time.Sleep(time.Second) {
		if time.Now().After(end) {
			s.t.Fatalf("not within %v: %s; channels: %s; missing: %v", d, what, s.channels(), s.missing())
		}
	}
}

// missing is what was written to the stream and not received yet.
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

// checkOrder checks that the first receipts of each key's writes are in order,
// and, when once is set, that there are no others.
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

// channels is "STATUS ..." of all channels, with their ids.
func (s *site) channels() string {
	s.t.Helper()
	var all []string
	for _, c := range s.describe().Channels {
		all = append(all, c.ChannelId+":"+c.ChannelStatus)
	}
	return strings.Join(all, " ")
}

// count is the number of channels of a type and status.
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

// holdings is how many open channels each client holds, sorted.
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

func TestOfficialSDKWorkers(t *testing.T) {
	t.Run("share the channels evenly, and take over those of one that leaves", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(6)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			first := s.hire("a")
			s.within(time.Minute, "one worker has all", func() bool { return slices.Equal(s.holdings(), []int{6}) })
			s.hire("b")
			s.hire("c")
			s.within(5*time.Minute, "three workers have two each", func() bool { return slices.Equal(s.holdings(), []int{2, 2, 2}) })
			before := s.channels()
			time.Sleep(10 * time.Minute)
			if after := s.channels(); before != after {
				s.t.Errorf("channels moved without need: %s, then %s", before, after)
			}
			s.dismiss(first)
			s.within(5*time.Minute, "two workers have three each", func() bool { return slices.Equal(s.holdings(), []int{3, 3}) })
		})
	})
	t.Run("read every write in the order of its key across splits and merges", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(2)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			for round := range 12 {
				if round == 6 { // until here several generations pile up unread
					s.hire("a")
					s.hire("b")
				}
				for i := range 60 {
					s.put(fmt.Sprintf("key%02d", i%20))
				}
				switch round % 6 {
				case 0, 1, 3:
					s.must(s.e.Split("t"))
				case 2, 4, 5:
					s.must(s.e.Merge("t"))
				}
				if round >= 6 {
					time.Sleep(20 * time.Second)
				}
			}
			s.within(30*time.Minute, "everything is read", s.allReceived)
			s.checkOrder(false)
			s.within(10*time.Minute, "closed shards are TERMINATED", func() bool {
				return s.count("Stream", "OPEN") == 2 && s.count("Stream", "WAIT")+s.count("Stream", "CLOSING") == 0
			})
		})
	})
	t.Run("read base data and then the stream", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(4)
			for i := range 50 {
				s.put(fmt.Sprintf("key%02d", i))
			}
			rows := len(s.written)
			s.createTunnel(tunnel.TunnelTypeBaseStream, nil)
			s.written = make(map[string][]int64)
			for i := range 10 {
				s.put(fmt.Sprintf("key%02d", i))
			}
			s.hire("a")
			s.hire("b")
			s.within(5*time.Minute, "the stream is read", s.allReceived)
			s.mu.Lock()
			base := make(map[string]int)
			streamBegan := false
			for _, r := range s.received {
				if !r.base {
					streamBegan = true
				} else {
					base[r.key]++
					if streamBegan {
						s.t.Errorf("base record %s came after the stream began", r.key)
					}
				}
			}
			s.mu.Unlock()
			if len(base) != rows {
				s.t.Errorf("%d rows of base data, want %d", len(base), rows)
			}
			s.checkOrder(true)
			if got := s.describe().Tunnel.Stage; got != "ProcessStream" {
				s.t.Errorf("stage = %s", got)
			}
			if got := s.count("BaseData", "TERMINATED"); got != 4 {
				s.t.Errorf("%d base channels TERMINATED, want 4", got)
			}
		})
	})
	t.Run("go on after a restart of the service with their clients, channels and checkpoints", func(t *testing.T) {
		inBubble(t, emulator.Options{DataDir: t.TempDir()}, func(s *site) {
			s.createTable(3)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			s.hire("a")
			s.hire("b")
			for range 5 {
				for i := range 20 {
					s.put(fmt.Sprintf("key%02d", i))
				}
				s.within(20*time.Minute, "everything is read", s.allReceived)
				time.Sleep(30 * time.Second) // longer than the checkpoint interval
				s.reboot()
			}
			s.within(20*time.Minute, "everything is read", s.allReceived)
			s.checkOrder(true)
		})
	})
	t.Run("replace one that falls silent, and drop what it does when it wakes", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(2)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			silent := s.hire("a")
			s.within(time.Minute, "the first has all", func() bool { return slices.Equal(s.holdings(), []int{2}) })
			open := silent.road.block()
			for i := range 20 {
				s.put(fmt.Sprintf("key%02d", i))
			}
			s.hire("b")
			s.within(7*time.Minute, "the second has read everything", s.allReceived)
			before := s.clients()
			open()
			s.within(10*time.Minute, "the first is back under another id", func() bool {
				after := s.clients()
				return len(after) == 2 && slices.Equal(s.holdings(), []int{1, 1}) && !slices.Equal(before, after)
			})
			s.checkOrder(false)
		})
	})
}

// clients is the sorted ids of the clients that hold channels.
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

func TestWireFacts(t *testing.T) {
	t.Run("a ProcessFunc error closes the channel, and a later heartbeat opens it again at its checkpoint", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(1)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			var failed atomic.Bool
			s.fail = func(receipt) error {
				if failed.CompareAndSwap(false, true) {
					return fmt.Errorf("once")
				}
				return nil
			}
			s.hire("a")
			s.put("x")
			began := time.Now()
			s.within(10*time.Minute, "the record comes again", s.allReceived)
			if took := time.Since(began); took < 20*time.Second || took > 2*time.Minute {
				s.t.Errorf("the record came again after %v, want one to two heartbeats", took)
			}
		})
	})
	t.Run("a reported CLOSE is answered at once with OPEN at a higher version, as a stale entry sends the SDK into a loop", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(1)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			var failed atomic.Bool
			s.fail = func(receipt) error {
				if failed.CompareAndSwap(false, true) {
					return fmt.Errorf("once")
				}
				return nil
			}
			s.hire("a")
			s.put("x")
			s.within(10*time.Minute, "the record comes again", s.allReceived)
			time.Sleep(10 * time.Minute)
			// One connection for the first OPEN and one for the second: a dead one
			// would have asked for the checkpoint too.
			if got := s.e.Stats().Operations["tunnel/getcheckpoint"].Requests; got != 2 {
				s.t.Errorf("%d connections were made for one failure, want 2 in all", got)
			}
		})
	})
	t.Run("a CLOSING that crosses the client's own CLOSE does not send the SDK into a loop", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(4)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			var calls atomic.Int64
			s.fail = func(receipt) error {
				if calls.Add(1)%3 == 0 {
					return fmt.Errorf("every third")
				}
				return nil
			}
			s.hire("a")
			s.hire("b")
			for i := range 40 {
				s.put(fmt.Sprintf("key%02d", i))
				time.Sleep(time.Duration(7+i%13) * time.Second)
				s.must(s.e.Rebalance("t", "all"))
			}
			s.mu.Lock()
			s.fail = nil
			s.mu.Unlock()
			s.within(10*time.Minute, "everything is read", s.allReceived)
			time.Sleep(5 * time.Minute)
			before := s.e.Stats().Operations["tunnel/getcheckpoint"].Requests
			time.Sleep(10 * time.Minute)
			if after := s.e.Stats().Operations["tunnel/getcheckpoint"].Requests; after != before {
				s.t.Errorf("%d connections were made without need", after-before)
			}
			if got := s.holdings(); !slices.Equal(got, []int{2, 2}) {
				s.t.Errorf("holdings = %v", got)
			}
		})
	})
	t.Run("ResourceGone makes a daemon connect again under another id", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(1)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			s.hire("a")
			s.within(time.Minute, "it has the channel", func() bool { return len(s.clients()) == 1 })
			before := s.clients()
			s.must(s.e.ExpireClient("t", "all", before[0]))
			s.put("x")
			s.within(5*time.Minute, "the record is read", s.allReceived)
			if after := s.clients(); slices.Equal(before, after) {
				s.t.Errorf("client = %v, as before", after)
			}
		})
	})
	t.Run("OTSTunnelExpired ends a daemon", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(1)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			w := s.hire("a")
			time.Sleep(time.Minute)
			s.must(s.e.ExpireTunnel("t", "all"))
			s.wantEnd(w, tunnel.ErrCodeTunnelExpired)
			if !s.describe().Tunnel.Expired {
				s.t.Error("describe does not show the tunnel as expired")
			}
		})
	})
	t.Run("a log dropped before it was read expires the tunnel", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(1)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			s.put("x")
			time.Sleep(25 * time.Hour) // the stream keeps 24
			s.wantEnd(s.hire("a"), tunnel.ErrCodeTunnelExpired)
		})
	})
	t.Run("deleting the tunnel under a daemon ends it with OTSParameterInvalid", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(1)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			w := s.hire("a")
			time.Sleep(time.Minute)
			_, err := s.client.DeleteTunnel(&tunnel.DeleteTunnelRequest{TableName: "t", TunnelName: "all"})
			s.must(err)
			s.wantEnd(w, tunnel.ErrCodeParamInvalid)
		})
	})
	t.Run("a checkpoint request that arrives twice is OTSSequenceNumberNotMatch, and the next one counts", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(1)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			s.hire("a")
			time.Sleep(time.Minute)
			s.put("x")
			s.e.Inject(emulator.Fault{Operation: "tunnel/checkpoint", Duplicate: true})
			s.within(time.Minute, "it is read", s.allReceived)
			time.Sleep(time.Minute)
			s.put("y")
			s.within(time.Minute, "it is read", s.allReceived)
			time.Sleep(time.Minute)
			last := time.Unix(0, s.describe().Channels[0].ChannelRPO)
			if lag := time.Since(last); lag > time.Minute {
				s.t.Errorf("checkpoints have stopped: the last is of %v ago", lag)
			}
		})
	})
	t.Run("the SDK's schedule sample suspends, opens and resumes", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(2)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			s.hire("a")
			s.within(time.Minute, "all are open", func() bool { return s.count("Stream", "OPEN") == 2 })
			s.schedule("OPEN", tunnel.SuspendChannel)
			if got := s.count("Stream", "CLOSING"); got != 2 {
				s.t.Fatalf("channels = %s", s.channels())
			}
			time.Sleep(5 * time.Minute)
			if got := s.count("Stream", "CLOSING"); got != 2 {
				s.t.Fatalf("suspended channels became %s", s.channels())
			}
			s.put("x")
			time.Sleep(5 * time.Minute)
			if s.allReceived() {
				s.t.Fatal("a suspended channel was read")
			}
			s.schedule("CLOSING", tunnel.ResumeChannel)
			s.within(2*time.Minute, "they are read again", s.allReceived)
		})
	})
	t.Run("a backfill tunnel ends all its channels", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(2)
			time.Sleep(time.Second)
			s.written = make(map[string][]int64)
			start := time.Now()
			for i := range 20 {
				s.put(fmt.Sprintf("key%02d", i))
			}
			s.must(s.e.Split("t"))
			time.Sleep(time.Second)
			end := time.Now()
			want := s.written
			s.put("late")
			s.written = want
			delete(s.written, "late")
			resp, err := s.client.CreateTunnel(&tunnel.CreateTunnelRequest{TableName: "t", TunnelName: "all", Type: tunnel.TunnelTypeStream,
				StreamTunnelConfig: &tunnel.StreamTunnelConfig{StartOffset: uint64(start.UnixNano()), EndOffset: uint64(end.UnixNano())}})
			s.must(err)
			s.id = resp.TunnelId
			s.hire("a")
			s.within(10*time.Minute, "all channels are TERMINATED", func() bool {
				return s.count("Stream", "TERMINATED") == len(s.describe().Channels)
			})
			if !s.allReceived() {
				s.t.Errorf("missing: %v", s.missing())
			}
			for _, r := range s.received {
				if r.key == "late" || strings.HasPrefix(r.key, "seed") {
					s.t.Errorf("%s is outside of the range", r.key)
				}
			}
		})
	})
	t.Run("recovery points are nanoseconds, and follow reads and checkpoints", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(1)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			created := time.Now()
			s.hire("a")
			s.put("x")
			time.Sleep(5 * time.Minute)
			api := tunnel.NewTunnelApi(s.e.Endpoint(), "inst", "ak", "sk", &tunnel.TunnelConfig{Transport: s.road, RequestTimeout: time.Minute, MaxRetryElapsedTime: time.Minute})
			for name, get := range map[string]func(*tunnel.GetRpoRequest) (*tunnel.GetRpoResponse, error){"getrpo": api.GetRpo, "getrpobyoffset": api.GetRpoByOffset} {
				resp, err := get(&tunnel.GetRpoRequest{TunnelId: s.id})
				s.must(err)
				for _, rpo := range resp.RpoInfos[s.id] {
					if at := time.Unix(0, rpo.RpoTime); rpo.ChannelTyp != tunnel.ChannelType_Stream || rpo.TotalCount != 1 || time.Since(at) > time.Minute || !at.After(created) {
						s.t.Errorf("%s: %+v", name, rpo)
					}
				}
				if len(resp.RpoInfos[s.id]) != 1 || resp.TunnelRpoInfos[s.id] == nil {
					s.t.Errorf("%s: %+v", name, resp)
				}
			}
			d := s.describe()
			if lag := time.Since(time.Unix(0, d.TunnelRPO)); lag > time.Minute {
				s.t.Errorf("lag of an idle tunnel is %v", lag)
			}
			list, err := s.client.ListTunnel(&tunnel.ListTunnelRequest{TableName: "t"})
			s.must(err)
			if len(list.Tunnels) != 1 || list.Tunnels[0].TunnelId != s.id || list.Tunnels[0].CreateTime.Sub(created).Abs() > time.Second {
				s.t.Errorf("list = %+v", list.Tunnels)
			}
		})
	})
	t.Run("a worker that closes gives its channels back at once", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(2)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			w := s.hire("a")
			s.within(time.Minute, "all are open", func() bool { return s.count("Stream", "OPEN") == 2 })
			s.dismiss(w)
			if got := s.count("Stream", "WAIT"); got != 2 {
				s.t.Errorf("channels = %s", s.channels())
			}
		})
	})
	t.Run("a second tunnel of that name is OTSTunnelExist", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(1)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			_, err := s.client.CreateTunnel(&tunnel.CreateTunnelRequest{TableName: "t", TunnelName: "all", Type: tunnel.TunnelTypeStream})
			if te, ok := err.(*tunnel.TunnelError); !ok || te.Code != tunnel.ErrCodeTunnelExist || te.TunnelId != s.id {
				s.t.Errorf("error = %v", err)
			}
		})
	})
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

// schedule applies change to all channels of a status.
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
