package batching

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

func succeed(context.Context, *Batch) error { return nil }

func TestNew(t *testing.T) {
	t.Run("one_error_lists_all_faults", func(t *testing.T) {
		b, err := New(Config{
			Batchers: map[string]Batcher{
				"":  {Handler: succeed},
				"a": {Size: -1, MaxBytes: -2, Timeout: -1, Idle: -2, Concurrency: -1},
				"b": {Handler: succeed, Timeout: time.Second, Idle: time.Second},
			},
			MaxInFlight:  -1,
			CloseTimeout: -1,
		}, nil)
		if b != nil {
			t.Error("a Batching was returned with the error")
		}
		if !errors.Is(err, ErrInvalidConfig) {
			t.Errorf("the error is not ErrInvalidConfig: %v", err)
		}
		contains(t, "New", err,
			"CloseTimeout is -1ns", "MaxInFlight is -1", "an empty name",
			`Batchers["a"].Size is -1`, `Batchers["a"].MaxBytes is -2`, `Batchers["a"].Timeout is -1ns`,
			`Batchers["a"].Idle is -2ns`, `Batchers["a"].Concurrency is -1`, `Batchers["a"].Handler is missing`,
			`Batchers["b"].Idle is 1s: must be below Timeout`)
	})

	t.Run("a_config_without_batchers_is_a_fault", func(t *testing.T) {
		_, err := New(Config{}, nil)
		contains(t, "New", err, "at least one batcher is required")
	})

	t.Run("zero_fields_take_Defaults_and_then_the_package's", func(t *testing.T) {
		weigh := func(*message.Message) int64 { return 7 }
		b, err := New(Config{
			Defaults: Batcher{Size: 5, MaxBytes: 50, SizeBy: weigh, Idle: time.Second, Timeout: time.Minute, Handler: succeed},
			Batchers: map[string]Batcher{
				"a": {},
				"b": {Size: 6, MaxBytes: NoMaxBytes, Idle: NoIdle, Concurrency: 3, Isolate: true},
			},
		}, watermill.NopLogger{})
		if err != nil {
			t.Fatal(err)
		}
		a := b.batchers["a"]
		equal(t, "a.Size", a.Size, 5)
		equal(t, "a.MaxBytes", a.MaxBytes, 50)
		equal(t, "a.SizeBy", a.SizeBy(nil), 7)
		equal(t, "a.Timeout", a.Timeout, time.Minute)
		equal(t, "a.Idle", a.Idle, time.Second)
		equal(t, "a.Concurrency", a.Concurrency, DefaultConcurrency)
		equal(t, "a.Isolate", a.Isolate, false)
		equal(t, "b.Size", b.batchers["b"].Size, 6)
		equal(t, "b.MaxBytes", b.batchers["b"].MaxBytes, NoMaxBytes)
		equal(t, "b.Idle", b.batchers["b"].Idle, NoIdle)
		equal(t, "b.Isolate", b.batchers["b"].Isolate, true)

		plain := mustNew(t, one(Batcher{Handler: succeed}), nil)
		d := plain.batchers[DefaultBatcher]
		equal(t, "Size", d.Size, 100)
		equal(t, "Timeout", d.Timeout, time.Second)
		equal(t, "MaxBytes", d.MaxBytes, 0)
		equal(t, "CloseTimeout", plain.closeTimeout, 10*time.Second)
	})

	t.Run("a_size_above_what_may_be_in_flight_is_logged", func(t *testing.T) {
		logger := watermill.NewCaptureLogger()
		cfg := one(Batcher{Size: 101, Handler: succeed})
		cfg.Batchers["small"] = Batcher{Size: 100, Handler: succeed}
		cfg.MaxInFlight = 100
		mustNew(t, cfg, logger)
		logs := logger.Captured()[watermill.InfoLogLevel]
		equal(t, "logs", len(logs), 1)
		equal(t, "batcher", logs[0].Fields["batcher"], "default")
	})
}
