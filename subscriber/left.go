package subscriber

import (
	"cmp"
	"time"
)

// leftChannel is what is kept of a channel when its run ends, for the run that opens
// it again and for Status in between. Times are in nanoseconds since 1970, 0: none.
type leftChannel struct {
	at       time.Time // when the run ended; zero: there was none
	base     bool
	position int64 // up to where all changes are acked, as far as is known
	since    int64 // when the first of the runs that had no position was opened

	failingSince int64        // when the first read without a success since was made
	failing      *failedState // nil: the channel could be read
}

// from is the time from which the lag of the channel counts.
func (l leftChannel) from() time.Time { return sinceEpoch(cmp.Or(l.position, l.since)) }
