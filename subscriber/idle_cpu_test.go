//go:build unix

package subscriber

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// cpuTime is what the process has used so far.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestL6_waiting_channel_costs_no_CPU lets channels wait for records for an
// hour of the bubble's time: a look every millisecond would be 3.6 million looks.
func TestL6_waiting_channel_costs_no_CPU(t *testing.T) {
	for name, start := range map[string]func(r *channelRun, done func()){
		"with_Subscribe": func(r *channelRun, done func()) { go r.deliver(done) },
		"with_Handle":    func(r *channelRun, done func()) { r.startLeader(done) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := idleSession()
				s.sub.output = make(chan *message.Message)
				r := newChannelRun(s, &conn{session: s, id: "c1"})
				ended := make(chan struct{})
				start(r, func() { close(ended) })
				before := cpuTime(t)
				time.Sleep(time.Hour)
				if used := cpuTime(t) - before; used > time.Second {
					t.Errorf("an hour of waiting cost %v", used)
				}
				r.cancel(errSessionOver)
				<-ended
			})
		})
	}
}

// TestL6_held_messages_cost_no_CPU lets handlers hold messages for an hour.
func TestL6_held_messages_cost_no_CPU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := sweptRun(t, 100)
		await := r.delivering()
		for range 99 { // the last one is offered, and nobody takes it
			<-r.sub.output
		}
		before := cpuTime(t)
		time.Sleep(time.Hour)
		if used := cpuTime(t) - before; used > time.Second {
			t.Errorf("an hour of waiting cost %v", used)
		}
		if !r.sub.sweeper.rests.Load() {
			t.Error("the sweeper looks on, although each message has a watcher")
		}
		r.drain()
		await()
	})
}
