package subscriber

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// told is a subscriber of f whose log is captured.
func told(t *testing.T, f *fakeService, change func(*Config)) (*Subscriber, *watermill.CaptureLoggerAdapter) {
	t.Helper()
	logger := watermill.NewCaptureLogger()
	s := fakeSubscriber(t, f, change)
	s.logger = logger
	return s, logger
}

func TestLog_tells_of_the_connection_and_of_a_drain_every_five_seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, logger := told(t, fakeTunnel(1), func(c *Config) { c.CloseTimeout = 12 * time.Second })
		<-subscribeTo(t, s) // and not settled
		time.Sleep(time.Second)
		synctest.Wait() // nothing is logged any more at this moment
		if lines := linesOf(logger, watermill.InfoLogLevel, "Connected to the tunnel"); len(lines) != 1 || lines[0].Fields["client_id"] != "client-1" || lines[0].Fields["heartbeat_timeout"] != "30s" {
			t.Errorf("at the start: %+v", lines)
		}
		if err := s.Close(); !errors.Is(err, ErrDrainTimeout) {
			t.Errorf("Close: %v", err)
		}
		began := linesOf(logger, watermill.InfoLogLevel, "Drain began: nothing more is read or delivered")
		if len(began) != 1 || began[0].Fields["with_handlers"] != 1 || began[0].Fields["in_flight"] != 1 || began[0].Fields["time_left"] != "12s" {
			t.Errorf("at its beginning: %+v", began)
		}
		still := linesOf(logger, watermill.InfoLogLevel, "Still draining")
		if len(still) != 2 || still[0].Fields["time_left"] != "7s" || still[1].Fields["time_left"] != "2s" || still[1].Fields["oldest_key"] != "[0]" {
			t.Errorf("during it: %+v", still)
		}
		if end := linesOf(logger, watermill.InfoLogLevel, "Drained"); len(end) != 1 || end[0].Fields["took"] != "12s" || end[0].Fields["unsettled"] != 1 {
			t.Errorf("at its end: %+v", end)
		}
	})
}

// TestLog_of_every_way_a_handler_fails: with a message.Router its own line has no key.
func TestLog_has_the_key_of_a_failure_in_every_path(t *testing.T) {
	sinkDown := errors.New("the sink is down")
	const nacked, returned = "Message nacked; it is redelivered", "Handler returned error"
	for name, c := range map[string]struct {
		consume func(t *testing.T, s *Subscriber)
		line    string
	}{
		"nack of what Subscribe delivered": {func(t *testing.T, s *Subscriber) { (<-subscribeTo(t, s)).Nack() }, nacked},
		"error of Handle":                  {func(t *testing.T, s *Subscriber) { handleAll(t, s, func(*message.Message) error { return sinkDown }) }, returned},
		"panic of Handle":                  {func(t *testing.T, s *Subscriber) { handleAll(t, s, func(*message.Message) error { panic("no") }) }, returned},
		"nack by a handler of Handle": {func(t *testing.T, s *Subscriber) {
			handleAll(t, s, func(m *message.Message) error { m.Nack(); return nil })
		}, nacked},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, logger := told(t, fakeTunnel(1), func(c *Config) { c.CloseTimeout = time.Second })
				c.consume(t, s)
				time.Sleep(20 * time.Millisecond)
				synctest.Wait()
				lines := linesOf(logger, watermill.ErrorLogLevel, c.line)
				if len(lines) != 1 || lines[0].Fields["key"] != "[0]" || lines[0].Fields["attempt"] != 1 || lines[0].Fields["message_uuid"] == "" || lines[0].Err == nil {
					t.Errorf("logged %+v", lines)
				}
				if n := len(logger.Captured()[watermill.ErrorLogLevel]); n != 1 {
					t.Errorf("%d lines at Error", n)
				}
				_ = closeWithin(t, s, 20*time.Second)
			})
		})
	}
}

func handleAll(t *testing.T, s *Subscriber, h message.NoPublishHandlerFunc) {
	t.Helper()
	if _, err := s.Handle(t.Context(), "table/tunnel", h); err != nil {
		t.Fatal(err)
	}
}

func TestLog_of_nacks_in_an_outage_is_limited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, logger := told(t, fakeTunnel(200), func(c *Config) { c.CloseTimeout = time.Second })
		messages := subscribeTo(t, s)
		nacking := make(chan struct{})
		go func() { // ends when the output is closed
			defer close(nacking)
			for m := range messages {
				m.Nack()
			}
		}()
		time.Sleep(3*time.Minute + 30*time.Second)
		_ = closeWithin(t, s, 20*time.Second)
		<-nacking
		full := linesOf(logger, watermill.ErrorLogLevel, "Message nacked; it is redelivered")
		many := linesOf(logger, watermill.ErrorLogLevel, "Handlers still fail; their messages are redelivered")
		if len(full) != fullFailures || len(many) != 3 {
			t.Errorf("%d lines in full, %d with a count", len(full), len(many))
		}
	})
}

func TestLog_promises_no_other_try_of_what_is_over(t *testing.T) {
	for name, fail := range map[string]func(f *fakeService){
		"checkpoints refused": func(f *fakeService) { f.always("checkpoint", unavailable) },
		"all refused":         func(f *fakeService) { all(f, errorReply(http.StatusForbidden, "OTSAuthFailed")) },
		"unreachable":         unreachable,
		"the client is gone":  func(f *fakeService) { all(f, gone) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fakeTunnel(20)
				s, logger := told(t, f, func(c *Config) { c.CloseTimeout = 2 * time.Second })
				messages := subscribeTo(t, s)
				for range 20 {
					(<-messages).Ack() // so that there is something to commit
				}
				time.Sleep(10 * time.Millisecond)
				slow := unavailable
				slow.after = time.Second
				f.always("readrecords", slow)
				time.Sleep(100 * time.Millisecond) // a read is under way, which fails in the drain
				synctest.Wait()                    // all wait for a time to come, and it stands still until Close waits
				fail(f)
				before := len(logger.Captured()[watermill.ErrorLogLevel])
				_ = s.Close()
				for _, line := range logger.Captured()[watermill.ErrorLogLevel][before:] {
					for _, promise := range []string{"retrying", "retried", "connecting again", "it is redelivered", "messages are redelivered"} {
						if strings.Contains(line.Msg, promise) {
							t.Errorf("at the end it says: %s: %v", line.Msg, line.Err)
						}
					}
				}
			})
		})
	}
}

// loggedFailure is the failure of a batch that the log has already, as batching.Failure is.
type loggedFailure struct{}

func (loggedFailure) Error() string { return "the batch failed" }
func (loggedFailure) Logged() bool  { return true }

func TestLog_of_a_nack_that_the_log_has_already_is_not_repeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, logger := told(t, fakeTunnel(1), func(c *Config) { c.CloseTimeout = time.Second })
		msg := <-subscribeTo(t, s)
		msg.Context().(*delivery).CallBack(loggedFailure{})
		msg.Nack()
		time.Sleep(20 * time.Millisecond)
		_ = closeWithin(t, s, 20*time.Second)
		if lines := logger.Captured()[watermill.ErrorLogLevel]; len(lines) != 0 {
			t.Errorf("logged %+v", lines)
		}
		if lines := linesOf(logger, watermill.DebugLogLevel, "Message nacked; it is redelivered"); len(lines) != 1 {
			t.Errorf("logged at Debug %+v", lines)
		}
	})
}
