package subscriber

import (
	"context"
	"sync/atomic"
	"time"
)

// scanner is the goroutine of a subscription that checks the outcomes of all channels, for
// deliverers that wait for something else. It rests while there are none.
type scanner struct {
	rests atomic.Bool
	wake  chan struct{} // capacity 1; has a value when rests was made false for it
}

// scanInterval is the pause between two checks of the scanner. An ack is seen that much
// later at most, whatever the deliverer does.
const scanInterval = time.Millisecond

// added is called after a message was added to some outcomes.
func (s *scanner) added() {
	if s.rests.Load() && s.rests.CompareAndSwap(true, false) {
		s.wake <- struct{}{}
	}
}

// run checks the outcomes that all returns. It ends with ctx.
func (s *scanner) run(ctx context.Context, all func() []*outcomes) {
	timer := time.NewTimer(scanInterval)
	defer timer.Stop()
	var acked ackBatch
	for {
		select {
		case <-timer.C:
			if !scan(all(), &acked) {
				s.rests.Store(true)
				// Once more: what was added meanwhile did not wake the scanner.
				if !scan(all(), &acked) || !s.rests.CompareAndSwap(true, false) {
					continue
				}
			}
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		timer.Reset(scanInterval)
	}
}

// scan checks outcomes, and reports whether any messages are left.
func scan(all []*outcomes, acked *ackBatch) (more bool) {
	for _, o := range all {
		o.check(acked, scanned)
		more = more || !o.empty()
	}
	return more
}
