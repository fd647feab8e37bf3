package subscriber

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
)

// endlessTunnel has channels whose every page has as many records, and another
// page behind it.
func endlessTunnel(page int, channels ...string) *fakeService {
	f := fakeTunnel(0).always("heartbeat", heartbeatReply(channels...))
	var written atomic.Int64
	f.on("readrecords", func(body []byte) reply {
		var req protocol.ReadRecordsRequest
		if err := proto.Unmarshal(body, protoadapt.MessageV2Of(&req)); err != nil {
			panic(err)
		}
		var records []*protocol.Record
		for range page {
			records = append(records, someRecord(written.Add(1)))
		}
		return pageReply(fmt.Sprint(req.GetToken(), "+"), records)
	})
	return f
}

func TestL6_channels_of_a_subscription_share_one_window(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window, page, channels = 10, 3, 2
		f := endlessTunnel(page, "c1:1:OPEN", "c2:1:OPEN")
		s := fakeSubscriber(t, f, func(c *Config) { c.MaxInFlight, c.CloseTimeout = window, time.Millisecond })
		messages := subscribeTo(t, s)
		n := 0
		for more := true; more; {
			select {
			case <-messages:
				n++
			case <-time.After(time.Minute): // nothing is acked
				more = false
			}
		}
		// A channel reads its next page while the window has room: 10 and a page for each.
		// With a window each it would be twice as much.
		if n < window || n > window+channels*page {
			t.Errorf("%d messages are in flight with MaxInFlight %d, pages of %d and %d channels", n, window, page, channels)
		}
		_ = s.Close() // with nothing acked
	})
}
