package service

import (
	"strings"
	"time"
)

// Rules about a tunnel client, for the subscriber's Config and the router's file.
const (
	// MaxClientTag bounds a client's tag, in bytes.
	MaxClientTag = 128

	// Tick is how often the SDK's worker reports the state of its channels.
	Tick = 200 * time.Millisecond

	// HeartbeatTries is how many heartbeats there must be time for between the last
	// answered one and the loss of the client.
	HeartbeatTries = 3
)

// ValidClientTag reports whether a tag can go into ids, logs and consoles as it is: it is
// short enough, and has printable ASCII characters only.
func ValidClientTag(tag string) bool {
	return len(tag) <= MaxClientTag && strings.IndexFunc(tag, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// MinHeartbeatTimeout returns the shortest heartbeat timeout that goes with an interval:
// in whole seconds, with time for three heartbeats after the interval.
func MinHeartbeatTimeout(interval time.Duration) time.Duration {
	least := interval + max(interval/HeartbeatTries, HeartbeatTries*Tick)
	if whole := least.Truncate(time.Second); whole < least {
		return whole + time.Second
	}
	return least
}
