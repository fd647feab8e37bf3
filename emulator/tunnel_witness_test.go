package emulator_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/emulator"
)

// The official SDK's TunnelWorkerDaemon, unmodified and with its default
// intervals, is our only evidence of the real protocol. It runs in a
// testing/synctest bubble: minutes of heartbeats take milliseconds.

func TestOfficialSDKWorkers(t *testing.T) {
	t.Run("share the channels evenly, and take over those of a worker that leaves", func(t *testing.T) {
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
				s.t.Errorf("channels moved needlessly: %s, then %s", before, after)
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
				if round == 6 { // until then several generations pile up unread
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
	t.Run("continue after a restart of the service with their clients, channels and checkpoints", func(t *testing.T) {
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
	t.Run("replace a worker that falls silent, and discard what it does when it wakes", func(t *testing.T) {
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

func TestWireFacts(t *testing.T) {
	t.Run("a ProcessFunc error closes the channel, and a later heartbeat reopens it at its checkpoint", func(t *testing.T) {
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
			s.within(10*time.Minute, "the record is redelivered", s.allReceived)
			if took := time.Since(began); took < 20*time.Second || took > 2*time.Minute {
				s.t.Errorf("the record was redelivered after %v, want one to two heartbeats", took)
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
			s.within(10*time.Minute, "the record is redelivered", s.allReceived)
			time.Sleep(10 * time.Minute)
			// One connection for the first OPEN and one for the second: a dead one
			// would have asked for the checkpoint too.
			if got := s.e.Stats().Operations["tunnel/getcheckpoint"].Requests; got != 2 {
				s.t.Errorf("%d connections were opened for one failure, want 2 in all", got)
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
				s.t.Errorf("%d connections were opened needlessly", after-before)
			}
			if got := s.holdings(); !slices.Equal(got, []int{2, 2}) {
				s.t.Errorf("holdings = %v", got)
			}
		})
	})
	t.Run("the SDK may report TERMINATED without having stored the finish token, and this is accepted", func(t *testing.T) {
		inBubble(t, emulator.Options{}, func(s *site) {
			s.createTable(1)
			s.createTunnel(tunnel.TunnelTypeStream, nil)
			s.pause = 200 * time.Millisecond // so that the last page, empty and finished, waits for this one
			for i := range 10 {
				s.put(fmt.Sprintf("key%02d", i))
			}
			for range 4 {
				s.must(s.e.Split("t"))
			}
			s.hire("a")
			s.within(10*time.Minute, "all closed shards are TERMINATED", func() bool { return s.count("Stream", "TERMINATED") == 4 })
			if !s.allReceived() {
				s.t.Errorf("missing: %v", s.missing())
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
