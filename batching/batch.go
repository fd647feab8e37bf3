package batching

import (
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// Trigger is the reason why a batch became due. If several apply, the first one
// counts.
type Trigger string

const (
	TriggerSize    Trigger = "size"    // it had Size messages
	TriggerBytes   Trigger = "bytes"   // it had MaxBytes, or the next message would have exceeded it
	TriggerTimeout Trigger = "timeout" // Timeout elapsed after its first message
	TriggerIdle    Trigger = "idle"    // Idle elapsed after its newest message
	TriggerFlush   Trigger = "flush"   // a message asked for it (Flush)
	TriggerOrder   Trigger = "order"   // a later message of one of its ordering keys waits for it, and belongs in another batch
	TriggerDrain   Trigger = "drain"   // the subscriber drains or cannot deliver more, or a waiting message's context ended
	TriggerClose   Trigger = "close"   // Close was called
	TriggerProbe   Trigger = "probe"   // its message probes whether an outage has ended (Batcher.Probe)
)

// Batch is the argument of a batch handler. The handler may use it and its Messages
// until it returns. It may keep and change the slice, but must not use the messages
// after it returned, as with any Watermill handler.
//
// For testing a handler without a middleware, a Batch can be created directly, with
// Messages filled in: Fail and Err work.
type Batch struct {
	Batcher  string             // the batcher's name
	Scope    string             // Config.Scope of all messages
	Key      string             // the batch key that all messages share
	Messages []*message.Message // at least one, in the order in which they joined
	Trigger  Trigger            // why it became due

	// Partition numbers the batches of a batcher that run at once, in all scopes: it
	// is at least 0, and not shared by two running batches of a batcher. It is below
	// Concurrency times the largest number of scopes that ran batches at once.
	// Handlers may keep state per Partition, such as a connection, without a lock.
	Partition int

	// Oldest is when the first message joined; time.Since(Oldest) is the age of
	// the oldest message of the batch.
	Oldest time.Time

	members []*item                 // the same as Messages, which the handler may change; nil in a batch built by a test
	logger  watermill.LoggerAdapter // nil in a batch built by a test

	mu       sync.Mutex                 // guards the following
	failed   map[*message.Message]error // the errors given to Fail; nil value: a member that has not failed. Created by the first Fail
	returned bool                       // the handler has returned: Fail has no effect
}

// Fail fails this one message with err; the other messages of the batch succeed if
// the handler returns nil. The first error given for a message counts. If the handler
// returns an error too, messages given to Fail keep their own.
//
// To call Fail for a message that is not in the batch, or after the handler has
// returned, is a bug in the handler: it is logged and has no effect. Fail may be
// called concurrently, as long as the handler waits for the calls.
func (b *Batch) Fail(msg *message.Message, err error) {
	if err == nil {
		err = errFailedWithoutError
	}
	b.mu.Lock()
	misuse := b.fail(msg, err)
	b.mu.Unlock()
	if misuse == nil || b.logger == nil {
		return
	}
	fields := watermill.LogFields{"batcher": b.Batcher, "batch_key": b.Key, "failed_with": err.Error()}
	if msg != nil {
		fields["message_uuid"] = msg.UUID
	}
	b.logger.Error("Batch.Fail has no effect", misuse, fields)
}

// fail records the error, or returns why the call is not valid. The caller holds mu.
func (b *Batch) fail(msg *message.Message, err error) error {
	if b.returned {
		return fmt.Errorf("batching: fail a message of batcher %q: the batch handler has returned", b.Batcher)
	}
	if b.failed == nil {
		b.failed = make(map[*message.Message]error, max(len(b.members), len(b.Messages)))
		for _, it := range b.members {
			b.failed[it.msg] = nil
		}
		if b.members == nil {
			for _, m := range b.Messages {
				b.failed[m] = nil
			}
		}
	}
	earlier, member := b.failed[msg]
	if !member {
		return fmt.Errorf("batching: fail a message of batcher %q: the message is not in this batch", b.Batcher)
	}
	if earlier == nil {
		b.failed[msg] = err
	}
	return nil
}

// Err returns the error that was given to Fail for msg, or nil.
func (b *Batch) Err(msg *message.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed[msg]
}

// seal makes later calls of Fail invalid, and returns the errors of the earlier ones;
// nil if there were none.
func (b *Batch) seal() map[*message.Message]error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.returned = true
	return b.failed
}
