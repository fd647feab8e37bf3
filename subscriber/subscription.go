package subscriber

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/internal/ledger"
	"github.com/watermill-ots/watermill-ots/ots"
)

// subscription is one Subscribe or Handle: one tunnel, WorkerSize clients, one
// window, and one output channel or handler.
//
// Invariants:
//   - output is closed once, by run, when every client has ended; only
//     channelRuns send to it, and they have all ended then. With a handler
//     nothing is sent to it.
//   - handlers counts the calls of handler; none begins after the clients' ends.
//   - stop is called by the end of Subscribe's context, by Close, or by a fatal
//     error. The clients drain then, and none ends before.
type subscription struct {
	cfg      Config
	endpoint *endpoint
	logger   watermill.LoggerAdapter

	topic, table, tunnel, tunnelID string
	tunnelType                     TunnelType
	tunnelEnd                      time.Time // no changes after it; zero: it has none
	started                        time.Time

	ctx    context.Context // Subscribe's
	values context.Context // its values without its cancellation: base of all message contexts
	window *ledger.Window
	copies bool        // the Unmarshaler is known to keep nothing of a record
	typed  atomic.Bool // handlers ask for records
	output chan *message.Message

	handler  message.NoPublishHandlerFunc // nil: messages go to output
	handlers sync.WaitGroup               // the goroutines that call it
	strays   atomic.Int64                 // calls that outlast their channels
	sweeper  sweeper
	polls    pollBudget

	outages    outages    // of calls of the service
	handlerLog failureLog // of handlers; only with a handler
	refusalLog failureLog // of the Unmarshaler

	streamStarted  sync.Once
	phases, alarms callbacks // OnPhase and OnAlarm

	retention      atomic.Int64 // how long the table's stream keeps records; 0 while unknown
	retentionAsked bool         // belongs to watchRetention: it was told that this failed

	stopping  context.Context // ends when the drain starts
	stop      context.CancelFunc
	closeOver context.Context // ends when the time for the drain and the last calls is over
	endClose  context.CancelCauseFunc
	done      chan struct{} // closed when output is closed
	ended     func()        // called when everything has ended, before output is closed

	mu          sync.Mutex
	err         error                // fatal
	finished    bool                 // the tunnel was read to its end
	held        int                  // messages that the last drain gave up
	uncommitted int                  // acked messages of the last drain whose checkpoint is not stored
	commitError error                // why, of one of the channels
	ghosts      map[string]time.Time // clients that could not be ended, and when the service gives them up

	// What Status tells, besides what the runs and the sessions know.
	runs      map[*channelRun]struct{}
	clients   []clientSlot          // by worker
	tally     tally                 // of runs and sessions that have ended
	errors    map[failedCall]uint64 // made by the first failure
	lastError *Failure
	left      map[string]leftChannel // channels whose runs have ended, by id
	view      *TunnelView            // nil until the service was asked; not changed once it is here
	connected time.Time              // when a client was connected last
}

// start connects the clients. run owns everything and closes output and done at the end.
func (s *subscription) start() { go s.run() }

func (s *subscription) run() {
	defer close(s.done)
	defer close(s.output)
	defer s.ended()
	unlink := context.AfterFunc(s.ctx, s.stop)
	defer unlink()
	bound := context.AfterFunc(s.stopping, s.boundClose)
	defer s.endClose(nil)
	defer bound()
	sweeping, endSweeping := context.WithCancel(context.Background())
	defer endSweeping()
	s.sweeper.wake = make(chan struct{}, 1)
	var looking sync.WaitGroup
	looking.Go(func() { s.sweep(sweeping) }) // ends after the clients, as does watch
	looking.Go(func() { s.watch(sweeping) })
	var clients sync.WaitGroup
	clients.Add(1)
	go func() { // ends when the subscription stops
		defer clients.Done()
		s.watchRetention(s.stopping)
	}()
	clients.Add(1)
	go func() { // ends when the subscription stops
		defer clients.Done()
		s.watchView(s.stopping)
	}()
	clients.Add(1)
	go func() { // ends with the tunnel, or when the subscription stops
		defer clients.Done()
		s.awaitFinish(s.stopping)
	}()
	for n := range s.cfg.WorkerSize {
		clients.Add(1)
		go func() { // ends after stop, or with a fatal error
			defer clients.Done()
			s.client(n)
		}()
	}
	drained := s.tellDrain()
	clients.Wait()
	drained()
	endSweeping()
	if !endsWithin(&looking, handlersGrace/2) {
		s.logger.Error("Config.OnAck goes on although the subscription has ended; it is left alone", ErrDrainTimeout, nil)
	}
	s.awaitUserCode()
	s.sayRest()
	s.logger.Info("Subscription ended", watermill.LogFields{"ran": time.Since(s.started).Round(time.Millisecond).String()})
}

// handlersGrace is how long handlers may take to return once the contexts of
// their messages have ended, and callbacks once the subscription has.
const handlersGrace = time.Second

// endsWithin waits for goroutines that have been told to end, and reports whether they
// have. The user's code in them may not return; then they are left alone.
func endsWithin(goroutines *sync.WaitGroup, d time.Duration) bool {
	ended := make(chan struct{})
	go func() { defer close(ended); goroutines.Wait() }() // ends with them
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ended:
		return true
	case <-timer.C:
		return false
	}
}

// awaitUserCode waits for the handlers and callbacks that still run. The messages are
// settled or given up, whatever they do. A callback that calls Close is waited for in vain.
func (s *subscription) awaitUserCode() {
	timer := time.NewTimer(handlersGrace)
	defer timer.Stop()
	handlers, callbacks := make(chan struct{}), make(chan struct{})
	go func() { // ends with the last handler, which is the user's
		defer close(handlers)
		s.handlers.Wait()
	}()
	go func() { // ends with the last callback, which is the user's
		defer close(callbacks)
		s.phases.calling.Wait()
		s.alarms.calling.Wait()
	}()
	late := timer.C
	select {
	case <-handlers:
	case <-late:
		late = closedTimer
		s.logger.Error("Handlers go on although the contexts of their messages have ended; they are left alone", ErrDrainTimeout, nil)
	}
	if closed(callbacks) {
		return
	}
	select {
	case <-callbacks:
	case <-late:
		s.phases.giveUp()
		s.alarms.giveUp()
		s.logger.Error("Config.OnPhase or Config.OnAlarm goes on although the subscription has ended; it is left alone", ErrDrainTimeout, nil)
	}
}

// closedTimer is a timer that has fired.
var closedTimer = func() <-chan time.Time { c := make(chan time.Time); close(c); return c }()

// openRuns returns the channels that the subscription has.
func (s *subscription) openRuns() []*channelRun {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.runs))
}

// steadySession is how long a session must have lasted for the pauses between
// sessions to begin anew.
const steadySession = time.Minute

// clientName names a tunnel client among those whose calls fail.
func clientName(n int) string { return fmt.Sprintf("worker %d", n) }

// client keeps one tunnel client connected until the subscription stops.
func (s *subscription) client(n int) {
	logger := s.logger.With(watermill.LogFields{"worker": n})
	pauses := s.cfg.ReconnectBackoff()
	for {
		started := time.Now()
		ses := newSession(s, logger)
		ses.worker = n
		ses.transport.noteConnected = func() { s.noteConnected(n, ses) }
		s.sessionBegins(n, ses)
		err := ses.run()
		s.sessionEnds(n, err)
		if err == nil {
			return
		}
		if classify(err) == fatal {
			s.fail(fmt.Errorf("%s: %w%s", s.topic, err, anewAdvice(err)))
			return
		}
		if time.Since(started) > steadySession {
			pauses = s.cfg.ReconnectBackoff()
		}
		if s.stopping.Err() != nil { // the session ended at the same moment: it is not made anew
			logger.Info("Tunnel session ended by itself when it was to end", callDetail("connect", err))
			return
		}
		pause := nextPause(pauses)
		fields := callFields("connect", err).Add(watermill.LogFields{"pause": pause.String()})
		if s.callFailed(clientName(n), "connect", err) {
			logger.Error("Tunnel session ended; connecting again", err, fields)
		} else {
			logger.Debug("Tunnel session ended; connecting again", fields.Add(watermill.LogFields{"err": err.Error()}))
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-s.stopping.Done():
			timer.Stop()
			return
		}
	}
}

// anewAdvice says what to do about a tunnel that is of no use any more.
func anewAdvice(err error) string {
	switch {
	case errors.Is(err, ots.ErrTunnelGone):
		return "; the tunnel or its table was deleted: create it anew and start again, and expect that changes made in between are missing"
	case errors.Is(err, ots.ErrTunnelExpired):
		return "; delete the tunnel and create it anew as BaseAndStream, which reads the whole table again"
	}
	return ""
}

// fail ends the subscription for good: its tunnel is of no use any more.
func (s *subscription) fail(err error) {
	s.mu.Lock()
	first := s.err == nil
	if first {
		s.err = err
	}
	s.mu.Unlock()
	if first {
		s.logger.Error("Subscription failed; its output is closed", err, nil)
	}
	s.stop()
}

// heldBack counts messages that were unsettled when their channel was given up,
// if that was the subscription's end: at any other time they just come again.
func (s *subscription) heldBack(n int) {
	if n == 0 || s.stopping.Err() == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held += n
}

// notCommitted counts acked messages whose checkpoint is not stored at the end of their
// channel, if that was the subscription's end: at any other time they just come again.
func (s *subscription) notCommitted(n int, cause error) {
	if n == 0 || s.stopping.Err() == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uncommitted += n
	if s.commitError == nil {
		s.commitError = cause
	}
}

// fatal returns the error that ended the subscription for good, nil if there is none.
func (s *subscription) fatal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
