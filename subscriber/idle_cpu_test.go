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
	for name, handler := range map[string]message.NoPublishHandlerFunc{
		"with_Subscribe": nil,
		"with_Handle":    func(*message.Message) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := idleSession()
				s.channels.dest.handler = handler
				r := openRun(s)
				ended := make(chan struct{})
				r.deliverer.start(func() { close(ended) })
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
		r := scannedRun(t, 100)
		await := r.delivering()
		for range 99 { // the last one is offered, and not taken
			<-r.taker.dest.output
		}
		before := cpuTime(t)
		time.Sleep(time.Hour)
		if used := cpuTime(t) - before; used > time.Second {
			t.Errorf("an hour of waiting cost %v", used)
		}
		if !r.taker.dest.scanner.rests.Load() {
			t.Error("the scanner continues, although each message has a watcher")
		}
		r.drain()
		await()
	})
}
