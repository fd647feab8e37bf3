package batching

import (
	"errors"
	"time"
)

// errOneAtATime explains batches of one message.
var errOneAtATime = errors.New("the subscriber seems to deliver a message only after the ack of the previous one; " +
	"allow it more messages in flight, or lower Timeout (docs/batching.md, Behind other subscribers)")

// serialDetector detects a subscriber that delivers one message at a time: each batch
// has one message and runs after Timeout, the next message follows at once, and there
// are never two messages together. Batching.mu guards it.
type serialDetector struct {
	off    bool      // two messages were in flight at once, or the warning was logged
	since  time.Time // when the latest batch of one message ended
	streak int       // batches of one message that were followed at once
}

// serialStreak is how many such batches in a row cannot be a coincidence.
const serialStreak = 5

// joined is called before a message joins.
func (d *serialDetector) joined(bt *shared) {
	switch {
	case d.off:
	case bt.stats.Waiting+bt.stats.Handling > 0:
		d.off = true
	case !d.since.IsZero() && time.Since(d.since) < bt.Timeout/10:
		d.streak++
	default:
		d.streak = 0
	}
}

// left is called after a batch, and reports whether to log the warning.
func (d *serialDetector) left(ob *openBatch) bool {
	if d.off || ob.batcher.Size == 1 {
		return false
	}
	d.since = time.Time{}
	if ob.result.messages == 1 && ob.trigger == TriggerTimeout {
		d.since = time.Now()
	}
	d.off = d.streak >= serialStreak
	return d.off
}
