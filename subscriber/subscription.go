package subscriber

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
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
	started                        time.Time

	ctx    context.Context // Subscribe's
	values context.Context // its values without its cancellation: base of all message contexts
	window *ack.Window
	copies bool        // the Unmarshaler is known to keep nothing of a record
	typed  atomic.Bool // handlers ask for records
	output chan *message.Message

	handler  message.NoPublishHandlerFunc // nil: messages go to output
	handlers sync.WaitGroup               // the goroutines that call it
	sweeper  sweeper

	streamStarted sync.Once

	retention atomic.Int64 // how long the table's stream keeps records; 0 while unknown

	stopping context.Context // ends when the drain starts
	stop     context.CancelFunc
	done     chan struct{} // closed when output is closed
	ended    func()        // called when everything has ended, before output is closed

	mu   sync.Mutex
	err  error // fatal
	held int   // messages that the last drain gave up

	// What Status tells, besides what the runs and the sessions know.
	runs      map[*channelRun]struct{}
	clients   []clientSlot          // by worker
	tally     tally                 // of runs and sessions that have ended
	errors    map[failedCall]uint64 // made by the first failure
	lastError *Failure
}

// start connects the clients. run owns everything and closes output and done at the end.
func (s *subscription) start() { go s.run() }

func (s *subscription) run() {
	defer close(s.done)
	defer close(s.output)
	defer s.ended()
	unlink := context.AfterFunc(s.ctx, s.stop)
	defer unlink()
	sweeping, endSweeping := context.WithCancel(context.Background())
	defer endSweeping()
	s.sweeper.wake = make(chan struct{}, 1)
	swept := make(chan struct{})
	go func() { defer close(swept); s.sweep(sweeping) }() // ends after the clients
	var clients sync.WaitGroup
	clients.Add(1)
	go func() { // ends with its one call, or when the subscription stops
		defer clients.Done()
		s.readRetention(s.stopping)
	}()
	for n := range s.cfg.WorkerSize {
		clients.Add(1)
		go func() { // ends after stop, or with a fatal error
			defer clients.Done()
			s.client(n)
		}()
	}
	clients.Wait()
	endSweeping()
	<-swept
	s.awaitHandlers()
	s.logger.Info("Subscription ended", nil)
}

// handlersGrace is how long handlers may take to return once the contexts of
// their messages have ended.
const handlersGrace = time.Second

// awaitHandlers waits for the handlers that still run. Their messages are
// settled or given up, whatever they do.
func (s *subscription) awaitHandlers() {
	returned := make(chan struct{})
	go func() { // ends with the last handler, which is the user's
		defer close(returned)
		s.handlers.Wait()
	}()
	timer := time.NewTimer(handlersGrace)
	defer timer.Stop()
	select {
	case <-returned:
	case <-timer.C:
		s.logger.Error("Handlers go on although the contexts of their messages have ended; they are left alone", ErrDrainTimeout, nil)
	}
}

// steadySession is how long a session must have lasted for the pauses between
// sessions to begin anew.
const steadySession = time.Minute

// client keeps one tunnel client connected until the subscription stops.
func (s *subscription) client(n int) {
	logger := s.logger.With(watermill.LogFields{"worker": n})
	pauses := s.cfg.ReconnectBackoff()
	for {
		started := time.Now()
		ses := newSession(s, logger)
		s.sessionBegins(n, ses)
		err := ses.run(s.stopping.Done())
		s.sessionEnds(n, err)
		if err == nil {
			return
		}
		if classify(err) == fatal {
			s.fail(fmt.Errorf("%s: %w", s.topic, err))
			return
		}
		if time.Since(started) > steadySession {
			pauses = s.cfg.ReconnectBackoff()
		}
		pause := nextPause(pauses)
		logger.Error("Tunnel session ended; connecting again", err, watermill.LogFields{"pause": pause.String()})
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-s.stopping.Done():
			timer.Stop()
			return
		}
	}
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

// fatal returns the error that ended the subscription for good, nil if there is none.
func (s *subscription) fatal() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
