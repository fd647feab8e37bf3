package subscriber

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// channelRun is one ownership of a channel at work, from the OPEN that a client
// received to the CLOSE or TERMINATED that it reports, or until it is fenced.
//
//	          OPEN            finish token committed
//	(conn) ────────▶ reading ─────────────────────────▶ TERMINATED reported
//	                    │ CLOSING, or the subscription stops
//	                    ▼            all settled, or CloseTimeout
//	                 draining ────────────────────────▶ last commit, CLOSE reported
//	                    │
//	   fenced, from anywhere: nothing is committed or reported
//
// It puts the parts together, and has their goroutines: main (life cycle and commits)
// starts and awaits the reader, the deliverer and the watchers of messages that take long.
// main calls no code of the user's but the logger and the backoffs, so nothing but the
// service holds up commits and drains.
//
// Invariant: when main returns all of these goroutines have ended, but for those that the
// user's code holds up.
type channelRun struct {
	*ownership
	lane      *ledger.Lane
	reader    *reader
	taker     *taker
	deliverer deliverer
	outcomes  *outcomes
	failures  *failures
	committer *committer
}

// runEnd says how a run ended and what is reported of it.
type runEnd uint8

const (
	endFenced     runEnd = iota // nothing is reported
	endClosed                   // CLOSE
	endTerminated               // TERMINATED
)

// String names the end for the log.
func (e runEnd) String() string {
	switch e {
	case endTerminated:
		return "finished"
	case endClosed:
		return "closed"
	}
	return "lost"
}

// drain stops reading and delivering; the run ends when what is in flight is
// settled, at the latest after CloseTimeout and the tries of the last commit.
func (r *channelRun) drain() {
	if r.ownership.drain() {
		r.taker.scope.offer.recheck()
	}
	r.reader.stop()
}

// main is the run's goroutine.
func (r *channelRun) main() runEnd {
	// Not in newChannelRun, which is called under a lock: a logger is the user's.
	r.channelInfo.logger = r.logger.With(watermill.LogFields{"channel_id": r.id, "client_id": r.clientID})
	r.logger.Info("Channel opened", nil)
	end := r.work()
	r.fence(errSessionOver) // nothing is in flight unless the channel was fenced before; ends the goroutines
	r.deliverer.over()
	r.outcomes.close()
	if !endsWithin(&r.outcomes.watchers, handlersGrace/2) {
		r.logger.Error("Config.NackBackoff or Config.OnAck has not returned although the channel is over; no longer waiting for it", context.Cause(r.ctx), nil)
	}
	r.lane.Close()
	if n := r.tracker.Uncommitted(); n > 0 {
		r.observer.notCommitted(n, r.committer.whyNotCommitted())
	}
	r.observer.outages.gone(r.id)
	r.logger.Info("Channel ended", watermill.LogFields{"end": end.String()})
	return end
}

func (r *channelRun) work() runEnd {
	if !r.rest() { // drained or fenced before it was opened
		return r.closedOrFenced()
	}
	token, err := r.committer.open(r.reader.reading)
	switch {
	case r.ctx.Err() != nil:
		return endFenced
	case err != nil: // drained before anything was read, or a fault that reading would meet again
		if r.reader.reading.Err() == nil && tunnelapi.Classify(err) == fatal {
			r.pauseReopening("getcheckpoint")
		}
		return endClosed
	case token == tunnel.FinishTag:
		return endTerminated
	}

	base := isBase(token)
	told := r.opened(base)

	var loops sync.WaitGroup
	defer r.awaitLoops(&loops)
	defer r.cancel(errSessionOver)
	if rows := r.reader.rows; rows != nil {
		loops.Go(rows.run) // ends with ctx, or when the channel drains
	}
	loops.Add(2)
	go func() { // ends when reading stops, at the finish token, or when it gives up
		defer loops.Done()
		if r.reader.awaitPhase(told) {
			r.reader.read(token)
		}
	}()
	r.deliverer.start(loops.Done) // ends with ctx, or when the channel drains
	end, unreadable := r.live()
	if end == endTerminated {
		r.phase(Phase{Kind: ChannelFinished, Base: base})
	}
	if unreadable {
		r.pauseReopening("readrecords")
	}
	return end
}

// live commits what is acked until the channel ends, drains or turns out to be unreadable.
func (r *channelRun) live() (end runEnd, unreadable bool) {
	c := r.committer
	c.schedule()
	defer c.every.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return endFenced, false
		case now := <-c.every.C:
			c.scheduled(now)
		case <-r.tracker.Done():
			return r.finish(), false
		case <-r.draining:
			return r.finishDrain(), false
		case <-r.reader.failed:
			r.drain()
			return r.finishDrain(), true
		}
	}
}

// finish commits the finish token: TERMINATED may be reported only when it is
// stored (law L5). Nothing is urgent: without it the channel comes back.
func (r *channelRun) finish() runEnd {
	switch {
	case r.committer.commitEnd():
		return endTerminated
	case r.ctx.Err() != nil:
		return endFenced
	}
	return r.finishDrain()
}

// finishDrain waits for what is in flight, then commits what was acked.
func (r *channelRun) finishDrain() runEnd {
	r.tracker.Drain()
	timeout := time.NewTimer(r.cfg.CloseTimeout)
	defer timeout.Stop()
	select {
	case <-r.tracker.Drained():
	case <-timeout.C:
		held := r.tracker.Stats()
		r.logger.Error("Messages still unsettled after CloseTimeout; they are redelivered to the channel's next owner", ErrDrainTimeout, watermill.LogFields{
			"unsettled": held.Live, "oldest_key": keyText(held.Oldest), "oldest_attempts": held.Oldest.Attempts,
		})
	case <-r.ctx.Done():
		return endFenced
	}
	end := endClosed
	if closed(r.tracker.Done()) {
		end = endTerminated
	}
	// Messages that still run lose their contexts; what they do afterwards changes nothing.
	token, position, ok := r.tracker.Committable()
	r.giveUp(errDrainOver)
	if !ok || r.committer.commitLast(token, position) {
		return end
	}
	return r.closedOrFenced()
}

func (r *channelRun) closedOrFenced() runEnd {
	if r.ctx.Err() != nil {
		return endFenced
	}
	return endClosed
}

// keyText is the key of a record that the tracker holds.
func keyText(o ledger.Oldest) string {
	if p, ok := o.Page.(*page); ok {
		return p.record(o.Index).KeyText()
	}
	return ""
}
