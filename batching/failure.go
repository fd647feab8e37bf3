package batching

import (
	"fmt"
	"time"
)

// Failure is the error of a message that a batch handler failed, alone or with
// others. It shows a failure policy whether this message is at fault. Match it with
// errors.As; it wraps the handler's error.
type Failure struct {
	Batcher string
	Key     string // batch key
	Err     error  // the handler's error, an *ack.PanicError, or the error given to Batch.Fail

	// Messages is how many messages the failed call had.
	Messages int

	// Alone is true if the message failed by itself: the call had no other message,
	// or the handler called Batch.Fail for this one.
	Alone bool

	// Interrupted is true if the handler did not fail the message: it was not
	// completely handled, because Close was called, the batcher is down while the
	// subscriber drains, or all messages of the batch had ended.
	Interrupted bool

	// Before and After are how many messages of the batcher had succeeded since
	// New when the batch started and when it ended. If they differ, other messages
	// succeeded in that time.
	Before, After uint64

	logged bool
}

// Error implements error.
func (f *Failure) Error() string {
	if f.Key == "" {
		return fmt.Sprintf("batching: batcher %q: %v", f.Batcher, f.Err)
	}
	return fmt.Sprintf("batching: batcher %q, batch key %q: %v", f.Batcher, f.Key, f.Err)
}

// Unwrap returns Err.
func (f *Failure) Unwrap() error { return f.Err }

// Logged reports whether the failure has been logged already, in the line of its
// batch, so that a subscriber need not log it again for each message.
func (f *Failure) Logged() bool { return f.logged }

// Outage is a period in which all calls of a batch handler fail.
type Outage struct {
	Since  time.Time // when it was detected
	Err    error     // the latest failure
	Probes int       // messages that were tried since then, one at a time
}

// Error describes the outage.
func (o *Outage) Error() string {
	return fmt.Sprintf("nothing has succeeded since %s (%d probes): %v", o.Since.UTC().Format(time.RFC3339), o.Probes, o.Err)
}

// Unwrap returns the latest failure.
func (o *Outage) Unwrap() error { return o.Err }
