package subscriber

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

func TestAllTerminated(t *testing.T) {
	channels := func(all ...string) (list []*tunnel.ChannelInfo) {
		for i := 0; i < len(all); i += 2 {
			list = append(list, &tunnel.ChannelInfo{ChannelType: all[i], ChannelStatus: all[i+1]})
		}
		return list
	}
	past, future := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for _, tc := range []struct {
		name     string
		typ      TunnelType
		end      time.Time
		stage    string
		channels []*tunnel.ChannelInfo
		want     bool
	}{
		{"one of two base channels", BaseData, time.Time{}, "ProcessBaseData", channels("BaseData", "TERMINATED", "BaseData", "WAIT"), false},
		{"all base channels", BaseData, time.Time{}, "ProcessBaseData", channels("BaseData", "TERMINATED", "BaseData", "TERMINATED"), true},
		{"base data without channels yet", BaseData, time.Time{}, "InitBaseDataAndStreamShard", nil, false},
		{"base data whose channels are listed no more", BaseData, time.Time{}, "ProcessStream", nil, true},
		{"base data of a tunnel whose stream is to come", BaseAndStream, past, "ProcessBaseData", channels("BaseData", "TERMINATED"), false},
		{"stream after its end", Stream, past, "ProcessStream", channels("Stream", "TERMINATED"), true},
		{"stream before its end: children of a split are to come", Stream, future, "ProcessStream", channels("Stream", "TERMINATED"), false},
		{"child of a split", Stream, past, "ProcessStream", channels("Stream", "TERMINATED", "Stream", "WAIT"), false},
	} {
		s := &subscription{sessionConfig: sessionConfig{tunnelInfo: &tunnelInfo{tunnelType: tc.typ, tunnelEnd: tc.end}}}
		got := s.allTerminated(&tunnel.DescribeTunnelResponse{Tunnel: &tunnel.TunnelInfo{Stage: tc.stage}, Channels: tc.channels})
		if got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

// described is what DescribeTunnel answers about a BaseData tunnel with one channel.
func described(id, status string) reply {
	return reply{body: marshal(&protocol.DescribeTunnelResponse{
		Tunnel: &protocol.TunnelInfo{
			TunnelId: &id, TunnelType: proto.String("BaseData"), TableName: proto.String("table"), TunnelName: proto.String("tunnel"),
			InstanceName: proto.String("inst"), StreamId: proto.String(""), Stage: proto.String("ProcessBaseData"),
		},
		Channels: []*protocol.ChannelInfo{{ChannelId: proto.String("c1"), ChannelType: proto.String("BaseData"), ChannelStatus: &status, ClientId: proto.String("")}},
	})}
}

// TestFinish_looks_cost_little: a process that has no channel asks ever less often, and
// one that has a channel does not ask at all. An answer that fails, or is about another
// tunnel of the same name, ends nothing.
func TestFinish_looks_cost_little(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fakeService)
		var look atomic.Pointer[reply]
		answer := func(r reply) { look.Store(&r) }
		answer(described("t-1", "OPEN"))
		f.on("describe", func([]byte) reply { return *look.Load() })
		f.always("connect", reply{body: marshal(&protocol.ConnectResponse{ClientId: proto.String("client-1")})})
		f.always("heartbeat", heartbeatReply())
		s := fakeSubscriber(t, f, func(c *Config) { c.TunnelViewInterval = NoTunnelView }) // which asks as well
		messages := subscribeTo(t, s)
		began := time.Now()
		time.Sleep(time.Minute)
		at := f.times("describe", began)
		want := []time.Duration{0, 0, 250 * time.Millisecond, 750 * time.Millisecond, 1750 * time.Millisecond, 3750 * time.Millisecond, 7750 * time.Millisecond, 15750 * time.Millisecond}
		if len(at) != 12 || !slices.Equal(at[:len(want)], want) {
			t.Errorf("the service was asked at %v", at)
		}
		answer(errorReply(503, service.CodeServerBusy))
		time.Sleep(time.Minute)
		answer(reply{}) // incomplete
		time.Sleep(time.Minute)
		answer(described("t-2", "TERMINATED"))
		time.Sleep(time.Minute)
		if st := s.Status().Subscriptions[0]; st.Ended || st.Finished {
			t.Errorf("it ended: %+v", st)
		}
		answer(described("t-1", "TERMINATED"))
		if _, open := <-messages; open {
			t.Error("a message")
		}
		if err := s.Close(); err != nil || s.Err() != nil {
			t.Errorf("Close: %v, Err: %v", err, s.Err())
		}
	})
}

// TestFinish_looks_are_none_while_channels_are_read: the run itself knows when it is at its end.
func TestFinish_looks_are_none_while_channels_are_read(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(1)
		f.always("describe", described("tunnel-1", "OPEN"))
		s := fakeSubscriber(t, f, func(c *Config) { c.TunnelViewInterval = NoTunnelView }) // which asks as well
		messages := subscribeTo(t, s)
		(<-messages).Ack()
		began := time.Now()
		time.Sleep(10 * time.Minute)
		n := 0
		for _, at := range f.times("describe", began) {
			if at > 0 {
				n++
			}
		}
		if n > 0 {
			t.Errorf("the service was asked %d times in ten minutes", n)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
