package subscriber

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/internal/service"
)

var busy = failedCall{"readrecords", service.CodeServerBusy}

func TestOutages_begin_go_on_once_a_minute_and_end_with_the_last_channel(t *testing.T) {
	var o outages
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	begun, wentOn := 0, []outageLine(nil)
	for at := time.Duration(0); at < 5*time.Minute; at += 100 * time.Millisecond {
		for _, who := range []string{"c1", "c2", "c3"} {
			begins, goesOn := o.failed(busy, who, start.Add(at))
			if begins {
				begun++
			}
			if goesOn != nil {
				wentOn = append(wentOn, *goesOn)
			}
		}
	}
	if begun != 1 || len(wentOn) != 4 {
		t.Fatalf("it began %d times and continued in %d lines", begun, len(wentOn))
	}
	if got, want := wentOn[1], (outageLine{busy, 3*1200 + 1, 3, 2 * time.Minute}); got != want {
		t.Errorf("the second line is %+v, want %+v", got, want)
	}
	end := start.Add(5 * time.Minute)
	if ended := o.succeeded("c1", end, "checkpoint"); len(ended) > 0 {
		t.Errorf("another operation ends it: %v", ended)
	}
	o.succeeded("c1", end, "readrecords")
	o.gone("c2")
	if ended := o.succeeded("c1", end, "readrecords"); len(ended) > 0 {
		t.Errorf("it ends while c3 fails: %v", ended)
	}
	ended := o.succeeded("c3", end, "readrecords")
	if len(ended) != 1 || ended[0] != (outageLine{busy, 9000, 0, 5 * time.Minute}) {
		t.Errorf("the end is %+v", ended)
	}
	if ended := o.succeeded("c3", end, "readrecords"); len(ended) > 0 {
		t.Errorf("it ends twice: %v", ended)
	}
}

func TestOutages_ends_with_anybody_when_all_that_failed_are_gone(t *testing.T) {
	var o outages
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o.failed(busy, "c1", start)
	o.gone("c1")
	if ended := o.succeeded("c2", start.Add(time.Hour), "readrecords"); len(ended) != 1 || ended[0].lasted != time.Hour {
		t.Errorf("the end is %+v", ended)
	}
	o.failed(busy, "c1", start.Add(2*time.Hour))
	o.gone("c1")
	if begins, _ := o.failed(busy, "c2", start.Add(3*time.Hour)); !begins {
		t.Error("an outage that was forgotten does not begin anew")
	}
}

func TestOutages_that_come_and_go_make_two_lines_a_minute(t *testing.T) {
	var o outages
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	lines := 0
	for at := time.Duration(0); at < 10*time.Minute; at += 100 * time.Millisecond {
		begins, goesOn := o.failed(busy, "c1", start.Add(at))
		if begins || goesOn != nil {
			lines++
		}
		lines += len(o.succeeded("c1", start.Add(at+time.Millisecond), "readrecords"))
	}
	if lines != 20 {
		t.Errorf("%d lines in ten minutes", lines)
	}
}

func TestOutages_tell_a_bounded_number_of_codes_apart(t *testing.T) {
	var o outages
	for i := range 1000 {
		o.failed(failedCall{"readrecords", fmt.Sprint("Code", i)}, "c1", time.Now())
	}
	if len(o.by) > maxFailedCalls+1 {
		t.Errorf("%d are kept", len(o.by))
	}
}

// instance is a subscription with 20 channels whose calls all fail while broken is
// set. A client that was lost gets other channels than before.
func instance(t *testing.T, broken *atomic.Bool) (*Subscriber, *watermill.CaptureLoggerAdapter) {
	t.Helper()
	f := fakeTunnel(1)
	f.on("heartbeat", func(body []byte) reply {
		var hb protocol.HeartbeatRequest
		unmarshal(t, body, &hb)
		var open []string
		for i := range 20 {
			open = append(open, fmt.Sprintf("c%d-of-%s:1:OPEN", i, hb.GetClientId()))
		}
		return heartbeatReply(open...)
	})
	for _, op := range []string{"connect", "heartbeat", "getcheckpoint", "checkpoint", "readrecords"} {
		answers := f.handlers[op]
		f.on(op, func(body []byte) reply {
			switch {
			case broken.Load():
				return errorReply(http.StatusServiceUnavailable, service.CodeServerBusy)
			case answers == nil:
				return reply{}
			}
			return answers(body)
		})
	}
	s := fakeSubscriber(t, f, func(c *Config) {
		c.WorkerSize, c.MaxPollInterval = 2, 5*time.Second // minutes pass, and each read costs real time
	})
	logger := watermill.NewCaptureLogger()
	s.logger = logger
	return s, logger
}

func TestLog_of_an_outage_of_the_instance_is_a_few_lines_a_minute(t *testing.T) {
	t.Parallel()
	for _, lasting := range []time.Duration{20 * time.Second, 10 * time.Minute} { // without and with the loss of the sessions
		t.Run(lasting.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var broken atomic.Bool
				s, logger := instance(t, &broken)
				messages := subscribeTo(t, s)
				go func() { // ends with the subscription
					for msg := range messages {
						msg.Ack()
					}
				}()
				time.Sleep(time.Minute)
				if lines := logger.Captured()[watermill.ErrorLogLevel]; len(lines) > 0 {
					t.Fatalf("lines before it began: %+v", lines)
				}
				broken.Store(true)
				time.Sleep(lasting)
				broken.Store(false)
				time.Sleep(5 * time.Minute)

				var failures uint64
				for _, e := range s.Status().Subscriptions[0].Errors {
					failures += e.Count
				}
				// One for each operation that fails: reads, heartbeats, connects, checkpoints.
				most := 4 * (1 + int(lasting/logInterval))
				lines := logger.Captured()[watermill.ErrorLogLevel]
				if len(lines) > most || failures < 100 {
					t.Errorf("%d lines of %d failures, want at most %d", len(lines), failures, most)
				}
				if first := linesOf(logger, watermill.ErrorLogLevel, "Read failed; retrying"); len(first) != 1 ||
					first[0].Fields["operation"] != "readrecords" || first[0].Fields["code"] != service.CodeServerBusy || !strings.Contains(first[0].Err.Error(), "table/tunnel channel c") {
					t.Errorf("the first line is %+v", first)
				}
				ended := linesOf(logger, watermill.InfoLogLevel, "Calls succeed again")
				ends := make(map[any]int)
				for _, line := range ended {
					ends[line.Fields["operation"]]++
				}
				connects := len(linesOf(logger, watermill.ErrorLogLevel, "Tunnel session ended; connecting again")) // one for each operation
				if ends["readrecords"] != 1 || ends["connect"]+ends["heartbeat"] != connects {
					t.Errorf("%d ends of sessions, told are %+v", connects, ended)
				}
				if lost := lasting > 30*time.Second; lost != (connects > 0) {
					t.Errorf("%d lines about lost sessions", connects)
				}
				if detail := linesOf(logger, watermill.DebugLogLevel, "Read failed; retrying"); len(detail) < 20 || detail[0].Fields["err"] == nil {
					t.Errorf("%d failed reads at Debug", len(detail))
				}
				_ = closeWithin(t, s, 20*time.Second)
			})
		})
	}
}
