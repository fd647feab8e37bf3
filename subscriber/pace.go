package subscriber

import (
	"sync/atomic"
	"time"
)

// pace decides whether the leader calls handlers itself or gives each a goroutine: a call is
// the cheapest, but holds up the channel when the handler is slow. Handlers count as slow, and get
// goroutines, until enough in a row have been quick.
//
// A busy processor makes quick handlers look slow now and then. So when the leader has made
// many quick calls, one slow call is forgiven; when slow ones follow each other, handlers
// get goroutines again and the number of quick ones in a row that is asked for doubles.
//
// Any goroutine may call took; the other methods belong to the goroutine that leads, and
// stuck to the one that takes the lead over from it.
type pace struct {
	quick atomic.Int64 // handlers in a row that were quick
	asked atomic.Int64 // how many in a row make the leader call handlers itself
	calls atomic.Int64 // that the leader has made itself since
	slow  int          // slow calls by the leader, each worth slowWeight quick ones
}

const (
	// quickHandler is the longest that a handler of the quick kind takes.
	quickHandler = 20 * time.Microsecond
	// slowHandler is how long a call by the leader may take without a doubt about
	// its kind, and one in slowWeight calls may take longer: it may have been
	// interrupted by the garbage collector.
	slowHandler = 10 * quickHandler
	slowWeight  = 32

	// quickInARow is how many quick ones make the leader call them itself. It is
	// doubled, up to mostInARow, each time that this was of use for fewer than
	// steadyCalls calls.
	quickInARow = 64
	mostInARow  = 1 << 12
	steadyCalls = 1 << 10
)

func newPace() *pace {
	p := new(pace)
	p.asked.Store(quickInARow)
	return p
}

// inline reports whether the leader is to call the next handler itself.
func (p *pace) inline() bool { return p.quick.Load() >= p.asked.Load() }

// took notes how long a handler took in a goroutine of its own.
func (p *pace) took(d time.Duration) {
	if d > quickHandler {
		p.quick.Store(0)
	} else {
		p.quick.Store(p.quick.Load() + 1) // a lost update is made up for by the next
	}
}

// called notes how long a handler took that the leader called itself.
func (p *pace) called(d time.Duration) {
	p.calls.Add(1)
	if d <= slowHandler {
		p.slow = max(0, p.slow-1)
	} else if p.slow += slowWeight; p.slow > slowWeight {
		p.slow = 0
		p.stuck()
	}
}

// stuck is called when a handler that the leader called took long. After many quick calls it is
// forgiven: the processor may have been busy elsewhere. Otherwise handlers get goroutines of their own.
func (p *pace) stuck() {
	if p.calls.Swap(0) >= steadyCalls {
		p.asked.Store(quickInARow)
		return
	}
	p.asked.Store(min(2*p.asked.Load(), mostInARow))
	p.quick.Store(0)
}
