// Package probe says how an outage is probed, for the parts of a pipeline that
// hold messages back while nothing succeeds.
package probe

import "time"

const (
	// FirstPause is the pause before the first probe of an outage.
	FirstPause = 100 * time.Millisecond

	// LastPause is the longest pause between two probes.
	LastPause = time.Second

	// LogEvery is the pause between two log lines about an outage that goes on.
	LogEvery = time.Minute

	// IdleAfter is how long an outage is believed in while there is nothing to
	// probe it with. Messages that failed are redelivered within their backoff,
	// 30 s by default; if none comes, what failed may have been given up.
	IdleAfter = time.Minute
)

// Next returns the pause after one that was followed by a failed probe.
func Next(pause time.Duration) time.Duration { return min(2*pause, LastPause) }
