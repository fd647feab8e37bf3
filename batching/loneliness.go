package batching

import (
	"errors"
	"time"
)

// errOneAtATime explains batches of one message.
var errOneAtATime = errors.New("the subscriber seems to deliver the next message only after the ack of the one before; " +
	"let it have more in flight, or lower Timeout (docs/batching.md, Behind other subscribers)")

// loneliness finds out whether a batcher's subscriber delivers one message at a
// time: batches of one that leave by Timeout, each followed at once by the next
// message, and never two messages together. Batching.mu guards it.
type loneliness struct {
	off    bool // two messages were in flight at once, or the warning was logged
	since  time.Time
	streak int // batches of one that were followed at once
}

// lonelyStreak is how many such batches are taken for no chance.
const lonelyStreak = 5

// joined is called before a message joins.
func (l *loneliness) joined(bt *batcher) {
	switch {
	case l.off:
	case bt.stats.Waiting+bt.stats.Handling > 0:
		l.off = true
	case !l.since.IsZero() && time.Since(l.since) < bt.Timeout/10:
		l.streak++
	default:
		l.streak = 0
	}
}

// left is called after a batch, and reports whether it is time to tell.
func (l *loneliness) left(ob *openBatch) bool {
	if l.off || ob.batcher.Size == 1 {
		return false
	}
	l.since = time.Time{}
	if ob.result.messages == 1 && ob.trigger == TriggerTimeout {
		l.since = time.Now()
	}
	l.off = l.streak >= lonelyStreak
	return l.off
}
