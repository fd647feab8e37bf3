package tunnels

import (
	"maps"
	"sync"
)

// journal saves the service's state: changes are added while the changed thing
// is locked, so they are in order, and saved after it is unlocked. Callers that
// flush at the same time share one write.
//
// Invariants:
//   - pending holds the newest value of every key whose newest value is not
//     saved and not being written;
//   - at most one write runs, so an older value never overwrites a newer one;
//   - changes added together are written together.
type journal struct {
	src Source

	mu      sync.Mutex        // guards the following
	pending map[string][]byte // a nil value deletes the key
	added   int               // calls of add
	saved   int               // those whose changes are saved
	running chan struct{}     // closed when the write that runs has ended; nil: none runs
}

// add takes the changes over: the map is the journal's from here on. It does not block.
func (j *journal) add(changes map[string][]byte) {
	if len(changes) == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.added++
	if j.pending == nil {
		j.pending = changes
		return
	}
	maps.Copy(j.pending, changes)
}

// flush returns once everything that was added before it was called is saved.
// After an error the changes stay pending, and the next flush tries again.
func (j *journal) flush() error {
	j.mu.Lock()
	for want := j.added; j.saved < want; {
		if running := j.running; running != nil {
			j.mu.Unlock()
			<-running // ends with the Source's call
			j.mu.Lock()
			continue
		}
		changes, upTo, done := j.pending, j.added, make(chan struct{})
		j.pending, j.running = nil, done
		j.mu.Unlock()
		err := j.write(changes)
		j.mu.Lock()
		j.running = nil
		close(done)
		if err != nil {
			maps.Copy(changes, j.pending) // what came meanwhile is newer
			j.pending = changes
			j.mu.Unlock()
			return err
		}
		j.saved = upTo
	}
	j.mu.Unlock()
	return nil
}

// write saves first and deletes second: killed in between, a deleted tunnel is
// still whole, and its deletion was not answered yet.
func (j *journal) write(changes map[string][]byte) error {
	save := make(map[string][]byte, len(changes))
	var remove []string
	for key, value := range changes {
		if value == nil {
			remove = append(remove, key)
		} else {
			save[key] = value
		}
	}
	if len(save) > 0 {
		if err := j.src.SaveState(save); err != nil {
			return err
		}
	}
	if len(remove) > 0 {
		return j.src.DeleteState(remove...)
	}
	return nil
}
