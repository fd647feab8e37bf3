package batching

import (
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// Trigger says why a batch was handled when it was. When several causes come
// together, the first one counts.
type Trigger string

const (
	TriggerSize    Trigger = "size"    // it had Size messages
	TriggerBytes   Trigger = "bytes"   // it had MaxBytes, or the next message would have taken it over
	TriggerTimeout Trigger = "timeout" // Timeout was over since its first message
	TriggerIdle    Trigger = "idle"    // Idle was over since its newest message
	TriggerFlush   Trigger = "flush"   // a message asked for it (Flush)
	TriggerOrder   Trigger = "order"   // a later message of one of its ordering keys, which goes elsewhere, has waited for it long enough
	TriggerDrain   Trigger = "drain"   // the subscriber drains or cannot deliver more, or a waiting message's context ended
	TriggerClose   Trigger = "close"   // Close was called
	TriggerProbe   Trigger = "probe"   // its message finds out whether an outage is over (Batcher.Probe)
)

// Batch is what a batcher's handler gets. It and its Messages belong to the
// handler until it returns; the slice may be kept and changed, the messages may
// not be used after that, as with any Watermill handler.
//
// A Batch made by hand, with Messages filled in, works too: Fail and Err allow
// to test a handler without a middleware.
type Batch struct {
	Batcher  string             // the batcher's name
	Key      string             // the batch key that all messages share
	Messages []*message.Message // at least one, in the order in which they joined
	Trigger  Trigger            // why it is handled at this moment

	// Partition numbers the batches of a batcher that run at once: it is at
	// least 0, below Concurrency, and not shared by two running batches of a batcher.
	// Handlers may keep something per Partition, such as a connection, without
	// a lock.
	Partition int

	// Oldest is when the first message joined; time.Since(Oldest) is the age of
	// the oldest message of the batch.
	Oldest time.Time

	members []*item                 // the same as Messages, safe from what the handler does to that slice; nil in a batch made by hand
	logger  watermill.LoggerAdapter // nil in a batch made by hand

	mu       sync.Mutex                 // guards what follows
	failed   map[*message.Message]error // what Fail was told; nil value: a member that has not failed. Made by the first Fail
	returned bool                       // the handler has returned: Fail changes nothing any more
}

// Fail says that this one message failed with err; the other messages of the
// batch succeed if the handler returns nil. The first error given for a message counts.
// If the handler returns an error too, messages given to Fail keep their own.
//
// Fail for a message that is not in the batch, or after the handler has
// returned, is an error in the handler: it is logged and changes nothing. It
// may be called by many goroutines at once, as long as the handler waits for
// them.
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

// fail needs mu. It returns why the call is not valid, or nil.
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

// Err returns the error that Fail was given for msg, nil if there was none.
func (b *Batch) Err(msg *message.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed[msg]
}

// seal ends the time in which Fail counts, and returns what it was told; nil
// when it was told nothing.
func (b *Batch) seal() map[*message.Message]error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.returned = true
	return b.failed
}
