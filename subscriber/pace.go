package subscriber

import (
	"sync/atomic"
	"time"
)

// pace decides whether the leader calls handlers itself or gives each a goroutine: a call is
// the cheapest, but holds up the channel when the handler is slow. So the leader calls
// handlers until it is held up, because one takes long or most are not quick. Then the next
// handlers get goroutines, and after that the leader tries again, unless many of those have
// not returned. Handlers that always hold it up do so once in mostAside messages.
//
// The leader's own calls decide that, not the time that handlers take in goroutines: those
// wait for each other's locks and for a processor, and look slow when there are many of them.
//
// Any goroutine may call returned; the other methods belong to the goroutine that leads, and
// stuck to the one that takes the lead over from it.
type pace struct {
	aside   int64        // the next handlers that get goroutines
	running atomic.Int64 // handlers in goroutines that have not returned
	calls   int64        // that the leader has made since it was held up
	wait    int64        // what aside was set to last
	late    int          // calls that were not quick, times quickPerLate, less the quick ones since
	slow    int          // slow calls, times quickPerSlow, less the others since
}

const (
	// quickHandler is the longest that a handler of the quick kind takes. The leader calls
	// handlers itself only while fewer than one in quickPerLate takes longer.
	quickHandler = 20 * time.Microsecond
	quickPerLate = 16
	// mostLate bounds pace.late: above it handlers get goroutines.
	mostLate = 16 * quickPerLate
	// slowHandler is how long a call may take without holding the leader up. One in
	// quickPerSlow calls may take longer: it may have been interrupted by the garbage
	// collector.
	slowHandler  = 10 * quickHandler
	quickPerSlow = 32

	// A leader that was held up after steadyCalls or more calls continues: the processor may
	// have been busy elsewhere. Otherwise the next leastAside handlers get goroutines, and
	// twice as many each time that it was held up after fewer than soonCalls calls, up to
	// mostAside.
	steadyCalls = 1 << 10
	soonCalls   = 1 << 6
	leastAside  = 1 << 6
	mostAside   = 1 << 12
	// mostRunning is how many handlers may be running in goroutines when the leader tries again.
	mostRunning = 16
)

// newPace begins with goroutines: if handlers hang from the start, none holds up the others.
func newPace() *pace { return &pace{aside: leastAside} }

// inline reports whether the leader is to call the next handler itself. Otherwise it gets a
// goroutine, and returned must be called when it has returned.
func (p *pace) inline() bool {
	if p.aside <= 0 && p.running.Load() <= mostRunning {
		return true
	}
	p.aside--
	p.running.Add(1)
	return false
}

// returned notes that a handler has returned that got a goroutine, or has deferred its message.
func (p *pace) returned() { p.running.Add(-1) }

// called notes how long a handler took that the leader called itself.
func (p *pace) called(d time.Duration) {
	p.calls++
	if d <= quickHandler {
		p.late, p.slow = max(0, p.late-1), max(0, p.slow-1)
		return
	}
	p.late += quickPerLate
	if d > slowHandler {
		p.slow += quickPerSlow
	} else {
		p.slow = max(0, p.slow-1)
	}
	if p.slow > quickPerSlow || p.late > mostLate {
		p.late, p.slow = 0, 0
		p.stuck()
	}
}

// stuck is called when the leader is held up.
func (p *pace) stuck() {
	n := p.calls
	p.calls = 0
	if n < soonCalls {
		p.wait = min(max(2*p.wait, leastAside), mostAside)
	} else {
		p.wait = leastAside
	}
	if n < steadyCalls {
		p.aside = p.wait
	}
}
