package subscriber

import (
	"fmt"
	"time"

	"github.com/watermill-ots/watermill-ots/ots"
)

// GapError says that changes of a table are lost: the service has deleted a part of the
// stream's log that a channel had yet to read. It ends the subscription, since to continue
// would hide the loss, unless OnGapRecreate heals it. errors.Is finds ots.ErrGap in it.
type GapError struct {
	Table, Tunnel, Channel string

	// Position is up to when all changes of the channel are handled, by the service's
	// clock; what came after it may be lost. Zero: not known.
	Position time.Time

	Err error // the service's answer

	recreates bool // OnGapRecreate does what Error would advise
}

// Error says what is lost and what to do.
func (e *GapError) Error() string {
	since := ""
	if !e.Position.IsZero() {
		since = " after " + e.Position.UTC().Format(time.RFC3339)
	}
	advice := ". Delete the tunnel and create it as BaseAndStream, which reads the whole table again, or let OnGapRecreate (on_gap: recreate) do that"
	if e.recreates {
		advice = ""
	}
	return fmt.Sprintf("%s/%s channel %s: %v%s, because the stream does not keep them any more%s: %v",
		e.Table, e.Tunnel, e.Channel, ots.ErrGap, since, advice, e.Err)
}

// Unwrap returns ots.ErrGap and the service's answer.
func (e *GapError) Unwrap() []error { return []error{ots.ErrGap, e.Err} }
