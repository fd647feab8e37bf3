package batching

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// DefaultBatcher is the name of the batcher for messages that do not name one.
const DefaultBatcher = "default"

// Defaults of Config and Batcher.
const (
	DefaultSize         = 100
	DefaultTimeout      = time.Second
	DefaultConcurrency  = 1
	DefaultCloseTimeout = 10 * time.Second
)

// Values that switch a limit off for one batcher when Config.Defaults sets it.
const (
	NoMaxBytes int64         = -1
	NoIdle     time.Duration = -1
)

// HandlerFunc handles one batch. It returns nil when all messages except those
// given to Batch.Fail succeeded, and an error (or panics) when all failed.
// Several calls run at once when Batcher.Concurrency is above 1, and when
// several batchers share the function.
//
// ctx belongs to the batch, not to one of its messages, and carries no values.
// It is cancelled with the cause ErrAllEnded when every message of the batch was
// fenced, was called back or exceeded its subscriber's drain timeout, and with
// ErrCloseTimeout when Config.CloseTimeout is exceeded. It has no deadline: a
// handler that needs one sets it itself.
type HandlerFunc = func(ctx context.Context, b *Batch) error

// Config configures a Batching. New reads it once.
type Config struct {
	// Batchers by name. At least one is required. DefaultBatcher handles the
	// messages that do not name a batcher; without it such messages fail with an
	// UnknownBatcherError.
	Batchers map[string]Batcher

	// Defaults fill the zero fields of each batcher, before the defaults of this
	// package do. Isolate and Probe are on for a batcher when they are on in either.
	Defaults Batcher

	// OrderingKey returns the ordering key of a message whose subscriber does not
	// set one (an ack.Delivery in the message's context does, and takes precedence).
	// Batches that share a key run one at a time. An empty key means no order.
	// It is called once for each message, after the processing step, by many
	// goroutines at once. Nil: no order.
	OrderingKey func(msg *message.Message) string

	// Scope names the scope of a message, such as the shard that it comes from. Each
	// scope has its own batches and its own Concurrency: a batch has messages of one
	// scope only, and each scope may run Concurrency batches of a batcher at once. All
	// scopes share the rest: the order of an ordering key holds across scopes, an
	// outage (Batcher.Probe) concerns the whole batcher, and Stats adds up all scopes.
	// A scope takes memory only while it has messages.
	//
	// It is called once a message, after the processing step, by many goroutines at
	// once. Nil: all messages are in one scope.
	Scope func(msg *message.Message) string

	// MaxInFlight is how many unacked messages the subscriber delivers at once,
	// if known. A batcher with a larger Size can only be triggered by time; New
	// logs that. Zero: unknown.
	MaxInFlight int

	// OnBatch, if set, is called for each batch that was handled, before its
	// messages are acked or nacked. It is called concurrently for batches that run
	// at once, and must be quick. A panic in it is logged. It is meant for
	// histograms; see package metrics.
	OnBatch func(Handled)

	// NameOf returns the name of a message in the log. [its UUID]
	NameOf func(msg *message.Message) string

	// CloseTimeout is how long Close waits for batches to finish before it cancels
	// their contexts. [10s]
	CloseTimeout time.Duration
}

// Batcher collects messages into batches and handles them. A message joins the
// open batch of its batch key (SetBatchKey). The batch is due when it reaches one
// of Size, MaxBytes, Timeout or Idle, or earlier when waiting is pointless (see
// Trigger).
//
// A batch that is due but cannot run yet (because of Concurrency, or of an earlier
// batch with the same ordering key) still takes messages up to Size and MaxBytes, so
// that batches grow when the handler is slow.
type Batcher struct {
	// Size is the number of messages of a full batch. [100]
	Size int

	// MaxBytes is how many bytes, as counted by SizeBy, a batch may have. A
	// message that would exceed it starts the next batch. A message that exceeds
	// it by itself forms its own batch. [0: no limit] NoMaxBytes: no limit,
	// whatever Defaults say.
	MaxBytes int64

	// SizeBy returns a message's weight for MaxBytes; a negative weight counts as
	// zero. It is called once for each message, after the processing step, by many
	// goroutines at once. [length of the payload]
	SizeBy func(msg *message.Message) int64

	// Timeout is how long a batch waits for more messages after its first one.
	// [1s]
	Timeout time.Duration

	// Idle is how long a batch waits for more messages after its newest one. It
	// must be below Timeout, which still holds. [0: off] NoIdle: off, whatever
	// Defaults say.
	Idle time.Duration

	// Concurrency is how many batches of this batcher are handled at once, in each
	// scope if Config.Scope is set. Batches that share an ordering key run one at a
	// time at any Concurrency. [1]
	Concurrency int

	// Isolate finds the messages that make a batch fail: those that fail alone
	// fail with their own error, the rest succeed. After a whole batch has failed,
	// single messages from different places in it are handled alone. If three of
	// them fail in a row, that counts as an outage, and the rest fails together.
	// Otherwise the rest is split in two, the halves are handled in order, and so
	// on down to single messages. One bad message among n costs at most
	// 2·log2(n)+3 calls in total, an outage four, and the worst case, every second
	// message, 2·n+1. An error marked with backoff.Permanent skips the check for an
	// outage, one marked with ack.Transient counts as an outage. The handler must
	// tolerate messages that it handled before, as it must tolerate redelivery. [off]
	Isolate bool

	// Probe holds batches back during an outage. An outage begins when Isolate
	// finds one, with an error marked with ack.Transient, or after three batches in
	// a row without any success. Only single messages are handled then, with pauses
	// that grow from 100 ms to 1 s, until one succeeds. The messages of batches
	// that are held back stay in flight. When their subscriber drains they fail
	// with ErrOutage. [off]
	Probe bool

	// Handler handles the batches. Required.
	Handler HandlerFunc
}

// withDefaults returns a copy of c with all defaults filled in. Negative values
// stay for validate to find.
func (c Config) withDefaults() Config {
	c.CloseTimeout = cmp.Or(c.CloseTimeout, DefaultCloseTimeout)
	batchers := make(map[string]Batcher, len(c.Batchers))
	for name, b := range c.Batchers {
		batchers[name] = b.withDefaults(c.Defaults)
	}
	c.Batchers = batchers
	return c
}

func (b Batcher) withDefaults(d Batcher) Batcher {
	b.Size = cmp.Or(b.Size, d.Size, DefaultSize)
	b.MaxBytes = cmp.Or(b.MaxBytes, d.MaxBytes)
	b.Timeout = cmp.Or(b.Timeout, d.Timeout, DefaultTimeout)
	b.Idle = cmp.Or(b.Idle, d.Idle)
	b.Concurrency = cmp.Or(b.Concurrency, d.Concurrency, DefaultConcurrency)
	b.Isolate = b.Isolate || d.Isolate
	b.Probe = b.Probe || d.Probe
	if b.SizeBy == nil {
		b.SizeBy = d.SizeBy
	}
	if b.SizeBy == nil {
		b.SizeBy = func(msg *message.Message) int64 { return int64(len(msg.Payload)) }
	}
	if b.Handler == nil {
		b.Handler = d.Handler
	}
	return b
}

// validate returns one error that lists every fault of c, which has its
// defaults filled in, or nil.
func (c Config) validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf(format, args...))
	}
	if len(c.Batchers) == 0 {
		fault("Batchers is empty: at least one batcher is required")
	}
	if c.CloseTimeout < 0 {
		fault("CloseTimeout is %v: must not be negative", c.CloseTimeout)
	}
	if c.MaxInFlight < 0 {
		fault("MaxInFlight is %d: must not be negative", c.MaxInFlight)
	}
	// Sorted, so that the same config always gives the same text.
	for _, name := range slices.Sorted(maps.Keys(c.Batchers)) {
		b := c.Batchers[name]
		if name == "" {
			fault("Batchers has an empty name: messages that do not name a batcher go to %q", DefaultBatcher)
		}
		if b.Size < 0 {
			fault("Batchers[%q].Size is %d: must be positive", name, b.Size)
		}
		if b.MaxBytes < 0 && b.MaxBytes != NoMaxBytes {
			fault("Batchers[%q].MaxBytes is %d: must be positive, 0 or NoMaxBytes", name, b.MaxBytes)
		}
		if b.Timeout < 0 {
			fault("Batchers[%q].Timeout is %v: must be positive", name, b.Timeout)
		}
		if b.Idle < 0 && b.Idle != NoIdle {
			fault("Batchers[%q].Idle is %v: must be positive, 0 or NoIdle", name, b.Idle)
		}
		if b.Timeout > 0 && b.Idle >= b.Timeout {
			fault("Batchers[%q].Idle is %v: must be below Timeout, which is %v", name, b.Idle, b.Timeout)
		}
		if b.Concurrency < 0 {
			fault("Batchers[%q].Concurrency is %d: must be positive", name, b.Concurrency)
		}
		if b.Handler == nil {
			fault("Batchers[%q].Handler is missing", name)
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrInvalidConfig, errors.Join(faults...))
}
