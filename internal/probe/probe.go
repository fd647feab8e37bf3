// Package probe has the pauses with which an outage is probed, for the parts of a
// pipeline that hold messages back during an outage.
package probe

import "time"

const (
	// FirstPause is the pause before the first probe of an outage.
	FirstPause = 100 * time.Millisecond

	// LastPause is the longest pause between two probes.
	LastPause = time.Second

	// LogEvery is the pause between two log lines about an outage that continues.
	LogEvery = time.Minute

	// IdleAfter is how long an outage is kept while there is no message to probe it
	// with. Failed messages are redelivered within their backoff, 30 s by default;
	// if none arrives, the failed messages may have been given up.
	IdleAfter = time.Minute
)

// Next returns the pause before the next probe, given the one before a failed probe.
func Next(pause time.Duration) time.Duration { return min(2*pause, LastPause) }
