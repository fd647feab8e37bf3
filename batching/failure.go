package batching

import (
	"fmt"
	"time"
)

// Failure is the error of a message that a batch handler failed, alone or with
// others. It tells a failure policy whose fault that may be. Match it with
// errors.As; it wraps the handler's error.
type Failure struct {
	Batcher string
	Key     string // batch key
	Err     error  // the handler's error, an *ack.PanicError, or the error given to Batch.Fail

	// Messages is how many messages the failed call had.
	Messages int

	// Alone says that the failure is the message's own: the call had no other
	// message, or the handler named this one with Batch.Fail.
	Alone bool

	// Interrupted says that the handler did not fail the message: it was not
	// handled to its end, because Close was called, the batcher is down while the
	// subscriber drains, or no message of the batch was waited for any more.
	Interrupted bool

	// Before and After are how many messages of the batcher had succeeded since
	// New when the batch began and when it ended. If they differ, other messages
	// succeeded meanwhile.
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

// Logged reports whether the failure is in the log already, in the line of its
// batch, so that a subscriber need not log it once more for each message.
func (f *Failure) Logged() bool { return f.logged }

// Outage is a time in which nothing succeeds that a batch handler is given.
type Outage struct {
	Since  time.Time // when it was noticed
	Err    error     // the latest failure
	Probes int       // messages that were tried since, one at a time
}

// Error describes the outage.
func (o *Outage) Error() string {
	return fmt.Sprintf("nothing has succeeded since %s (%d probes): %v", o.Since.UTC().Format(time.RFC3339), o.Probes, o.Err)
}

// Unwrap returns the latest failure.
func (o *Outage) Unwrap() error { return o.Err }
