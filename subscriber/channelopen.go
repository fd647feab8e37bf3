package subscriber

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
)

// assignment is a channel that the service has assigned to a client.
type assignment struct {
	id, clientID string
	worker       int             // the number of the client
	session      context.Context // ends with the client's session
	logger       watermill.LoggerAdapter
	client       client
	lease        *lease
	reopen       *reopenings
}

// shared is what the channels of a subscription share.
type shared struct {
	*tunnelInfo
	observer *observer
	dest     *destination
	window   *ledger.Window
	polls    pollBudget
	fail     func(error) // ends the subscription
}

func newChannelRun(s *shared, a assignment) *channelRun {
	lane := s.window.Open()
	own := &ownership{
		channelInfo: &channelInfo{tunnelInfo: s.tunnelInfo, id: a.id, clientID: a.clientID, worker: a.worker, logger: a.logger},
		metrics:     &channelMetrics{observer: s.observer, opened: time.Now()},
		observer:    s.observer,
		tracker:     ledger.New(s.cfg.Ordering.tracker(), a.id, lane),
		client:      a.client, lease: a.lease, reopen: a.reopen,
		draining: make(chan struct{}),
	}
	own.ctx, own.cancel = context.WithCancelCause(a.session)
	r := &channelRun{
		ownership: own, lane: lane,
		reader:    newReader(own, lane, &s.polls, s.fail),
		failures:  newFailures(s.cfg.NackBackoff),
		committer: &committer{ownership: own},
	}
	if s.cfg.Lookup != LookupNone {
		r.reader.rows = newLookup(own, lane)
	}
	r.outcomes = &outcomes{settler: &settler{ownership: own, failures: r.failures}}
	r.taker = newTaker(r.outcomes, s.dest)
	if s.dest.handler == nil {
		r.deliverer = &toOutput{taker: r.taker}
	} else {
		r.deliverer = newToHandler(r.taker)
	}
	return r
}

// phase has OnPhase called. told is closed when it has returned.
func (r *channelRun) phase(p Phase) (told <-chan struct{}) {
	p.Topic, p.Channel, p.Snapshot = r.topic, r.id, r.snapshot
	return r.observer.phase(r.logger, p)
}

// opened has OnPhase called with what the channel's opening means; told is closed when it has returned. The
// stream of a BaseAndStream tunnel is handed out only when all base channels are TERMINATED [docs/protocol.md, Types, stages and channels].
func (r *channelRun) opened(base bool) (told <-chan struct{}) {
	told = r.phase(Phase{Kind: ChannelOpened, Base: base})
	if r.tunnelType == BaseAndStream && !base {
		r.observer.streamStarted.Do(func() { told = r.phase(Phase{Kind: StreamStarted}) })
	}
	return told
}

// awaitLoops waits for the goroutines that read and deliver. They end with ctx, which
// has ended, unless the user's Unmarshaler does not return: that is left alone, or the
// session, and Close, would wait for it. It can change nothing any more.
func (r *channelRun) awaitLoops(loops *sync.WaitGroup) {
	if !endsWithin(loops, handlersGrace) {
		r.logger.Error("The Unmarshaler has not returned although its channel is over; no longer waiting for it", context.Cause(r.ctx), nil)
	}
}

// rest waits before a channel is opened whose calls the service refused a moment ago. It is
// false when the channel drains or is fenced before.
func (r *channelRun) rest() bool {
	d := r.reopen.rest(r.id)
	if d <= 0 {
		return true
	}
	r.metrics.reopening.Store(true)
	defer r.metrics.reopening.Store(false)
	return r.reader.pause(d)
}

// pauseReopening waits before a channel that cannot be read is given back: the
// service hands it out again at once, and with a fault that lasts it would be given back and opened at
// the speed of the ticks. op is the call that fails.
func (r *channelRun) pauseReopening(op string) {
	r.metrics.reopening.Store(true)
	timer := time.NewTimer(r.reopen.refused(r.id, op))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.ctx.Done():
	case <-r.observer.stopping.Done():
	}
}
