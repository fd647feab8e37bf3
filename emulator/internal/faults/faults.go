// Package faults decides which requests go wrong, and how.
package faults

import (
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// Break is a place at which a connection is reset.
type Break int

const (
	NoBreak       Break = iota
	BeforeRequest       // the request is not handled
	BeforeAnswer        // the request is handled, no byte of the answer is sent
	MidAnswer           // the request is handled, half of the answer's body is sent
)

// Fault is what happens to matching requests. See emulator.Fault.
type Fault struct {
	Operation string
	After     int
	Times     int
	Chance    float64

	Delay     time.Duration
	Hang      bool
	Code      string
	Status    int
	Message   string
	Break     Break
	Corrupt   bool
	Trickle   time.Duration
	Duplicate bool
}

// HTTPStatus returns the status that goes with Code.
func (f *Fault) HTTPStatus() int {
	if f.Status != 0 {
		return f.Status
	}
	return wire.StatusOf(f.Code)
}

func (f *Fault) matches(op string) bool {
	if prefix, ok := strings.CutSuffix(f.Operation, "*"); ok {
		return strings.HasPrefix(op, prefix)
	}
	return f.Operation == "" || f.Operation == op
}

// Set holds the faults that are waiting for requests. Faults are drawn in the
// order in which they were added; a request meets at most one. It is safe for
// concurrent use; with one seed and one order of requests the outcome is the
// same every time.
type Set struct {
	mu     sync.Mutex // guards the following
	random *rand.Rand
	faults []*Fault
}

// NewSet returns an empty set whose chances depend on seed alone.
func NewSet(seed uint64) *Set {
	return &Set{random: rand.New(rand.NewPCG(seed, seed))}
}

// Add adds a fault.
func (s *Set) Add(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Times == 0 {
		f.Times = 1
	}
	s.faults = append(s.faults, &f)
}

// Clear removes all faults.
func (s *Set) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Pending returns copies of the faults that can still happen, with what is
// left of their counts.
func (s *Set) Pending() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	pending := make([]Fault, len(s.faults))
	for i, f := range s.faults {
		pending[i] = *f
	}
	return pending
}

// Draw returns the fault that a request of op meets, if any.
func (s *Set) Draw(op string) (f Fault, ok bool) {
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
