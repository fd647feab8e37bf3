package subscriber

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
)

// A consumer that is started every hour and runs for nine minutes, on a table without changes.
func TestReader_position_of_an_idle_channel_is_stored_also_by_short_runs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		var n atomic.Int64
		f.on("readrecords", func([]byte) reply { return pageReply(fmt.Sprintf("t%d", n.Add(1)), nil) }) // moves at each read
		for range 4 {
			s := fakeSubscriber(t, f, nil)
			done, err := s.Handle(t.Context(), "table/tunnel", func(*message.Message) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(9 * time.Minute)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			<-done
			time.Sleep(51 * time.Minute)
		}
		if got := len(stored(t, f)); got == 0 {
			t.Errorf("%d reads in four runs, and no position was stored", n.Load())
		}
	})
}

// A process whose session is lost every eight minutes, on a table without changes.
func TestReader_position_of_an_idle_channel_is_stored_also_by_short_sessions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(0)
		var n, version atomic.Int64
		version.Store(1)
		start := time.Now()
		f.on("heartbeat", func([]byte) reply { // every 8 minutes the session is lost
			if v := int64(time.Since(start) / (8 * time.Minute)); v >= version.Load() {
				version.Store(v + 1)
				return errorReply(410, tunnel.ErrCodeResourceGone)
			}
			return heartbeatReply("c1:1:OPEN")
		})
		f.on("readrecords", func([]byte) reply { return pageReply(fmt.Sprintf("t%d", n.Add(1)), nil) })
		s := fakeSubscriber(t, f, nil)
		done, err := s.Handle(t.Context(), "table/tunnel", func(*message.Message) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * time.Minute) // five sessions
		if got := len(stored(t, f)); got == 0 {
			t.Errorf("%d reads and %d connects, and no position was stored", n.Load(), len(f.times("connect", start)))
		}
		_ = s.Close()
		<-done
	})
}
