package subscriber

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/ots"
)

// breaks is an Unmarshaler that does something else at the first attempt of record [1].
type breaks struct{ how func() }

func (u breaks) Unmarshal(r *ots.Record) (*message.Message, error) {
	if r.KeyText() == "[1]" && r.Attempt == 1 {
		u.how()
	}
	return message.NewMessage("", []byte(r.KeyText())), nil
}

// collect takes the messages of a subscription, or of a Handle, and acks them. It
// returns their payloads once n were taken or a while is over.
func collect(t *testing.T, s *Subscriber, way string, n int) []string {
	t.Helper()
	var mu sync.Mutex
	var got []string
	take := func(msg *message.Message) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(msg.Payload))
		return nil
	}
	if way == "Handle" {
		if _, err := s.Handle(context.Background(), "table/tunnel", take); err != nil {
			t.Fatal(err)
		}
	} else {
		messages := subscribeTo(t, s)
		go func() { // ends with the subscription
			for msg := range messages {
				_ = take(msg)
				msg.Ack()
			}
		}()
	}
	for range 600 {
		time.Sleep(time.Second)
		mu.Lock()
		taken := len(got)
		mu.Unlock()
		if taken >= n {
			break
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return slices.Sorted(slices.Values(got))
}

func TestUnmarshaler_that_panics_or_exits_fails_its_record_only(t *testing.T) {
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		how   func()
		err   string
		stack bool
	}{
		"panic": {func() { panic(boom) }, "unmarshaler panicked: boom", true},
		// The panic's error wraps ErrSkip, which must not skip the record.
		"panic with ErrSkip": {func() { panic(fmt.Errorf("of mine: %w", ots.ErrSkip)) }, "unmarshaler panicked: of mine: " + ots.ErrSkip.Error(), true},
		"Goexit":             {runtime.Goexit, errUnmarshalerExited.Error(), false},
	} {
		for _, way := range []string{"Subscribe", "Handle"} {
			t.Run(name+"/"+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := fakeSubscriber(t, fakeTunnel(3), func(cfg *Config) { cfg.Unmarshaler = breaks{c.how} })
					logger := watermill.NewCaptureLogger()
					s.logger = logger
					if got, want := collect(t, s, way, 3), []string{"[0]", "[1]", "[2]"}; !slices.Equal(got, want) {
						t.Errorf("got %v, want %v", got, want)
					}
					totals := s.Status().Subscriptions[0].Totals
					if totals.Refused != 1 || totals.Nacked != 1 || totals.Acked != 3 {
						t.Errorf("totals are %+v", totals)
					}
					lines := linesOf(logger, watermill.ErrorLogLevel, "Record was refused by the Unmarshaler; retrying")
					if len(lines) != 1 || lines[0].Err.Error() != c.err || lines[0].Fields["key"] != "[1]" || lines[0].Fields["attempt"] != 1 {
						t.Fatalf("logged %+v", lines)
					}
					if stack, _ := lines[0].Fields["stack"].(string); strings.Contains(stack, "panic_test.go") != c.stack {
						t.Errorf("the stack in the log is %q", stack)
					}
					if err := closeWithin(t, s, 15*time.Second); err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

func TestPanic_shows_its_stack_in_the_log_and_nowhere_else(t *testing.T) {
	boom := errors.New("boom")
	synctest.Test(t, func(t *testing.T) {
		s := fakeSubscriber(t, fakeTunnel(1), nil)
		logger := watermill.NewCaptureLogger()
		s.logger = logger
		if _, err := s.Handle(context.Background(), "table/tunnel", func(*message.Message) error { panic(boom) }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		failing := s.Status().Subscriptions[0].Failing
		if len(failing) != 1 || failing[0].Error != "handler panicked: boom" {
			t.Errorf("failing are %+v", failing)
		}
		lines := linesOf(logger, watermill.ErrorLogLevel, "Handler returned error")
		if len(lines) == 0 {
			t.Fatal("nothing is logged")
		}
		var panicked *ack.PanicError
		if err := lines[0].Err; !errors.As(err, &panicked) || !errors.Is(err, boom) || panicked.In != "handler" || strings.Contains(err.Error(), "goroutine") {
			t.Errorf("the error is %v", err)
		}
		if stack := fmt.Sprint(lines[0].Fields["stack"]); !strings.Contains(stack, "panic_test.go") {
			t.Errorf("the stack does not lead to the panic:\n%s", stack)
		}
		_ = closeWithin(t, s, 20*time.Second)
	})
}
