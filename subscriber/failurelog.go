package subscriber

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
)

const (
	// fullFailures is how many failures of records are logged one by one in logInterval.
	fullFailures = 10
	// namedFailures bounds the records that a line about many failures names.
	namedFailures = 5
	// calmAfter is how long nothing must have failed for one success to end the
	// trouble. So many successes in a row as lines in full do so at once.
	calmAfter = 5 * time.Second
)

// failureLog decides which failures of a subscription's records are logged at Error.
// A few in logInterval are logged one by one, with key, attempt and error: a poisoned
// record is one of these. When there are more, as in an outage of the sink, it is
// limited: one line in logInterval with a count and the first keys, and a line when
// things succeed again. Each single failure is in the log at Debug.
//
// Nothing is logged under mu: the methods return what to say.
//
// Invariant: in logInterval there are at most fullFailures lines in full, one with a
// count, and two that things succeed again.
type failureLog struct {
	limited atomic.Bool // written under mu; a success looks at it only, while all is well

	mu     sync.Mutex
	window time.Time // since when full counts
	full   int       // lines in full
	told   bool      // there was a line at Error since things succeeded last

	// While limited:
	since    time.Time // the first failure
	last     time.Time // failure
	due      time.Time // the next line with a count
	failures int       // since since
	unsaid   int       // failures since the last line
	named    []namedFailure
	inARow   int // successes since the last failure
}

// namedFailure is the last failure of a record.
type namedFailure struct {
	key     string
	attempt int
}

// failureLine is what is said of many failures.
type failureLine struct {
	failures int // since the last line, or for the last line of all: since they began
	named    []namedFailure
	lasted   time.Duration
}

func (l *failureLine) fields() watermill.LogFields {
	f := watermill.LogFields{"failures": l.failures, "lasted": l.lasted.Round(time.Millisecond).String()}
	if len(l.named) > 0 {
		first := make([]string, len(l.named))
		for i, n := range l.named {
			first[i] = fmt.Sprintf("%s attempt %d", n.key, n.attempt)
		}
		f["first_keys"] = first
	}
	return f
}

// failed notes the failure of a record. It reports whether it is logged in full;
// else it may return a line about many.
func (l *failureLog) failed(key string, attempt int, now time.Time) (full bool, many *failureLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last, l.inARow = now, 0
	if !l.limited.Load() {
		if now.Sub(l.window) >= logInterval {
			l.window, l.full = now, 0
		}
		if l.full < fullFailures {
			l.full++
			l.told = true
			return true, nil
		}
		l.limited.Store(true)
		l.since, l.due, l.failures = l.window, l.window.Add(logInterval), 0
		if l.told {
			l.failures = l.full
		} else { // things have succeeded in between
			l.since = now
		}
	}
	l.failures++
	l.unsaid++
	l.name(key, attempt)
	if now.Before(l.due) {
		return false, nil
	}
	many = l.line(now)
	l.told = true
	l.due = now.Add(logInterval)
	if many.failures <= fullFailures { // so few can be logged one by one
		l.limited.Store(false)
		l.window, l.full = now, 0
	}
	return false, many
}

// name needs mu. It keeps the first records that failed, each with its last attempt.
func (l *failureLog) name(key string, attempt int) {
	for i := range l.named {
		if l.named[i].key == key {
			l.named[i].attempt = attempt
			return
		}
	}
	if len(l.named) < namedFailures {
		l.named = append(l.named, namedFailure{key, attempt})
	}
}

// line needs mu. It says what was not said yet.
func (l *failureLog) line(now time.Time) *failureLine {
	many := &failureLine{failures: l.unsaid, named: l.named, lasted: now.Sub(l.since)}
	l.unsaid, l.named = 0, nil
	return many
}

// succeeded notes that n records succeeded while the log is limited. It returns the
// line that ends the trouble, or nil.
func (l *failureLog) succeeded(n int, now time.Time) (again *failureLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.limited.Load() {
		return nil
	}
	l.inARow += n
	if l.inARow < fullFailures && now.Sub(l.last) < calmAfter {
		return nil
	}
	if !l.told && now.Before(l.due) { // some fail and some succeed, in turn
		return nil
	}
	l.limited.Store(false)
	l.told, l.unsaid, l.named = false, 0, nil
	return &failureLine{failures: l.failures, lasted: l.last.Sub(l.since)}
}

// rest returns what was not said when the subscription ends, or nil.
func (l *failureLog) rest(now time.Time) *failureLine {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.unsaid == 0 {
		return nil
	}
	return l.line(now)
}
