package subscriber

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/ack"
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
// deliverer and the watchers of messages that take long.
//
// Invariants:
//   - stored and sequence, the last stored checkpoint, belong to main.
//   - No read begins once readCtx is cancelled, nothing is delivered once the
//     tracker drains, nothing committed once ctx is cancelled.
//   - The run is reported ended only when all its goroutines have ended.
type channelRun struct {
	sub     *subscription
	session *session
	conn    *conn
	logger  watermill.LoggerAdapter

	tracker *ack.Tracker
	lane    *ack.Lane
	uuids   *uuids
	records recordDecoder // of whoever delivers, as
	plain   *plainJSON    // nil where another Unmarshaler makes the messages
	scratch Record        // the record that is unmarshalled, where nobody keeps it

	ctx    context.Context // cancelled, with why, when the channel is lost or done
	cancel context.CancelCauseFunc

	readCtx  context.Context // cancelled when reading stops
	stopRead context.CancelFunc

	draining  chan struct{} // closed by drain
	drainOnce sync.Once

	failed chan error // capacity 1: the reader gave up

	stored   string // token of the last stored checkpoint
	sequence int64  // and its number

	leader   leader                   // with a handler, in the deliverer's place
	offered  atomic.Pointer[delivery] // what the deliverer waits for somebody to take
	recalled chan struct{}            // capacity 1: look whether that is still to be delivered
	outcomes outcomes

	counts counts
	status runStatus

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
		sub: sub, session: s, conn: c,
		logger:   s.logger.With(watermill.LogFields{"channel_id": c.id, "client_id": c.clientID}),
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
	r.tracker = ack.New(sub.cfg.Ordering.tracker(), c.id, r.lane)
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

// abandon fences the tracker and ends the contexts of messages in flight.
func (r *channelRun) abandon(cause error) {
	live := r.tracker.Fence()
	endAll(live, cause)
	r.counts.add(countAbandoned, len(live))
	r.sub.heldBack(len(live))
}

// main owns the run.
func (r *channelRun) main() {
	r.logger.Info("Channel opened", nil)
	end := r.work()
	r.fence(errSessionOver) // nothing is live unless the channel was lost; ends the goroutines
	r.outcomes.close()
	r.outcomes.watchers.Wait()
	r.lane.Close()
	r.logger.Info("Channel ended", watermill.LogFields{"end": end.String()})
	r.sub.leave(r, end)
	r.conn.runEnded(r, end)
}

func (r *channelRun) work() runEnd {
	token, err := r.openCheckpoint()
	switch {
	case r.ctx.Err() != nil:
		return endLost
	case err != nil: // drained before anything was read, or a fault that reading would meet again
		if classify(err) == fatal {
			r.pauseReopening()
		}
		return endClosed
	case token == tunnel.FinishTag:
		return endTerminated
	}

	base := isBase(token)
	r.opened(base)

	var loops sync.WaitGroup
	defer loops.Wait()
	defer r.cancel(errSessionOver)
	loops.Add(2)
	go func() { defer loops.Done(); r.read(token) }() // ends with readCtx, at the finish token, or when it gives up
	if r.sub.handler == nil {
		go func() { defer loops.Done(); r.deliver() }() // ends with ctx, or when the tracker drains
	} else {
		r.startLeader(loops.Done)
	}

	// The first one comes at any time, lest channels that were opened together
	// commit together, each on a connection of its own.
	interval := r.sub.cfg.CheckpointInterval
	every := time.NewTimer(rand.N(interval) + 1)
	defer every.Stop()
	var pauses backoff.BackOff // nil while commits succeed
	var retryAt time.Time
	dog := &watchdog{run: r}
	looks := time.NewTicker(max(r.sub.cfg.StuckAfter/looksPerStuck, time.Millisecond))
	defer looks.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return endLost
		case now := <-every.C:
			every.Reset(interval)
			if now.Before(retryAt) {
				continue
			}
			if err := r.commit(); err != nil {
				r.commitFailed(err)
				if pauses == nil {
					pauses = r.sub.cfg.ReadBackoff()
				}
				retryAt = now.Add(nextPause(pauses))
			} else {
				pauses = nil
				r.status.committed.Store(now.UnixNano())
			}
		case now := <-looks.C:
			dog.look(now)
		case <-r.tracker.Done():
			end := r.finish()
			if end == endTerminated {
				r.tell(Phase{Kind: ChannelFinished, Base: base})
			}
			return end
		case <-r.draining:
			return r.finishDrain()
		case <-r.failed:
			r.drain()
			end := r.finishDrain()
			r.pauseReopening()
			return end
		}
	}
}

// pauseReopening waits before a channel that cannot be read is given back: the
// service hands it out again at once, and a fault that lasts would make it go
// round at the speed of the ticks.
func (r *channelRun) pauseReopening() {
	r.status.reopening.Store(true)
	timer := time.NewTimer(r.session.reopenPause(r.conn.id))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.ctx.Done():
	case <-r.sub.stopping.Done():
	}
}

// opened tells what the channel's opening means. The stream of a BaseAndStream
// tunnel is handed out only when all base channels are TERMINATED [facts 4.1].
func (r *channelRun) opened(base bool) {
	r.tell(Phase{Kind: ChannelOpened, Base: base})
	if r.sub.tunnelType == BaseAndStream && !base {
		r.sub.streamStarted.Do(func() { r.tell(Phase{Kind: StreamStarted}) })
	}
}

func (r *channelRun) tell(p Phase) {
	if f := r.sub.cfg.OnPhase; f != nil {
		p.Topic, p.Channel = r.sub.topic, r.conn.id
		f(p)
	}
}

// isBase reports whether a token is one of base data: it has no iterator. A
// token that does not decode counts as one of the stream, as in the SDK [facts 4.5].
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
		case <-time.After(nextPause(pauses)):
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
	pauses, until := r.sub.cfg.ReadBackoff(), time.Now().Add(lastCommitTimeout)
	for {
		err := r.store(token, position)
		if err == nil {
			return end
		}
		r.commitFailed(err)
		if r.ctx.Err() != nil {
			return endLost
		}
		pause := nextPause(pauses)
		if time.Now().Add(pause).After(until) {
			return endClosed
		}
		select {
		case <-r.ctx.Done():
			return endLost
		case <-time.After(pause):
		}
	}
}

// lastCommitTimeout bounds the tries of the last commit of a drain.
const lastCommitTimeout = 5 * time.Second

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
