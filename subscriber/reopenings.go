package subscriber

import (
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// reopenings are the channels of one session that the service lists as ours and whose
// calls it refuses. Each rests before it is opened again, longer each time: else it
// would be opened and given back at the speed of the ticks. Safe for concurrent use.
type reopenings struct {
	newPauses func() backoff.BackOff // Config.ReconnectBackoff

	mu      sync.Mutex
	failing map[string]*reopening // by channel
}

// reopening is one of these channels.
type reopening struct {
	pauses    backoff.BackOff
	op        string    // the call that failed last
	notBefore time.Time // when the channel may be opened again
}

func newReopenings(newPauses func() backoff.BackOff) *reopenings {
	return &reopenings{newPauses: newPauses, failing: make(map[string]*reopening)}
}

// refused notes that the service refused a call of a channel, and returns how long the channel
// is to rest. The BackOff and what made it are the user's, so they are not called under
// mu. That is safe: a channel has one run at a time.
func (r *reopenings) refused(channelID, op string) (pause time.Duration) {
	r.mu.Lock()
	f := r.failing[channelID]
	r.mu.Unlock()
	if f == nil {
		f = &reopening{pauses: r.newPauses()}
	}
	pause = nextPause(f.pauses)
	r.mu.Lock()
	defer r.mu.Unlock()
	f.op, f.notBefore = op, time.Now().Add(pause)
	r.failing[channelID] = f
	return pause
}

// rest returns how long a channel has to wait before the first call of its next run.
func (r *reopenings) rest(channelID string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.failing[channelID]; f != nil {
		return time.Until(f.notBefore)
	}
	return 0
}

// recovered forgets a channel when a call succeeds that says that what failed is over. A
// page that was read says so of all calls but checkpoints.
func (r *reopenings) recovered(channelID, op string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.failing[channelID]; f != nil && (op == "checkpoint" || f.op != "checkpoint") {
		delete(r.failing, channelID)
	}
}
