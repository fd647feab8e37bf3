package subscriber

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
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
// deliverer and one watcher for each message in flight.
//
// Invariants:
//   - stored and sequence, the last stored checkpoint, belong to main.
//   - Nothing is read once readCtx is cancelled, nothing delivered once the
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

	ctx    context.Context // cancelled, with why, when the channel is lost or done
	cancel context.CancelCauseFunc

	readCtx  context.Context // cancelled when reading stops
	stopRead context.CancelFunc

	draining  chan struct{} // closed by drain
	drainOnce sync.Once

	failed chan error // capacity 1: the reader gave up

	stored   string // token of the last stored checkpoint
	sequence int64  // and its number

	offered  atomic.Pointer[delivery] // what the deliverer waits for somebody to take
	recalled chan struct{}            // capacity 1: look whether that has ended
	watchers sync.WaitGroup

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
	for _, d := range live {
		d.(*delivery).cancel(cause)
	}
	r.counts.add(countAbandoned, len(live))
	r.sub.heldBack(len(live))
}

// main owns the run.
func (r *channelRun) main() {
	r.logger.Info("Channel opened", nil)
	end := r.work()
	r.fence(errSessionOver) // nothing is live unless the channel was lost; ends the goroutines
	r.watchers.Wait()
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
	go func() { defer loops.Done(); r.deliver() }()   // ends with ctx, or when the tracker drains

	every := time.NewTicker(r.sub.cfg.CheckpointInterval)
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

// deliver hands out records until the tracker drains or is fenced.
func (r *channelRun) deliver() {
	var due <-chan time.Time
	for {
		select { // before Next: until the tracker drains it would give back what hand refuses
		case <-r.draining:
			return
		default:
		}
		a, retryAt, ok := r.tracker.Next(time.Now())
		if ok {
			r.hand(a)
			continue
		}
		var timer *time.Timer
		if !retryAt.IsZero() {
			timer = time.NewTimer(time.Until(retryAt))
			due = timer.C
		}
		select {
		case <-r.tracker.Ready():
		case <-due:
		case <-r.draining:
			return
		case <-r.ctx.Done():
			return
		}
		if timer != nil {
			timer.Stop()
			due = nil
		}
	}
}

// hand makes a message of a record and sends it to the output, or to the handler.
func (r *channelRun) hand(a ack.Attempt) {
	d, msg := r.messageOf(a)
	if msg == nil {
		return
	}
	r.offered.Store(d) // before Bind: from there on recall may be meant for it
	defer r.offered.Store(nil)
	if !r.tracker.Bind(a, d) { // called back or fenced meanwhile
		d.cancel(ack.ErrCalledBack)
		r.tracker.Nack(a, time.Time{}) // its end: the record comes again in its turn
		return
	}
	if r.sub.handler != nil {
		r.noteDelivered(a)
		r.sub.handlers.Add(1)
		go r.handle(d, msg) // ends with the handler; the subscription waits for it
		return
	}
	r.offer(d, msg)
}

// messageOf makes a message and its delivery. Without a message, all that there
// is to do for the record is done.
func (r *channelRun) messageOf(a ack.Attempt) (*delivery, *message.Message) {
	p := a.Page().(*page)
	rec := &p.records[a.Index()]
	if a.Number() > 1 { // whoever handled it before may still hold the record
		again := *rec
		again.Attempt = a.Number()
		rec = &again
	}
	rec.UUID = r.uuids.of(rec.Type, rec.Sequence, p.keys[a.Index()])
	msg, err := r.unmarshal(rec)
	if errors.Is(err, ErrSkip) {
		if r.acked(a) {
			r.counts.inc(countSkipped)
		}
		return nil, nil
	}
	if err != nil {
		r.counts.inc(countRefused)
		r.logger.Error("Record was refused by the Unmarshaler; it is tried again", err, recordFields(rec, a))
		r.nacked(a, err)
		return nil, nil
	}
	if msg.UUID == "" {
		msg.UUID = rec.UUID
	}
	d := &delivery{values: r.sub.values, run: r, attempt: a, record: rec, since: time.Now()}
	msg.SetContext(d)
	return d, msg
}

// offer sends a message to the output.
func (r *channelRun) offer(d *delivery, msg *message.Message) {
	for {
		select {
		case r.sub.output <- msg:
			r.noteDelivered(d.attempt)
			r.watchers.Add(1)
			go r.watch(d, msg) // ends when the message is settled or ctx ends; main waits for it
			return
		case <-r.recalled: // called back or fenced before anybody took it, unless an earlier one was meant
			if d.over() {
				r.tracker.Nack(d.attempt, time.Time{}) // the end of a called-back delivery: it comes again
				return
			}
		case <-r.draining:
			d.cancel(context.Canceled)
			r.tracker.Nack(d.attempt, time.Time{}) // ends undelivered; a draining tracker delivers nothing again
			return
		}
	}
}

// recall tells the deliverer that the delivery which it offers has ended.
func (r *channelRun) recall(d *delivery) {
	if r.offered.Load() == d {
		select {
		case r.recalled <- struct{}{}:
		default:
		}
	}
}

// unmarshal calls the Unmarshaler, which is the user's: it may panic.
func (r *channelRun) unmarshal(rec *Record) (msg *message.Message, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("unmarshaler panicked: %w\n%s", asError(v), debug.Stack())
		}
	}()
	msg, err = r.sub.cfg.Unmarshaler.Unmarshal(rec)
	if err == nil && msg == nil {
		err = errors.New("unmarshaler returned neither a message nor an error")
	}
	return msg, err
}

// watch waits for the outcome of a message. Watermill tells it by closing one
// of two channels and nothing else.
func (r *channelRun) watch(d *delivery, msg *message.Message) {
	defer r.watchers.Done()
	select {
	case <-msg.Acked():
		r.settle(d, nil)
	case <-msg.Nacked():
		r.settle(d, d.failure())
	case <-r.ctx.Done():
	}
}

// handle calls the handler, and settles its message as a message.Router does.
func (r *channelRun) handle(d *delivery, msg *message.Message) {
	defer r.sub.handlers.Done()
	err := r.call(msg)
	if err != nil && !errors.Is(err, context.Canceled) {
		r.logger.Error("Handler returned error", err, recordFields(d.record, d.attempt).Add(watermill.LogFields{"message_uuid": msg.UUID}))
	}
	switch { // an outcome that the handler has set itself stays
	case err == nil && !msg.Ack():
		err = d.failure()
	case err != nil && !msg.Nack():
		err = nil
	}
	r.settle(d, err)
}

// call calls the handler, which is the user's: it may panic.
func (r *channelRun) call(msg *message.Message) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("handler panicked: %w\n%s", asError(v), debug.Stack())
		}
	}()
	return r.sub.handler(msg)
}

// settle ends a delivery: nil acks it.
func (r *channelRun) settle(d *delivery, failure error) {
	if failure != nil {
		d.cancel(ErrSettled)
		r.nacked(d.attempt, failure)
		return
	}
	if r.acked(d.attempt) {
		r.noteAcked(d)
	}
	d.cancel(ErrSettled)
}

// acked ends an attempt whose record is done with, and reports whether that counted.
func (r *channelRun) acked(a ack.Attempt) bool {
	counted := r.tracker.Ack(a)
	if counted && a.Failures() > 0 {
		r.forgetFailure(a.ID())
	}
	return counted
}

var errNacked = errors.New("message nacked")

// nacked schedules the redelivery of a record.
func (r *channelRun) nacked(a ack.Attempt, cause error) {
	pause := r.nextNackPause(a.ID())
	taken, counted := r.tracker.Nack(a, time.Now().Add(pause))
	r.counts.add(countCalledBack, len(taken))
	cancelCalledBack(taken, cause)
	if !counted && a.Failures() == 0 {
		r.forgetFailure(a.ID()) // called back, and no failure of its own
	}
	if counted {
		r.noteFailure(a, cause)
		r.logger.Debug("Message nacked; it comes again", recordFields(&a.Page().(*page).records[a.Index()], a).Add(watermill.LogFields{"pause": pause.String(), "called_back": len(taken)}))
	}
}

func (r *channelRun) nextNackPause(id uint64) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.failures[id]
	if !ok {
		f = &failure{pauses: r.sub.cfg.NackBackoff()}
		r.failures[id] = f
	}
	return nextPause(f.pauses)
}

func (r *channelRun) forgetFailure(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.failures, id)
}

// stoppedPause is the pause where a BackOff says Stop: a subscriber never gives
// a record up, and never retries in a tight loop.
const stoppedPause = 30 * time.Second

func nextPause(b backoff.BackOff) time.Duration {
	if d := b.NextBackOff(); d != backoff.Stop {
		return d
	}
	return stoppedPause
}

// recordFields names a record in the log.
func recordFields(rec *Record, a ack.Attempt) watermill.LogFields {
	return watermill.LogFields{"key": rec.KeyText(), "type": rec.Type.String(), "sequence": rec.Sequence.String(), "attempt": a.Number()}
}

func keyText(o ack.Oldest) string {
	if p, ok := o.Page.(*page); ok {
		return p.records[o.Index].KeyText()
	}
	return ""
}
