package subscriber

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
)

func TestPhase_ChannelFinished_is_told_when_the_channel_ends_in_the_drain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		f.on("readrecords", func(body []byte) reply {
			var req protocol.ReadRecordsRequest
			if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&req)); err != nil {
				panic(err)
			}
			if req.GetToken() == "t0" {
				return pageReply(tunnel.FinishTag, []*protocol.Record{someRecord(1)})
			}
			panic("read after the finish token")
		})
		var finished atomic.Int64
		s := fakeSubscriber(t, f, func(c *Config) {
			c.OnPhase = func(p Phase) {
				if p.Kind == ChannelFinished {
					finished.Add(1)
				}
			}
		})
		called := make(chan struct{})
		done, err := s.Handle(t.Context(), "table/tunnel", func(*message.Message) error {
			close(called)
			time.Sleep(2 * time.Second)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		<-called
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-done
		if got := stored(t, f); len(got) != 1 || got[0] != tunnel.FinishTag+"@1" {
			t.Fatalf("stored %v", got)
		}
		if finished.Load() != 1 {
			t.Errorf("the channel was read to its end, acked and stored; OnPhase was called with ChannelFinished %d times, Status counts %d finished", finished.Load(), s.Status().Subscriptions[0].Totals.ChannelsFinished)
		}
	})
}
