package tunnels

import (
	"errors"
	"maps"
	"sync"
)

// journal saves the service's state. Changes are added while the changed object
// is locked, so they are in order, and saved after it is unlocked. Callers that
// flush at the same time share one write.
//
// Invariants:
//   - pending holds the newest value of every key, unless that value is saved
//     or being written;
//   - at most one write runs, so an older value never overwrites a newer one;
//   - changes added together are written together;
//   - when a write fails, restore runs before the next write begins.
type journal struct {
	src     Source
	restore func(cause error) error // restores the service to what is saved and calls discard

	mu      sync.Mutex        // guards the following
	pending map[string][]byte // a nil value deletes the key
	added   int               // calls of add
	saved   int               // those of them whose changes are saved or lost
	running chan struct{}     // closed when the running write has ended; nil: none runs
	losses  int               // how often changes were lost
	cause   error             // of the last loss
}

// lost returns how often changes have been lost.
func (j *journal) lost() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.losses
}

// discard drops what is not saved. The caller ensures that nothing more is
// added.
func (j *journal) discard(cause error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pending, j.saved = nil, j.added
	j.losses++
	j.cause = cause
}

// add adds changes and takes ownership of the map. It does not block.
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

// flush returns once everything that was added before the call is saved. An
// error says that some of it was not, and is lost.
func (j *journal) flush() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	before := j.losses
	for want := j.added; j.saved < want; {
		if running := j.running; running != nil {
			j.mu.Unlock()
			<-running // ends when the Source's call returns
			j.mu.Lock()
			continue
		}
		changes, upTo, done := j.pending, j.added, make(chan struct{})
		j.pending, j.running = nil, done
		j.mu.Unlock()
		err := j.write(changes)
		if err != nil {
			if lost := j.restore(err); lost != nil {
				err = errors.Join(err, lost)
			}
		}
		j.mu.Lock()
		j.running = nil
		close(done)
		if err != nil {
			if j.losses == before { // restore failed: the changes stay
				maps.Copy(changes, j.pending) // what was added meanwhile is newer
				j.pending = changes
			}
			return err
		}
		j.saved = upTo
	}
	if j.losses != before {
		return j.cause
	}
	return nil
}

// write saves first and deletes second: if the process is killed in between, a
// deleted tunnel is still complete, and its deletion was not answered yet.
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
