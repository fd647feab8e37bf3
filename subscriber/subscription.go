package subscriber

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
)

// subscription reads one tunnel: WorkerSize clients, one
// window, and one output channel or handler. It puts its parts together, and each of them
// guards itself. A Subscribe or Handle has one, or several in sequence: see series.
//
// Invariants:
//   - Only deliverers send to the output, and they have all ended when run returns. With a
//     handler nothing is sent to it.
//   - dest.handlers counts the calls of the handler; none begins after the clients' ends.
//   - stop is called by the end of Subscribe's context, by Close, or by a fatal
//     error. The clients drain then, and none ends before.
type subscription struct {
	sessionConfig
	logger  watermill.LoggerAdapter
	ctx     context.Context // Subscribe's
	dest    *destination
	clients clients

	retention retention
	view      atomic.Pointer[TunnelView] // nil until the service was asked; what it points to does not change

	recreated bool   // its tunnel was created because the one before could not continue
	replaced  error  // why, if there was no subscription yet that could raise the alarm
	ended     func() // called when everything has ended, before output is closed
	continues bool   // set by ended: another subscription follows

	mu       sync.Mutex
	err      error     // fatal, or with OnGapRecreate the reason for recreating the tunnel
	failed   time.Time // when that was
	finished bool      // the tunnel was read to its end
}

func newSubscription(ctx context.Context, info *tunnelInfo, logger watermill.LoggerAdapter, h message.NoPublishHandlerFunc) *subscription {
	life := newLifetime()
	o := newObserver(&info.cfg, logger, life.stopping)
	s := &subscription{
		logger: logger, ctx: ctx, dest: newDestination(&info.cfg, context.WithoutCancel(ctx), h),
		ended: func() {},
	}
	s.sessionConfig = sessionConfig{
		tunnelInfo: info, lifetime: life, observer: o,
		channels: &channels{shared: shared{
			tunnelInfo: info, observer: o, dest: s.dest, fail: s.fail,
			window: ledger.NewWindow(info.cfg.MaxInFlight, info.cfg.MaxInFlightBytes),
		}},
	}
	return s
}

// run connects the clients, and returns when everything has ended.
func (s *subscription) run() {
	defer s.ended()
	if s.replaced != nil {
		s.observer.alarm(s.logger, &Alarm{Kind: Recreate, Topic: s.topic, Err: s.replaced})
	}
	unlink := context.AfterFunc(s.ctx, s.stop)
	defer unlink()
	unbound := s.bound(s.cfg.CloseTimeout)
	defer s.endClose(nil)
	defer unbound()
	scanning, endScanning := context.WithCancel(context.Background())
	defer endScanning()
	var checking sync.WaitGroup
	checking.Go(func() { s.dest.scanner.run(scanning, s.channels.outcomes) }) // ends after the clients, as does watch
	checking.Go(func() { s.watch(scanning) })
	var clients sync.WaitGroup
	clients.Go(func() { s.watchRetention(s.stopping) }) // ends when the subscription stops
	clients.Go(func() { s.watchView(s.stopping) })      // ends when the subscription stops
	clients.Go(func() { s.awaitFinish(s.stopping) })    // ends with the tunnel, or when the subscription stops
	for n := range s.cfg.WorkerSize {
		clients.Go(func() { s.client(n) }) // ends after stop, or with a fatal error
	}
	drained := s.tellDrain()
	clients.Wait()
	drained()
	endScanning()
	if !endsWithin(&checking, handlersGrace/2) {
		s.logger.Error("Config.OnAck has not returned although the subscription has ended; no longer waiting for it", ErrDrainTimeout, nil)
	}
	s.awaitUserCode()
	s.observer.records.end()
	s.logger.Info("Subscription ended", watermill.LogFields{"ran": time.Since(s.started).Round(time.Millisecond).String()})
}

// awaitUserCode waits for the handlers and callbacks that still run. The messages are
// settled or given up, whatever they do. A callback that calls Close is waited for in vain.
func (s *subscription) awaitUserCode() {
	timer := time.NewTimer(handlersGrace)
	defer timer.Stop()
	handlers, callbacks := make(chan struct{}), make(chan struct{})
	go func() { // ends with the last handler, which is the user's
		defer close(handlers)
		s.dest.handlers.Wait()
	}()
	go func() { // ends with the last callback, which is the user's
		defer close(callbacks)
		s.observer.phases.calling.Wait()
		s.observer.alarms.calling.Wait()
	}()
	late := timer.C
	select {
	case <-handlers:
	case <-late:
		late = closedTimer
		s.logger.Error("Handlers still run although the contexts of their messages have ended; no longer waiting for them", ErrDrainTimeout, nil)
	}
	if closed(callbacks) {
		return
	}
	select {
	case <-callbacks:
	case <-late:
		s.observer.phases.giveUp()
		s.observer.alarms.giveUp()
		s.logger.Error("Config.OnPhase or Config.OnAlarm has not returned although the subscription has ended; no longer waiting for it", ErrDrainTimeout, nil)
	}
}

// closedTimer is a timer that has fired.
var closedTimer = func() <-chan time.Time { c := make(chan time.Time); close(c); return c }()

// fail ends the subscription: its tunnel is of no use any more. With OnGapRecreate another
// subscription follows.
func (s *subscription) fail(err error) {
	continues := s.cfg.heals(err) && s.stopping.Err() == nil
	s.mu.Lock()
	first := s.err == nil
	if first {
		s.err, s.failed = err, time.Now()
	}
	s.mu.Unlock()
	switch {
	case !first:
	case continues:
		s.observer.alarm(s.logger, &Alarm{Kind: Recreate, Topic: s.topic, Err: err})
	default:
		s.logger.Error("Subscription failed; its output is closed", err, nil)
	}
	s.stop()
}

// fatal returns the error that ended the subscription for good, nil if there is none.
func (s *subscription) fatal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// sums adds up everything that was counted.
func (s *subscription) sums() tally {
	t, clients := s.channels.sums(), s.clients.sums()
	t.add(&clients)
	if s.recreated || s.replaced != nil {
		t[countRecreations]++
	}
	return t
}
