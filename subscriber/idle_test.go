package subscriber

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/ots"
)

func TestL6_monitor_of_an_idle_leader_sleeps_until_handlers_are_called(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idleSession()
		release := make(chan struct{})
		var handled atomic.Int32
		s.channels.dest.handler = func(msg *message.Message) error {
			if r, _ := ots.RecordFromMessage(msg); r.PrimaryKey[0].Value.Int64() == 0 {
				<-release
			}
			handled.Add(1)
			return nil
		}
		r := openRun(s)
		leader := r.deliverer.(*toHandler)
		leader.pace.aside = 0
		ended := make(chan struct{})
		leader.start(func() { close(ended) })
		time.Sleep(time.Second)
		if !leader.asleep.Load() {
			t.Error("the monitor checks on, although there is nothing to do")
		}
		p := mustDecode(t, wirePage("t", nil, someRecord(0), someRecord(1), someRecord(2)))
		r.tracker.Add(ledger.Page{Token: "t", Keys: p.keys, Bytes: 1, Value: p})
		time.Sleep(time.Second)
		if n := handled.Load(); n != 2 {
			t.Errorf("%d records are handled beside the one whose handler blocks, want 2", n)
		}
		close(release)
		synctest.Wait()
		r.cancel(errSessionOver)
		<-ended
		s.channels.dest.handlers.Wait()
	})
}
