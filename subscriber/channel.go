package subscriber

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/ots"
)

// channelRun is one ownership of a channel, from the OPEN that a client
// received to the CLOSE or TERMINATED that it reports, or to its loss.
//
//	          OPEN            finish token committed
//	(conn) ────────▶ reading ─────────────────────────▶ TERMINATED reported
//	                    │ CLOSING, or the subscription stops
//	                    ▼            all settled, or CloseTimeout
//	                 draining ────────────────────────▶ last commit, CLOSE reported
//	                    │
//	   lost, from anywhere: fenced, nothing is committed or reported
//
// Goroutines: main (life cycle and commits) starts and awaits the reader, the
// deliverer and the watchers of messages that take long. main calls no code of the
// user's but the logger and the backoffs, so nothing but the service holds up commits and drains.
//
// Invariants:
//   - stored and sequence, the last stored checkpoint, belong to main, as do
//     commitFailing, commitError, commitUntil and patience.
//   - No read begins once readCtx is cancelled, nothing is delivered once the
//     tracker drains, nothing committed once ctx is cancelled.
//   - The run is reported ended only when all its goroutines have ended.
type channelRun struct {
	sub     *subscription
	session *session
	lease   *lease // of the session
	conn    *conn
	logger  watermill.LoggerAdapter

	tracker *ledger.Tracker
	lane    *ledger.Lane
	uuids   *uuids
	records recordDecoder // of whoever delivers, as
	plain   *plainJSON    // nil where another Unmarshaler makes the messages
	scratch ots.Record    // the record that is unmarshalled, where nobody keeps it

	ctx    context.Context // cancelled, with why, when the channel is lost or done
	cancel context.CancelCauseFunc

	readCtx  context.Context // cancelled when reading stops
	stopRead context.CancelFunc

	draining  chan struct{} // closed by drain
	drainOnce sync.Once

	failed chan error // capacity 1: the reader gave up

	stored        string    // token of the last stored checkpoint
	sequence      int64     // and its number
	commitFailing bool      // a checkpoint call failed, or none was made yet
	commitError   error     // of the last one that failed
	commitUntil   time.Time // the end of the last commit's time; zero before it
	patience      patience  // of checkpoint calls
	lostOnce      sync.Once // the channel's rest before it is opened again is decided

	leader   leader                   // with a handler, in the deliverer's place
	offered  atomic.Pointer[delivery] // what the deliverer waits for somebody to take
	recalled chan struct{}            // capacity 1: look whether that is still to be delivered
	outcomes outcomes

	counts counts
	status runStatus
	calls  atomic.Int64 // of the handler that go on; and runOver

	mu       sync.Mutex
	failures map[uint64]*failure // of records that failed and are not acked, by Attempt.ID
}

// runEnd says how a run ended and what is reported of it.
type runEnd uint8

const (
	endLost       runEnd = iota // nothing is reported
	endClosed                   // CLOSE
	endTerminated               // TERMINATED
)

func newChannelRun(s *session, c *conn) *channelRun {
	sub := s.sub
	r := &channelRun{
		sub: sub, session: s, lease: s.transport.lease, conn: c,
		logger:   s.logger, // main gives it the channel's fields
		uuids:    newUUIDs(sub.tunnelID, c.id),
		draining: make(chan struct{}),
		recalled: make(chan struct{}, 1),
		failed:   make(chan error, 1),
		failures: make(map[uint64]*failure),
	}
	r.records.slab = slabCells
	if _, ok := sub.cfg.Unmarshaler.(JSON); ok {
		r.plain = new(plainJSON)
	}
	r.lane = sub.window.Open()
	r.tracker = ledger.New(sub.cfg.Ordering.tracker(), c.id, r.lane)
	r.ctx, r.cancel = context.WithCancelCause(s.ctx)
	r.readCtx, r.stopRead = context.WithCancel(r.ctx)
	sub.enter(r)
	return r
}

// drain stops reading and delivering; the run ends when what is in flight is
// settled, at the latest after CloseTimeout and the tries of the last commit: a
// call that gets no answer is given up then.
func (r *channelRun) drain() {
	r.drainOnce.Do(func() {
		r.counts.inc(countDrains)
		close(r.draining)
		r.stopOffering()
		late := time.AfterFunc(r.sub.cfg.CloseTimeout+lastCommitTimeout, func() { r.fence(errDrainOver) })
		context.AfterFunc(r.ctx, func() { late.Stop() })
	})
	r.stopRead()
}

// fence drops everything: the channel is somebody else's. The contexts of
// messages in flight end with the cause; nothing is committed from here on.
func (r *channelRun) fence(cause error) {
	r.abandon(cause)
	r.cancel(cause)
}

// leaseOver reports whether the channel may be another client's already. No handler is
// called and no message offered then. The code that finds that ends the session (expire),
// whose timer may be late when the process was suspended.
func (r *channelRun) leaseOver(now time.Time) bool { return r.lease != nil && r.lease.over(now) }

// abandon fences the tracker and ends the contexts of messages in flight.
func (r *channelRun) abandon(cause error) {
	if position, _ := r.position(); position != 0 { // before the tracker forgets what is in flight
		r.status.fenced.CompareAndSwap(0, position)
	}
	live := r.tracker.Fence()
	endAll(live, cause)
	r.counts.add(countAbandoned, len(live))
	r.sub.heldBack(len(live))
}

// main owns the run.
func (r *channelRun) main() {
	// Not in newChannelRun, which is called under a lock: a logger is the user's.
	r.logger = r.logger.With(watermill.LogFields{"channel_id": r.conn.id, "client_id": r.conn.clientID})
	r.logger.Info("Channel opened", nil)
	end := r.work()
	r.fence(errSessionOver) // nothing is live unless the channel was lost; ends the goroutines
	r.countStrays()
	r.outcomes.close()
	if !endsWithin(&r.outcomes.watchers, handlersGrace/2) {
		r.logger.Error("Config.NackBackoff or Config.OnAck goes on although the channel is over; it is left alone", context.Cause(r.ctx), nil)
	}
	r.lane.Close()
	if n := r.tracker.Uncommitted(); n > 0 {
		r.sub.notCommitted(n, r.whyNotCommitted())
	}
	r.sub.outages.gone(r.conn.id)
	r.logger.Info("Channel ended", watermill.LogFields{"end": end.String()})
	r.sub.leave(r, end)
	r.conn.runEnded(r, end)
}

// whyNotCommitted is the last failure of a commit, or why the channel ended.
func (r *channelRun) whyNotCommitted() error {
	switch {
	case r.commitError == nil:
		return r.channelError("checkpoint", context.Cause(r.ctx))
	case context.Cause(r.ctx) == errDrainOver: // which is about messages, and broke the call off
		return r.channelError("checkpoint", errNoLastCommit)
	}
	return r.channelError("checkpoint", r.commitError)
}

var errNoLastCommit = fmt.Errorf("no answer within %v after CloseTimeout", lastCommitTimeout)

func (r *channelRun) work() runEnd {
	if !r.rest(r.session.reopenIn(r.conn.id)) { // drained or lost before it was opened
		if r.ctx.Err() != nil {
			return endLost
		}
		return endClosed
	}
	token, err := r.openCheckpoint()
	switch {
	case r.ctx.Err() != nil:
		return endLost
	case err != nil: // drained before anything was read, or a fault that reading would meet again
		if r.readCtx.Err() == nil && classify(err) == fatal {
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
	loops.Add(2)
	go func() { // ends with readCtx, at the finish token, or when it gives up
		defer loops.Done()
		if r.awaitTold(told) {
			r.read(token)
		}
	}()
	if r.sub.handler == nil {
		go r.deliver(loops.Done) // ends with ctx, or when the tracker drains
	} else {
		r.startLeader(loops.Done)
	}
	return r.live(base)
}

// live commits what is acked until the channel ends or drains.
func (r *channelRun) live(base bool) runEnd {
	// The first one comes at any time, lest channels that were opened together
	// commit together, each on a connection of its own.
	interval := r.sub.cfg.CheckpointInterval
	every := time.NewTimer(rand.N(interval) + 1)
	defer every.Stop()
	var pauses backoff.BackOff // nil while commits succeed
	for {
		select {
		case <-r.ctx.Done():
			return endLost
		case now := <-every.C:
			if err := r.commit(); err != nil {
				r.commitFailed(err)
				if pauses == nil {
					pauses = r.sub.cfg.ReadBackoff()
				}
				every.Reset(commitPause(pauses, err))
			} else {
				pauses = nil
				every.Reset(max(0, interval-time.Since(now)))
				r.status.committed.Store(now.UnixNano())
			}
		case <-r.tracker.Done():
			return r.tellEnd(r.finish(), base)
		case <-r.draining:
			return r.tellEnd(r.finishDrain(), base)
		case <-r.failed:
			r.drain()
			end := r.tellEnd(r.finishDrain(), base)
			r.pauseReopening("readrecords")
			return end
		}
	}
}

// tellEnd tells OnPhase when the channel ended because it was read to its end.
func (r *channelRun) tellEnd(end runEnd, base bool) runEnd {
	if end == endTerminated {
		r.tell(Phase{Kind: ChannelFinished, Base: base})
	}
	return end
}

// awaitLoops waits for the goroutines that read and deliver. They end with ctx, which
// has ended, unless the user's Unmarshaler does not return: that is left alone, lest
// the session, and Close, wait for it. It can change nothing any more.
func (r *channelRun) awaitLoops(loops *sync.WaitGroup) {
	if !endsWithin(loops, handlersGrace) {
		r.logger.Error("The Unmarshaler goes on although its channel is over; it is left alone", context.Cause(r.ctx), nil)
	}
}

// pauseReopening waits before a channel that cannot be read is given back: the
// service hands it out again at once, and a fault that lasts would make it go
// round at the speed of the ticks. op is the call that fails.
func (r *channelRun) pauseReopening(op string) {
	r.status.reopening.Store(true)
	timer := time.NewTimer(r.session.reopenPause(r.conn.id, op))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.ctx.Done():
	case <-r.sub.stopping.Done():
	}
}

// rest waits before a channel is opened that was refused a moment ago. It is false when
// the channel drains or is lost before.
func (r *channelRun) rest(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	r.status.reopening.Store(true)
	defer r.status.reopening.Store(false)
	return r.pause(d)
}

// opened tells what the channel's opening means; told is closed when that is known. The stream
// of a BaseAndStream tunnel is handed out only when all base channels are TERMINATED [docs/protocol.md, Types, stages and channels].
func (r *channelRun) opened(base bool) (told <-chan struct{}) {
	told = r.tell(Phase{Kind: ChannelOpened, Base: base})
	if r.sub.tunnelType == BaseAndStream && !base {
		r.sub.streamStarted.Do(func() { told = r.tell(Phase{Kind: StreamStarted}) })
	}
	return told
}

// isBase reports whether a token is one of base data: it has no iterator. A
// token that does not decode counts as one of the stream, as in the SDK [docs/protocol.md, Tokens].
func isBase(token string) bool {
	content, err := tunnel.ParseRequestToken(token)
	return err == nil && content.GetIterator() == ""
}

// finish commits the finish token: TERMINATED may be reported only when it is
// stored (law L5). There is no hurry: without it the channel comes back.
func (r *channelRun) finish() runEnd {
	pauses := r.sub.cfg.ReadBackoff()
	for {
		err := r.commit()
		if err == nil {
			return endTerminated
		}
		r.commitFailed(err)
		select {
		case <-r.ctx.Done():
			return endLost
		case <-r.draining:
			return r.finishDrain()
		case <-time.After(commitPause(pauses, err)):
		}
	}
}

// finishDrain waits for what is in flight, then commits what was acked.
func (r *channelRun) finishDrain() runEnd {
	r.tracker.Drain()
	timeout := time.NewTimer(r.sub.cfg.CloseTimeout)
	defer timeout.Stop()
	select {
	case <-r.tracker.Drained():
	case <-timeout.C:
		held := r.tracker.Stats()
		r.logger.Error("Messages still unsettled after CloseTimeout; they are redelivered to the channel's next owner", ErrDrainTimeout, watermill.LogFields{
			"unsettled": held.Live, "oldest_key": keyText(held.Oldest), "oldest_attempts": held.Oldest.Attempts,
		})
	case <-r.ctx.Done():
		return endLost
	}
	end := endClosed
	select {
	case <-r.tracker.Done():
		end = endTerminated
	default:
	}
	// Messages that still run lose their contexts; what they do from here on
	// changes nothing any more.
	token, position, ok := r.tracker.Committable()
	r.abandon(errDrainOver)
	if !ok {
		return end
	}
	pauses := r.sub.cfg.ReadBackoff()
	r.commitUntil = time.Now().Add(lastCommitTimeout)
	for {
		err := r.store(token, position)
		if err == nil {
			return end
		}
		r.commitFailed(err)
		if r.ctx.Err() != nil {
			return endLost
		}
		pause := commitPause(pauses, err)
		if time.Now().Add(pause).After(r.commitUntil) {
			return endClosed
		}
		select {
		case <-r.ctx.Done():
			return endLost
		case <-time.After(pause):
		}
	}
}

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
