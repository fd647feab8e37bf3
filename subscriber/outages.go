package subscriber

import (
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
)

// logInterval is the least time between two lines at Error about the same trouble.
const logInterval = time.Minute

// outages decides which failed calls of a subscription are logged at Error. When a
// whole instance is away every channel's calls fail again and again; a line for each
// would bury what else is logged. So calls that fail alike, with one operation and
// code, are one outage: a line when it begins, one in logInterval while it lasts, and
// one at its end. It ends when everyone (a channel or a tunnel client) whose last
// call failed so has succeeded. Each single failure is in the log at Debug.
//
// Nothing is logged under mu: the methods return what to say.
//
// Invariants:
//   - by has at most maxFailedCalls entries, and one more for each operation's otherCode.
//   - There are at most two lines above Debug about one entry in logInterval: one at
//     Error, and the end of what it told of.
type outages struct {
	mu sync.Mutex
	by map[failedCall]*outage
}

type outage struct {
	since    time.Time // when it began; zero: it is over
	last     time.Time // failure
	said     time.Time // when a line at Error was due last; it stays when the outage is over
	told     bool      // there was such a line since it began
	failures int       // since it began
	failing  map[string]struct{}
}

// outageLine is what is said of an outage.
type outageLine struct {
	call     failedCall
	failures int
	failing  int // channels or clients
	lasted   time.Duration
}

func (l outageLine) fields() watermill.LogFields {
	f := watermill.LogFields{"operation": l.call.op, "code": l.call.code, "failures": l.failures, "lasted": l.lasted.Round(time.Millisecond).String()}
	if l.failing > 0 {
		f["failing"] = l.failing
	}
	return f
}

// failed notes a failed call of a caller. It reports whether that begins an outage that is to be
// logged; otherwise it may return a line that says that the outage continues.
func (o *outages) failed(call failedCall, caller string, now time.Time) (begins bool, continues *outageLine) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.by[call]; !known && len(o.by) >= maxFailedCalls {
		call.code = otherCode
	}
	out := o.by[call]
	if out == nil {
		if o.by == nil {
			o.by = make(map[failedCall]*outage)
		}
		out = &outage{failing: make(map[string]struct{})}
		o.by[call] = out
	}
	// All failing callers may have ended, and then none of them succeeds.
	forgotten := len(out.failing) == 0 && now.Sub(out.last) > logInterval
	if out.since.IsZero() || forgotten {
		out.since, out.told, out.failures = now, false, 0
	}
	out.failures++
	out.last = now
	out.failing[caller] = struct{}{}
	if !out.said.IsZero() && now.Sub(out.said) < logInterval {
		return false, nil
	}
	out.said, out.told = now, true
	if out.failures == 1 {
		return true, nil
	}
	return false, &outageLine{call: call, failures: out.failures, failing: len(out.failing), lasted: now.Sub(out.since)}
}

// succeeded notes that the caller's calls of the operations succeed, and returns the
// outages that this ends, if they were logged.
func (o *outages) succeeded(caller string, now time.Time, ops ...string) (ended []outageLine) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for call, out := range o.by {
		if out.since.IsZero() || !slices.Contains(ops, call.op) {
			continue
		}
		delete(out.failing, caller)
		if len(out.failing) > 0 {
			continue
		}
		if out.told {
			ended = append(ended, outageLine{call: call, failures: out.failures, lasted: now.Sub(out.since)})
		}
		out.since = time.Time{}
	}
	return ended
}

// gone notes that the caller makes no calls any more. That ends no outage: the next
// success of another caller does.
func (o *outages) gone(caller string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, out := range o.by {
		delete(out.failing, caller)
	}
}
