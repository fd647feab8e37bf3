package laws

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"path"
	"sync"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/emulator"
	"github.com/watermill-ots/watermill-ots/internal/testbed"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// listener is a transport that notes when a client's heartbeats contained a
// status for the first time: in a response the client heard of it, in a request
// it reported it.
type listener struct {
	base *http.Transport

	mu       sync.Mutex // guards the following
	joined   time.Time  // the first heartbeat's response
	heard    map[protocol.ChannelStatus]time.Time
	reported map[protocol.ChannelStatus]time.Time
}

func newListener(t *testing.T) *listener {
	l := &listener{base: new(http.Transport), heard: make(map[protocol.ChannelStatus]time.Time), reported: make(map[protocol.ChannelStatus]time.Time)}
	t.Cleanup(l.base.CloseIdleConnections)
	return l
}

func (l *listener) RoundTrip(req *http.Request) (*http.Response, error) {
	if path.Base(req.URL.Path) != "heartbeat" {
		return l.base.RoundTrip(req)
	}
	sent, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	out := req.Clone(req.Context())
	out.Body = io.NopCloser(bytes.NewReader(sent))
	resp, err := l.base.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	var request protocol.HeartbeatRequest
	var response protocol.HeartbeatResponse
	if err := proto.Unmarshal(sent, protoadapt.MessageV2Of(&request)); err != nil {
		return nil, err
	}
	if err := proto.Unmarshal(answer, protoadapt.MessageV2Of(&response)); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	noteFirst(l.reported, request.Channels)
	noteFirst(l.heard, response.Channels)
	if l.joined.IsZero() {
		l.joined = time.Now()
	}
	return resp, nil
}

func noteFirst(at map[protocol.ChannelStatus]time.Time, channels []*protocol.Channel) {
	for _, c := range channels {
		if at[c.GetStatus()].IsZero() {
			at[c.GetStatus()] = time.Now()
		}
	}
}

// move is a channel's move from one client to another, in the order of its
// steps.
type move struct {
	hear   time.Duration // the service decides, as it sees the other client → the holder's heartbeat is answered with CLOSING
	report time.Duration // → the holder's heartbeat reports CLOSE
	take   time.Duration // → the other client's heartbeat is answered with OPEN
	read   time.Duration // → it has handled a record of the channel
}

func (m move) String() string {
	ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	return fmt.Sprintf("%v (CLOSING is heard after %v, CLOSE reported after %v, OPEN heard after %v, a record handled after %v)",
		ms(m.hear+m.report+m.take+m.read), ms(m.hear), ms(m.report), ms(m.take), ms(m.read))
}

// atRebalance measures how one of a client's two channels moves to a second client.
func atRebalance(t *testing.T, w worker) move {
	b := testbed.New(t, emulator.Options{})
	if err := b.Emulator.SplitAt(testbed.Table, testbed.Key(50)); err != nil {
		t.Fatal(err)
	}
	id := b.CreateTunnel(tunnel.TunnelTypeStream)
	holder, taker := newListener(t), newListener(t)
	first, second := new(events), new(events)
	w.start(t, b, id, holder, first)
	b.PutAll(100, 1)
	testbed.Eventually(t, time.Minute, "the first client reads both channels", func() bool { return first.len() == 100 })
	time.Sleep(5 * time.Second) // until the heartbeats of the start are over

	w.start(t, b, id, taker, second)
	version := 1
	testbed.Eventually(t, 4*w.interval+time.Minute, "the second client reads", func() bool {
		version++
		for i := range 100 {
			if err := b.Put(testbed.Key(i), version); err != nil {
				t.Fatal(err)
			}
		}
		return second.len() > 0
	})
	holder.mu.Lock()
	defer holder.mu.Unlock()
	taker.mu.Lock()
	defer taker.mu.Unlock()
	asked, closed, open := holder.heard[protocol.ChannelStatus_CLOSING], holder.reported[protocol.ChannelStatus_CLOSE], taker.heard[protocol.ChannelStatus_OPEN]
	return move{hear: asked.Sub(taker.joined), report: closed.Sub(asked), take: open.Sub(closed), read: second.first().Sub(open)}
}

// TestHandover_at_a_rebalance_adds_little_to_the_heartbeats checks that a
// channel which the service moves to a client that joined waits for the regular
// heartbeats, by which alone the holder learns of it and the other client gets
// it, and for little else. At the default interval that takes up to a minute,
// so the test uses a shorter one.
func TestHandover_at_a_rebalance_adds_little_to_the_heartbeats(t *testing.T) {
	t.Parallel() // it waits in real time
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		w := worker{interval: 3 * time.Second}
		m := atRebalance(t, w)
		t.Logf("%v: %v", w, m)
		for what, d := range map[string]time.Duration{"from CLOSING to CLOSE": m.report, "from OPEN to a record": m.read, "to CLOSING": m.hear - w.interval, "from CLOSE to OPEN": m.take - w.interval} {
			if d > handoverLimit {
				t.Errorf("%s it took %v more than the heartbeats", what, d)
			}
		}
	})
	if *handoverSDK == 0 {
		return
	}
	for name, w := range map[string]worker{
		"ours at the default": {interval: subscriber.DefaultHeartbeatInterval},
		"ours beside the SDK": {interval: *handoverSDK},
		"the SDK":             {interval: *handoverSDK, sdk: true},
	} {
		t.Run(name, func(t *testing.T) { t.Logf("%v: %v", w, atRebalance(t, w)) })
	}
}
