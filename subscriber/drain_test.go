package subscriber

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
)

// idleSession is a session whose service answers nothing of use.
func idleSession() *session {
	return sessionOf(subscriptionOf(new(fakeService), Config{Unmarshaler: None{}}, nil))
}

func TestL7_session_that_stops_opens_no_channel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idleSession()
		s.close((*conn).drain)
		c := &conn{session: s, id: "c1", clientID: "client-1"}
		c.NotifyStatus(&tunnel.ChannelStatus{ChannelId: "c1", Version: 1, Status: protocol.ChannelStatus_OPEN})
		if c.active() != nil {
			t.Error("a run was started that the drain does not know of")
			s.cancel(errSessionOver)
			s.runs.Wait()
		}
	})
}

// reportingTo is a state machine that does something while it takes a status.
type reportingTo func(*tunnel.ChannelStatus)

func (r reportingTo) UpdateStatus(st *tunnel.ChannelStatus) { r(st) }

// The service may hand a channel out again before the state machine has dropped the
// conn of the run that gave it back.
func TestL7_run_that_begins_while_the_one_before_is_reported_ends_with_the_session(t *testing.T) {
	for name, end := range map[string]func(*conn){"drains": (*conn).drain, "is lost": (*conn).fence} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := idleSession()
				s.endpoint = fakeEndpoint(fakeTunnel(0))
				c := &conn{session: s, id: "c1", clientID: "client-1"}
				again := sync.OnceFunc(func() {
					c.NotifyStatus(&tunnel.ChannelStatus{ChannelId: "c1", Version: 9, Status: protocol.ChannelStatus_OPEN})
				})
				c.state = reportingTo(func(*tunnel.ChannelStatus) { again() })
				c.NotifyStatus(&tunnel.ChannelStatus{ChannelId: "c1", Version: 1, Status: protocol.ChannelStatus_OPEN})
				first := c.active()
				time.Sleep(time.Second)
				first.drain()
				time.Sleep(time.Second)
				second := c.active()
				if second == nil || second == first {
					t.Fatal("the channel was not opened again")
				}
				s.close(end)
				ended := make(chan struct{})
				go func() { s.runs.Wait(); close(ended) }()
				select {
				case <-ended:
				case <-time.After(time.Minute):
					t.Error("the run has not ended although its session has")
					s.cancel(errSessionOver)
					<-ended
				}
				s.cancel(errSessionOver)
			})
		})
	}
}

func TestL7_drain_waits_for_CloseTimeout_and_no_longer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := idleSession()
		r := openRun(s)
		p := mustDecode(t, wirePage("t", nil, someRecord(1)))
		r.tracker.Add(ledger.Page{Token: "t", Keys: p.keys, Bytes: 1, Value: p})
		a, now, ok := r.taker.next(new(ackBatch), time.Now())
		if !ok {
			t.Fatal("the record is not delivered")
		}
		d, _ := r.taker.messageOf(a, now)
		if !r.taker.bind(d) {
			t.Fatal("the delivery is not bound")
		}
		began := time.Now()
		r.drain()
		if end := r.finishDrain(); end != endClosed {
			t.Errorf("the channel is %v", end)
		}
		if took := time.Since(began); took != s.cfg.CloseTimeout {
			t.Errorf("the drain took %v, want the CloseTimeout of %v", took, s.cfg.CloseTimeout)
		}
		if !d.over() {
			t.Error("the message that was given up keeps its context")
		}
		r.cancel(errSessionOver)
	})
}

// TestL7_drain_does_not_break_off_a_read: a request that is given up takes its
// connection with it, and the last commit of each channel would have to dial.
func TestL7_drain_does_not_break_off_a_read(t *testing.T) {
	for name, service := range map[string]struct {
		read reply
		ends time.Duration // when reading has ended, from the read's start
	}{
		"that is answered": {reply{after: 50 * time.Millisecond, body: wirePage("t", nil, someRecord(1))}, 50 * time.Millisecond},
		"that hangs":       {reply{hang: true}, 80 * time.Millisecond}, // the run's end
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := idleSession()
				f := new(fakeService).always("readrecords", service.read)
				s.endpoint = fakeEndpoint(f)
				r := openRun(s)
				began := time.Now()
				ended := make(chan time.Duration)
				go func() { r.reader.read("t0"); ended <- time.Since(began) }()
				time.AfterFunc(20*time.Millisecond, r.drain)
				time.AfterFunc(80*time.Millisecond, func() { r.cancel(errSessionOver) })
				if got := <-ended; got != service.ends {
					t.Errorf("reading ended after %v, want %v", got, service.ends)
				}
				if reads := f.times("readrecords", began); len(reads) != 1 {
					t.Errorf("reads at %v, want none after the drain began", reads)
				}
				r.cancel(errSessionOver)
			})
		})
	}
}
