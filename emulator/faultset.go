package emulator

import (
	"math/rand/v2"
	"sync"
)

// faultSet holds the faults that can still happen. They are tried in the order
// in which they were added; a request meets at most one. It is safe for
// concurrent use. The same seed and the same order of requests always give the
// same outcome.
type faultSet struct {
	mu     sync.Mutex // guards the following
	random *rand.Rand
	faults []*Fault
}

// newFaultSet returns an empty set whose random choices depend on seed alone.
func newFaultSet(seed uint64) *faultSet {
	return &faultSet{random: rand.New(rand.NewPCG(seed, seed))}
}

// add adds a fault.
func (s *faultSet) add(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Times == 0 {
		f.Times = 1
	}
	s.faults = append(s.faults, &f)
}

// clear removes all faults.
func (s *faultSet) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// pending returns copies of the faults that can still happen, with what is left
// of their counts.
func (s *faultSet) pending() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending := make([]Fault, len(s.faults))
	for i, f := range s.faults {
		pending[i] = *f
	}
	return pending
}

// draw returns the fault that a request of the operation op meets, if any.
func (s *faultSet) draw(op string) (f Fault, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if !f.matches(op) {
			continue
		}
		if f.After > 0 {
			f.After--
			continue
		}
		if f.Chance > 0 && s.random.Float64() >= f.Chance {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			}
		}
		return *f, true
	}
	return Fault{}, false
}
