package subscriber

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ots"
)

// errElsewhere is what a transport, a CredentialsProvider or a handler returns when
// a call of its own was cancelled. None of our contexts ended for it.
var errElsewhere = fmt.Errorf("the shared call was given up: %w", context.Canceled)

// ackFirst subscribes and acks the first message.
func ackFirst(t *testing.T, s *Subscriber) {
	t.Helper()
	select {
	case msg := <-subscribeTo(t, s):
		msg.Ack()
	case <-time.After(time.Hour):
		t.Fatal("no message within an hour")
	}
}

// failuresOf returns how often calls of op failed, by Status.
func failuresOf(s *Subscriber, op string) (n uint64) {
	for _, e := range s.Status().Subscriptions[0].Errors {
		if e.Op == op {
			n += e.Count
		}
	}
	return n
}

func TestCancelled_error_of_the_transport_is_a_failure_that_passes(t *testing.T) {
	for _, op := range []string{"describe", "connect", "heartbeat", "getcheckpoint", "readrecords", "checkpoint"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const refused = 2
				f := fakeTunnel(1)
				answers, calls := f.handlers[op], atomic.Int64{}
				f.on(op, func(body []byte) reply {
					if calls.Add(1) <= refused {
						return reply{err: errElsewhere}
					}
					if answers == nil {
						return reply{}
					}
					return answers(body)
				})
				s := fakeSubscriber(t, f, nil)
				defer func() { _ = closeWithin(t, s, 10*time.Second) }()
				ackFirst(t, s)
				time.Sleep(time.Minute)
				totals := s.Status().Subscriptions[0].Totals
				if totals.Acked != 1 || totals.Checkpoints != 1 {
					t.Errorf("acked %d, stored %d checkpoints", totals.Acked, totals.Checkpoints)
				}
				if n := failuresOf(s, op); op != "describe" && n != refused {
					t.Errorf("%d failures are counted, want %d", n, refused)
				}
			})
		})
	}
}

func TestCancelled_error_of_the_CredentialsProvider_stops_no_reader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(1)
		var broken atomic.Bool
		s := fakeSubscriber(t, f, func(c *Config) {
			c.Credentials = ots.CredentialsProviderFunc(func(context.Context) (ots.Credentials, error) {
				if broken.Load() {
					return ots.Credentials{}, errElsewhere
				}
				return ots.Credentials{AccessKeyID: "id", AccessKeySecret: "hush", Expires: time.Now().Add(2 * time.Minute)}, nil
			})
		})
		defer func() { _ = closeWithin(t, s, 10*time.Second) }()
		ackFirst(t, s)
		broken.Store(true)
		time.Sleep(5 * time.Minute) // the credentials expire, calls fail
		broken.Store(false)
		time.Sleep(time.Minute)
		before := s.Status().Subscriptions[0].Totals.ReadsEmpty
		time.Sleep(time.Minute)
		if s.Status().Subscriptions[0].Totals.ReadsEmpty == before {
			t.Error("nothing is read although the provider gives credentials again")
		}
		if n := failuresOf(s, "readrecords"); n == 0 {
			t.Error("no read is counted as failed")
		}
	})
}

func TestCancelled_read_of_a_run_that_ended_is_no_failure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(1)
		s := fakeSubscriber(t, f, nil)
		ackFirst(t, s)
		f.always("readrecords", reply{hang: true})
		time.Sleep(time.Second)
		f.always("heartbeat", heartbeatReply("c1:2:CLOSE")) // the channel goes to another client
		time.Sleep(10 * time.Second)
		if n := failuresOf(s, "readrecords"); n != 0 {
			t.Errorf("%d reads are counted as failed", n)
		}
		_ = closeWithin(t, s, 10*time.Second)
	})
}

func TestSubscribe_with_a_cancelled_context_gives_no_advice_about_the_endpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeSubscriber(t, new(fakeService).always("describe", reply{hang: true}), nil)
		defer func() { _ = closeWithin(t, s, time.Second) }()
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		if _, err := s.Subscribe(ctx, "table/tunnel"); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "Config.Endpoint") {
			t.Errorf("got %v", err)
		}
		f := s.cfg.Transport.(*fakeService)
		f.always("describe", reply{err: errElsewhere})
		ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := s.Subscribe(ctx, "table/tunnel"); err == nil || !strings.Contains(err.Error(), "Config.Endpoint") {
			t.Errorf("a transport's own cancelled call: %v", err)
		}
	})
}

func TestHandle_takes_a_cancelled_call_of_the_handlers_own_for_a_failure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(1)
		s := fakeSubscriber(t, f, nil)
		logger := watermill.NewCaptureLogger()
		s.logger = logger
		var calls atomic.Int64
		if _, err := s.Handle(context.Background(), "table/tunnel", func(msg *message.Message) error {
			calls.Add(1)
			return errElsewhere
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		st := s.Status().Subscriptions[0]
		if n := uint64(calls.Load()); n < 2 || st.Totals.Nacked != n {
			t.Errorf("%d calls, %d failures counted", n, st.Totals.Nacked)
		}
		if len(st.Failing) != 1 || st.Failing[0].Error != errElsewhere.Error() {
			t.Errorf("failing are %+v", st.Failing)
		}
		lines := linesOf(logger, watermill.ErrorLogLevel, "Handler returned error")
		if len(lines) == 0 || lines[0].Fields["key"] != "[0]" || lines[0].Fields["attempt"] != 1 || !errors.Is(lines[0].Err, errElsewhere) {
			t.Errorf("logged %+v", lines)
		}
		_ = closeWithin(t, s, 20*time.Second)
	})
}

func TestHandle_does_not_log_what_a_handler_returns_after_its_channel_was_lost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeTunnel(1)
		s := fakeSubscriber(t, f, nil)
		logger := watermill.NewCaptureLogger()
		s.logger = logger
		returned := make(chan error, 1)
		if _, err := s.Handle(context.Background(), "table/tunnel", func(msg *message.Message) error {
			<-msg.Context().Done()
			returned <- context.Cause(msg.Context())
			return errors.New("rolled back") // no word of a cancellation
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		f.always("heartbeat", heartbeatReply("c1:2:CLOSE"))
		select {
		case err := <-returned:
			if !errors.Is(err, ErrChannelLost) {
				t.Errorf("the context ended with %v", err)
			}
		case <-time.After(time.Hour):
			t.Fatal("the message's context did not end within an hour")
		}
		synctest.Wait()
		if lines := linesOf(logger, watermill.ErrorLogLevel, "Handler returned error"); len(lines) > 0 {
			t.Errorf("logged %+v", lines)
		}
		if n := s.Status().Subscriptions[0].Totals.Nacked; n != 0 {
			t.Errorf("%d failures are counted", n)
		}
		_ = closeWithin(t, s, 20*time.Second)
	})
}

// linesOf returns the captured lines of a level with the given message.
func linesOf(logger *watermill.CaptureLoggerAdapter, level watermill.LogLevel, msg string) (lines []watermill.CapturedMessage) {
	defer func() { logger.Captured() }() // takes its lock: what is read here is read before it changes
	for _, line := range logger.Captured()[level] {
		if line.Msg == msg {
			lines = append(lines, line)
		}
	}
	return lines
}
