package subscriber

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/ots"
)

func TestFailureLog_logs_a_few_in_full_and_then_one_line_a_minute(t *testing.T) {
	var l failureLog
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	full, many := 0, []failureLine(nil)
	for i := range 3000 { // 5 minutes, 10 failures a second, of a hundred records
		ok, line := l.failed(fmt.Sprintf("[%d]", i%100), 1+i/100, start.Add(time.Duration(i)*100*time.Millisecond))
		if ok {
			full++
		}
		if line != nil {
			many = append(many, *line)
		}
	}
	if full != fullFailures || len(many) != 4 {
		t.Fatalf("%d lines in full and %d others", full, len(many))
	}
	if many[0].failures != 591 || many[1].failures != 600 || many[1].lasted != 2*time.Minute {
		t.Errorf("the lines are %+v", many)
	}
	if len(many[0].named) != namedFailures || many[0].named[0] != (namedFailure{"[10]", 6}) {
		t.Errorf("the first line names %v", many[0].named)
	}
	last := start.Add(2999 * 100 * time.Millisecond)
	if again := l.succeeded(fullFailures-1, last); again != nil {
		t.Errorf("few successes end it: %+v", again)
	}
	again := l.succeeded(1, last.Add(time.Second))
	if again == nil || again.failures != 3000 || again.lasted != last.Sub(start) {
		t.Errorf("the end is %+v", again)
	}
	if l.limited.Load() || l.succeeded(100, last) != nil {
		t.Error("it ends twice")
	}
}

func TestFailureLog_ends_with_one_success_after_a_calm(t *testing.T) {
	var l failureLog
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for range fullFailures + 1 {
		l.failed("[1]", 1, start)
	}
	if again := l.succeeded(1, start.Add(calmAfter-1)); again != nil {
		t.Errorf("too early: %+v", again)
	}
	if again := l.succeeded(1, start.Add(calmAfter)); again == nil {
		t.Error("no end")
	}
}

func TestFailureLog_keeps_a_poisoned_record_among_others_in_sight(t *testing.T) {
	var l failureLog
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for attempt := range 100 { // every ten seconds, while others succeed
		if full, _ := l.failed("[7]", attempt, at); !full {
			t.Fatalf("attempt %d is not logged in full", attempt)
		}
		at = at.Add(10 * time.Second)
	}
	lines := 0
	for attempt := range 1800 { // every 100 ms, alone
		full, many := l.failed("[7]", attempt, at)
		if many != nil && !slices.Contains(many.named, namedFailure{"[7]", attempt}) {
			t.Errorf("the line of attempt %d names %v", attempt, many.named)
		}
		if full || many != nil {
			lines++
		}
		at = at.Add(100 * time.Millisecond)
	}
	if lines < 3 {
		t.Errorf("%d lines in three minutes", lines)
	}
	for attempt := range 5 { // rarely again: in full after the lines with a count
		if full, _ := l.failed("[7]", attempt, at); !full && attempt > 2 {
			t.Errorf("attempt %d is not logged in full", attempt)
		}
		at = at.Add(logInterval)
	}
}

func TestFailureLog_of_failures_and_successes_in_turn_is_bounded(t *testing.T) {
	var l failureLog
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	lines, failures, said := 0, 0, 0
	for at := start; at.Before(start.Add(10 * time.Minute)); at = at.Add(10 * time.Millisecond) {
		full, many := l.failed("[7]", 1, at)
		failures++
		if full {
			lines++
			said++
		}
		if many != nil {
			lines++
			said += many.failures
		}
		if l.limited.Load() && l.succeeded(100, at) != nil {
			lines++
		}
	}
	if most := 10 * (fullFailures + 3); lines > most || lines < 10 {
		t.Errorf("%d lines in ten minutes, of %d failures", lines, failures)
	}
}

// sink is a sink that is down while broken is set, behind a Handle.
func sink(t *testing.T, records int, broken *atomic.Bool, change func(*Config)) (*Subscriber, *watermill.CaptureLoggerAdapter) {
	t.Helper()
	s := fakeSubscriber(t, fakeTunnel(records), func(c *Config) {
		c.NackBackoff = func() backoff.BackOff { return backoff.NewConstantBackOff(time.Second) }
		if change != nil {
			change(c)
		}
	})
	logger := watermill.NewCaptureLogger()
	s.logger = logger
	down := errors.New("the sink is down")
	if _, err := s.Handle(context.Background(), "table/tunnel", func(*message.Message) error {
		if broken.Load() {
			return down
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return s, logger
}

func TestHandle_logs_an_outage_of_the_sink_in_a_few_lines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		broken.Store(true)
		s, logger := sink(t, 20, &broken, nil)
		time.Sleep(10*time.Minute + 30*time.Second)
		broken.Store(false)
		time.Sleep(time.Minute)
		nacked := s.Status().Subscriptions[0].Totals.Nacked
		full := linesOf(logger, watermill.ErrorLogLevel, "Handler returned error")
		many := linesOf(logger, watermill.ErrorLogLevel, "Handlers still fail; their messages are redelivered")
		again := linesOf(logger, watermill.InfoLogLevel, "Handlers succeed again")
		if len(full) != fullFailures || len(many) != 10 || len(again) != 1 || nacked < 20*600 {
			t.Fatalf("%d failures: %d lines in full, %d with a count, %d ends", nacked, len(full), len(many), len(again))
		}
		if keys := fmt.Sprint(many[0].Fields["first_keys"]); strings.Count(keys, "attempt") != namedFailures || many[0].Err.Error() != "the sink is down" {
			t.Errorf("a line with a count is %+v", many[0])
		}
		if got := again[0].Fields["failures"]; got != int(nacked) {
			t.Errorf("the end counts %v failures of %d", got, nacked)
		}
		if n := len(linesOf(logger, watermill.DebugLogLevel, "Handler returned error")); n != int(nacked)-fullFailures {
			t.Errorf("%d failures are logged at Debug", n)
		}
		_ = closeWithin(t, s, 20*time.Second)
	})
}

func TestHandle_tells_at_its_end_of_failures_that_were_not_told_yet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		broken.Store(true)
		s, logger := sink(t, 50, &broken, nil)
		time.Sleep(500 * time.Millisecond)
		_ = closeWithin(t, s, 20*time.Second)
		many := linesOf(logger, watermill.ErrorLogLevel, "Handlers failed before the end; what is not acked is redelivered to the tunnel's next consumer")
		if len(many) != 1 || many[0].Fields["failures"] != 50-fullFailures {
			t.Errorf("lines at the end: %+v", many)
		}
	})
}

// picky refuses every record while refusing is set.
type picky struct{ refusing *atomic.Bool }

func (u picky) Unmarshal(r *ots.Record) (*message.Message, error) {
	if u.refusing.Load() {
		return nil, errors.New("no schema")
	}
	return message.NewMessage("", nil), nil
}

func TestUnmarshaler_that_refuses_everything_makes_a_few_lines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refusing, broken atomic.Bool
		refusing.Store(true)
		s, logger := sink(t, 100, &broken, func(c *Config) { c.Unmarshaler = picky{&refusing} })
		time.Sleep(2*time.Minute + 30*time.Second)
		refusing.Store(false)
		time.Sleep(time.Minute)
		full := linesOf(logger, watermill.ErrorLogLevel, "Record was refused by the Unmarshaler; retrying")
		many := linesOf(logger, watermill.ErrorLogLevel, "The Unmarshaler still refuses records; they are retried")
		again := linesOf(logger, watermill.InfoLogLevel, "The Unmarshaler takes records again")
		if len(full) != fullFailures || len(many) != 2 || len(again) != 1 {
			t.Errorf("%d lines in full, %d with a count, %d ends", len(full), len(many), len(again))
		}
		_ = closeWithin(t, s, 20*time.Second)
	})
}
