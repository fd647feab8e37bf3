package subscriber

import (
	"errors"
	"fmt"
	"sync"
)

// unsettled are the messages that the end of a subscription left behind. They are
// redelivered to the tunnel's next consumer; the error of Close tells of them. Safe for concurrent use.
type unsettled struct {
	mu          sync.Mutex
	held        int   // messages without an outcome, that a drain gave up
	uncommitted int   // acked messages whose checkpoint is not stored
	cause       error // why, of one of the channels
}

func (u *unsettled) addHeld(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held += n
}

func (u *unsettled) addUncommitted(n int, cause error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.uncommitted += n
	if u.cause == nil {
		u.cause = cause
	}
}

// add adds those of another subscription.
func (u *unsettled) add(o *unsettled) {
	held, uncommitted, cause := o.all()
	u.addHeld(held)
	u.addUncommitted(uncommitted, cause)
}

func (u *unsettled) all() (held, uncommitted int, cause error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.held, u.uncommitted, u.cause
}

// err returns the error of a topic that left messages behind, nil if there are none.
func (u *unsettled) err(topic string) error {
	held, uncommitted, cause := u.all()
	var errs []error
	if held > 0 {
		errs = append(errs, fmt.Errorf("%s: %d %w", topic, held, ErrDrainTimeout))
	}
	if uncommitted > 0 {
		errs = append(errs, fmt.Errorf("%s: %d %w: %w", topic, uncommitted, ErrNotCommitted, cause))
	}
	return errors.Join(errs...)
}
