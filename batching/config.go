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

// DefaultBatcher is the name of the batcher that serves messages which name
// none.
const DefaultBatcher = "default"

// Defaults of Config and Batcher.
const (
	DefaultSize         = 100
	DefaultTimeout      = time.Second
	DefaultConcurrency  = 1
	DefaultCloseTimeout = 10 * time.Second
)

// Values that switch a limit off for one batcher although Config.Defaults sets
// it for all.
const (
	NoMaxBytes int64         = -1
	NoIdle     time.Duration = -1
)

// HandlerFunc handles one batch. It returns nil when all messages but those
// given to Batch.Fail succeeded, and an error (or panics) when all failed.
// Several calls run at once when Batcher.Concurrency is above 1, and when
// several batchers share the function.
//
// ctx belongs to the batch, not to one of its messages, and carries no values.
// It is cancelled with the cause ErrAllEnded when every message of the batch
// was fenced, had its subscriber's drain time run out or was called back, and
// with ErrCloseTimeout when Config.CloseTimeout is over. It has no deadline:
// a handler that needs one sets it itself.
type HandlerFunc = func(ctx context.Context, b *Batch) error

// Config says which batchers there are. It is read once, by New.
type Config struct {
	// Batchers by name. At least one is required. DefaultBatcher serves the
	// messages that name none; without it such messages fail with an
	// UnknownBatcherError.
	Batchers map[string]Batcher

	// Defaults fill the zero fields of each batcher, before the defaults of
	// this package do. Isolate and Probe
	// are on for a batcher when they are on in either.
	Defaults Batcher

	// OrderingKey names the ordering key of a message whose subscriber does not
	// give one (an ack.Delivery in the message's context does, and wins).
	// Batches that share a key run one after the other. An empty key means no
	// order. It is called once a message, after the processing step, by many
	// goroutines at once. Nil: no order.
	OrderingKey func(msg *message.Message) string

	// MaxInFlight is how many unacked messages the subscriber delivers at once,
	// if known. A batcher whose Size is larger could only ever be triggered by
	// time; New logs that. Zero: unknown.
	MaxInFlight int

	// OnBatch, when set, is told of each batch that was handled, before its
	// messages are acked or nacked. Batches that run at once call it at once: it
	// must be quick. A panic in it is logged. It is made for histograms; see package metrics.
	OnBatch func(Handled)

	// NameOf names a message in the log. [its UUID]
	NameOf func(msg *message.Message) string

	// CloseTimeout is how long Close lets batches finish before it cancels
	// their contexts. [10s]
	CloseTimeout time.Duration
}

// Batcher gathers messages into batches and handles them. A message goes to the
// open batch of its batch key (SetBatchKey); the batch is handled when one of
// Size, MaxBytes, Timeout or Idle says so, or earlier when waiting is of no use
// (see Trigger).
//
// A batch whose time is up but whose turn has not come (Concurrency, or an
// earlier batch with the same ordering key) goes on taking messages up to Size and
// MaxBytes, so that batches grow when the handler is slow.
type Batcher struct {
	// Size is how many messages make a batch full. [100]
	Size int

	// MaxBytes is how many bytes, as counted by SizeBy, a batch may have. A
	// message that would take an open batch over it starts the next batch, so
	// only a message that is larger by itself makes a larger batch, alone. [0:
	// no limit] NoMaxBytes: no limit, whatever Defaults say.
	MaxBytes int64

	// SizeBy is a message's weight for MaxBytes; a negative one counts as zero.
	// It is called once a message, after the processing step, by many
	// goroutines at once. [length of the payload]
	SizeBy func(msg *message.Message) int64

	// Timeout is how long a batch waits for more messages, from its first one.
	// [1s]
	Timeout time.Duration

	// Idle is how long a batch waits after its newest message, besides Timeout,
	// which it must be below. [0: off] NoIdle: off, whatever Defaults say.
	Idle time.Duration

	// Concurrency is how many batches of this batcher are handled at once.
	// Batches that share an ordering key run one after the other at any
	// Concurrency. [1]
	Concurrency int

	// Isolate finds the messages that make a batch fail: those that fail alone
	// fail with their own error, the rest succeed. After a batch has failed as a
	// whole, single messages from different places in it are handled alone. If
	// three of them fail in a row, that is taken for an outage, and the rest
	// fails together. Otherwise the rest is split in two, the halves are handled
	// one after the other, and so on down to single messages. One bad message
	// among n costs at most 2·log2(n)+3 calls in all, an outage four, and the
	// worst case, every second message, 2·n+1. An error marked with
	// backoff.Permanent skips the look for an outage, one marked with
	// ack.Transient is taken for one. The handler sees messages that it handled
	// before, so it must bear that, as it must bear redelivery. [off]
	Isolate bool

	// Probe holds batches back while nothing succeeds: when Isolate, an error
	// marked with ack.Transient, or three batches in a row without any success
	// tell of an outage, only single messages are handled, at pauses
	// that grow from 100 ms to 1 s, until one succeeds. The messages of batches
	// that are held back stay in flight. When their subscriber drains they fail
	// with ErrOutage. [off]
	Probe bool

	// Handler handles the batches. Required.
	Handler HandlerFunc
}

// withDefaults returns a copy of c with all defaults filled in. It does not
// judge: negative values stay for validate to find.
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
			fault("Batchers has an empty name: messages that name no batcher go to %q", DefaultBatcher)
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
