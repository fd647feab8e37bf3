package subscriber

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
)

// A tunnel with an end in the past whose partition was split: the service may list the children
// some time after their parent has ended [docs/protocol.md, The end of a channel].
func TestFinish_does_not_overtake_the_children_of_a_split(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		str := func(v string) *string { return &v }
		end := time.Now().Add(-time.Hour).UnixNano()
		var parentOver atomic.Int64 // when
		listed := func() bool {
			at := parentOver.Load()
			return at != 0 && time.Since(time.Unix(0, at)) > time.Second // children
		}
		f := new(fakeService)
		f.on("describe", func([]byte) reply {
			status := "OPEN"
			if parentOver.Load() != 0 {
				status = "TERMINATED"
			}
			chs := []*protocol.ChannelInfo{{ChannelId: str("parent"), ChannelType: str("Stream"), ChannelStatus: &status, ClientId: str("")}}
			if listed() {
				chs = append(chs, &protocol.ChannelInfo{ChannelId: str("child"), ChannelType: str("Stream"), ChannelStatus: str("OPEN"), ClientId: str("")})
			}
			return reply{body: marshal(&protocol.DescribeTunnelResponse{
				Tunnel: &protocol.TunnelInfo{
					TunnelId: str("tunnel-1"), TunnelType: str("Stream"), TableName: str("table"), TunnelName: str("tunnel"),
					InstanceName: str("inst"), StreamId: str("s"), Stage: str("ProcessStream"),
					StreamTunnelConfig: &protocol.StreamTunnelConfig{EndOffset: proto.Uint64(uint64(end))},
				}, Channels: chs,
			})}
		})
		f.always("connect", clientReply("client-1"))
		f.on("heartbeat", func(body []byte) reply {
			var hb protocol.HeartbeatRequest
			if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&hb)); err != nil {
				panic(err)
			}
			for _, c := range hb.Channels {
				if c.GetChannelId() == "parent" && c.GetStatus() == protocol.ChannelStatus_TERMINATED {
					parentOver.CompareAndSwap(0, time.Now().UnixNano())
				}
			}
			switch {
			case listed():
				return heartbeatReply("child:1:OPEN")
			case parentOver.Load() != 0:
				return heartbeatReply()
			}
			return heartbeatReply("parent:1:OPEN")
		})
		f.always("getcheckpoint", checkpointReply("t0", 0))
		f.on("readrecords", func(body []byte) reply {
			var req protocol.ReadRecordsRequest
			if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&req)); err != nil {
				panic(err)
			}
			n := int64(1)
			if req.GetChannelId() == "child" {
				n = 2
			}
			return pageReply(tunnel.FinishTag, []*protocol.Record{someRecord(n)})
		})
		s := fakeSubscriber(t, f, func(c *Config) { c.TunnelViewInterval = NoTunnelView })
		messages := subscribeTo(t, s)
		got := 0
		timeout := time.After(time.Minute)
	loop:
		for {
			select {
			case m, ok := <-messages:
				if !ok {
					break loop
				}
				got++
				m.Ack()
			case <-timeout:
				break loop
			}
		}
		if got != 2 {
			t.Errorf("%d records were delivered, want 2: the subscription ended (finished: %v, Err: %v) before the child was listed", got, s.Status().Subscriptions[0].Finished, s.Err())
		}
		_ = s.Close()
	})
}
