package router

import (
	"fmt"
	"sync"
)

// TooManyLettersError ends a pipeline whose failure.stop_after was exceeded. Run
// returns it, joined with other errors, when all is drained.
type TooManyLettersError struct {
	Pipeline string
	Letters  int // dead letters
	Of       int // messages that were counted
}

// Error implements error.
func (e *TooManyLettersError) Error() string {
	return fmt.Sprintf("tunnels.%s: stopped: %d of the last %d messages became dead letters, more than failure.stop_after allows; "+
		"repair what makes them fail, then start again and replay them", e.Pipeline, e.Letters, e.Of)
}

// brake stops a pipeline when more than limit of the last messages became dead
// letters. A nil brake never does.
type brake struct {
	pipeline string
	limit    int
	stop     func(error)

	mu      sync.Mutex // guards what follows
	last    []bool     // a ring: whether each of the last messages became a letter
	next    int
	seen    int // at most len(last)
	letters int // in last
	tripped bool
}

func newBrake(pipeline string, s *StopAfter, stop func(error)) *brake {
	if s == nil || stop == nil {
		return nil
	}
	return &brake{pipeline: pipeline, limit: s.Letters, stop: stop, last: make([]bool, s.Of)}
}

// note counts a message that succeeded or became a letter.
func (b *brake) note(letter bool) {
	if b == nil {
		return
	}
	if err := b.count(letter); err != nil {
		b.stop(err)
	}
}

// count returns an error when the brake trips, once.
func (b *brake) count(letter bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last[b.next] {
		b.letters--
	}
	b.last[b.next] = letter
	if letter {
		b.letters++
	}
	b.next = (b.next + 1) % len(b.last)
	b.seen = min(b.seen+1, len(b.last))
	if b.tripped || b.letters <= b.limit {
		return nil
	}
	b.tripped = true
	return &TooManyLettersError{Pipeline: b.pipeline, Letters: b.letters, Of: b.seen}
}

// holds reports whether the pipeline is being stopped: no more messages become letters.
func (b *brake) holds() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tripped
}
