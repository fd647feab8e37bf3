package subscriber

import "time"

// patience decides how long an answer is waited for: several times as long as answers
// took lately. A connection whose other end vanished without closing it (a firewall
// that forgot it, a machine that is gone) is noticed so within seconds, and not after
// the longest time that any answer may take. It is not safe for concurrent use.
type patience struct {
	usual  time.Duration // a maximum of what answers took that falls slowly
	misses int           // in a row
}

const (
	// leastPatience is what an answer may take in any case.
	leastPatience = 3 * time.Second
	// patienceFactor is how many times as long as usual an answer may take. Each miss
	// doubles that: the service may have become slow.
	patienceFactor = 8
	// usualFalls is the share by which usual falls with each answer.
	usualFalls = 16
	mostMisses = 8 // beyond that doubling reaches every bound
)

// timeout returns how long to wait for the next answer, at most longest.
func (p *patience) timeout(longest time.Duration) time.Duration {
	return min(longest, max(leastPatience, patienceFactor*p.usual)<<p.misses)
}

// note takes in what a call took that was given the timeout.
func (p *patience) note(took, timeout time.Duration) {
	if took >= timeout {
		p.misses = min(p.misses+1, mostMisses)
		return
	}
	p.misses = 0
	p.usual = max(took, p.usual-p.usual/usualFalls)
}
