package subscriber

import (
	"math"
	"sync"
	"time"
)

// When the service does not say whether more records are there, a page counts as
// full above these bounds, as in the SDK [docs/protocol.md, Reads and pages].
const (
	fullPageRecords = 500
	fullPageBytes   = 900 << 10
)

const (
	// pollShare is how many reads the usual time between two changes is good for.
	// With the one that MinPollInterval after a change comes, a change costs at most 1+pollShare.
	pollShare = 4
	// gapMemory is how much of the usual time between changes is left after one more change.
	gapMemory = 0.75
)

// hasMore reports whether more records are behind the page, as far as is known.
func (p *page) hasMore() bool {
	if p.base && len(p.rows) > 0 {
		return true // a scan of base data has more until it says finished
	}
	if p.more != nil {
		return *p.more
	}
	return len(p.rows) > fullPageRecords || p.size > fullPageBytes
}

// poller decides how long a channel's reader pauses after a page.
//
//   - While there is more to read: not at all.
//   - After a page with records and no more behind them: MinPollInterval. A change
//     that follows another one, or that its handler made, is seen soon.
//   - After an empty page: a share of the usual time between two changes, or of the
//     time since the last one if that is longer, but within MinPollInterval and
//     MaxPollInterval. So a change costs few reads, however often changes come,
//     and a channel that falls silent is asked ever less often.
//
// The pauses after empty pages are stretched while the subscription's channels
// together would make more of these reads than they may (pollBudget).
type poller struct {
	budget            *pollBudget
	limit             int // empty reads a second, of all channels
	shortest, longest time.Duration

	since time.Time     // when records were last seen, or reading began
	gap   time.Duration // the usual time between two changes; 0 while none was seen
}

func newPoller(b *pollBudget, cfg *Config, now time.Time) *poller {
	return &poller{budget: b, limit: cfg.EmptyReadsPerSecond, shortest: cfg.MinPollInterval, longest: cfg.MaxPollInterval, since: now}
}

// after returns the pause after a page that was asked for with the given token, and
// whether there is more to read behind it.
func (p *poller) after(pg *page, token string, now time.Time) (pause time.Duration, more bool) {
	if n := len(pg.rows); n > 0 {
		p.saw(n, now)
	}
	switch more = pg.hasMore(); {
	case more && (len(pg.rows) > 0 || pg.next != token):
		p.rest()
		return 0, true
	case more: // but where it says, nothing is: at once would mean at full speed for as long as that lasts
		return p.budget.stretch(p, p.shortest), true
	case len(pg.rows) > 0:
		p.rest()
		return p.shortest, false
	}
	pause = max(p.gap, now.Sub(p.since)) / pollShare
	return p.budget.stretch(p, min(p.longest, max(p.shortest, pause))), false
}

// saw takes n changes into the usual time between two of them.
func (p *poller) saw(n int, now time.Time) {
	// A silence beyond this makes no difference to the pauses, but would be remembered for long.
	silence := min(now.Sub(p.since), pollShare*p.longest)
	p.since = now
	each := float64(silence) / float64(n)
	if p.gap == 0 {
		p.gap = time.Duration(each)
		return
	}
	p.gap = time.Duration(each + (float64(p.gap)-each)*math.Pow(gapMemory, float64(n)))
}

// rest says that the next read is expected to find something, or that there is none.
func (p *poller) rest() { p.budget.rest(p) }

// pollBudget keeps the empty reads of a subscription's channels within a number a
// second. Beyond it all channels get a common shortest pause, as long as it takes: those
// that are read often give way first, and no channel waits longer than it would
// if all were read equally often. The zero pollBudget is ready for use.
//
// Invariant: wanted is the sum of the reads in wantedIn of all pauses.
type pollBudget struct {
	mu     sync.Mutex
	pauses map[*poller]time.Duration // after an empty read, as the channel wants it
	wanted int64
}

// wantedIn makes reads whole numbers, which add up exactly.
const wantedIn = 1000 * time.Second

// rest takes a channel out.
func (b *pollBudget) rest(p *poller) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leave(p)
}

func (b *pollBudget) leave(p *poller) {
	if before, ok := b.pauses[p]; ok {
		b.wanted -= int64(wantedIn / before)
		delete(b.pauses, p)
	}
}

// stretch returns the pause that a channel makes that wants to make the given one.
func (b *pollBudget) stretch(p *poller, pause time.Duration) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leave(p)
	if b.pauses == nil {
		b.pauses = make(map[*poller]time.Duration)
	}
	b.pauses[p] = pause
	b.wanted += int64(wantedIn / pause)
	if b.wanted <= int64(p.limit)*int64(wantedIn/time.Second) {
		return pause
	}
	return max(pause, b.shortest(float64(p.limit)))
}

// shortest returns the pause that, if no channel makes a shorter one, brings all of them
// to that many reads a second. It begins with the one that would do if all
// channels wanted shorter ones, and gives to those that do what the others leave.
func (b *pollBudget) shortest(perSecond float64) time.Duration {
	least := time.Duration(math.MaxInt64)
	for {
		left, short := perSecond, 0
		for _, pause := range b.pauses {
			if pause > least {
				left -= float64(time.Second) / float64(pause)
			} else {
				short++
			}
		}
		if short == 0 { // cannot be: then all together want less than they may
			return least
		}
		next := time.Duration(float64(time.Second) * float64(short) / left)
		if next >= least {
			return least
		}
		least = next
	}
}
