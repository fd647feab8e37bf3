package subscriber

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"

	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// session is one connection of one tunnel client, from connect to shutdown. The
// SDK's worker does connect, heartbeats and the state machine of the channels;
// session owns the worker, and is the ChannelDialer that it gives channels to.
//
// Invariants:
//   - conns has exactly the conns that have a run; run waits for all of them.
//   - Once closed is set no run starts any more.
//   - The shutdown call is sent only after every run has ended, that is after
//     its last checkpoint was answered or given up.
//   - When the transport's lease is over, every run is fenced (law L4), whatever the
//     worker is doing: expire is called by a timer of its own, and by what finds the
//     lease over before the timer does.
type session struct {
	*sessionConfig
	logger watermill.LoggerAdapter
	worker int // number of the subscription's client that it belongs to; set before run

	transport   *workerTransport
	lastFailure atomic.Pointer[Failure] // of a heartbeat
	reopen      *reopenings
	ctx         context.Context // of the transport and of all runs
	cancel      context.CancelCauseFunc

	mu     sync.Mutex
	closed bool // no run starts any more
	conns  map[*conn]struct{}
	runs   sync.WaitGroup

	expired sync.Once
}

// sessionConfig is what the sessions of a subscription share.
type sessionConfig struct {
	*tunnelInfo
	*lifetime
	observer *observer
	channels *channels
	ghosts   ghosts
}

func newSession(c *sessionConfig, logger watermill.LoggerAdapter) *session {
	ctx, cancel := context.WithCancelCause(c.channels.dest.values)
	s := &session{
		sessionConfig: c, logger: logger, ctx: ctx, cancel: cancel,
		transport: newWorkerTransport(ctx, c.endpoint, c.cfg.HeartbeatInterval, c.cfg.HeartbeatTimeout, logger),
		reopen:    newReopenings(c.cfg.ReconnectBackoff),
		conns:     make(map[*conn]struct{}),
	}
	s.transport.tag = c.cfg.ClientTag
	s.transport.noteError = func(op string, err error) { s.lastFailure.Store(c.observer.calls.note(op, err)) }
	return s
}

// run connects and works until the subscription stops (nil) or the session ends by
// itself (its error). When it returns, no goroutine of the session is left, and
// the service knows that the client ended, if it could be reached.
func (s *session) run() error {
	defer s.transport.background.Wait()
	defer s.cancel(errSessionOver)
	// Nothing is connected yet: Close need not wait.
	starting, started := context.WithCancelCause(s.ctx)
	unlink := context.AfterFunc(s.stopping, func() { started(errSessionOver) })
	_, err := s.endpoint.Creds.Get(starting)
	unlink()
	started(nil)
	if s.stopping.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	worker, err := s.newWorker(s.transport, min(tick, s.cfg.HeartbeatInterval))
	if err != nil {
		return fmt.Errorf("tunnel worker: %w", tunnelapi.FromSDK("connect", err))
	}
	s.transport.background.Go(func() { // ends with s.ctx
		if s.transport.lease.wait(s.ctx) {
			s.expire()
		}
	})
	ended := make(chan error, 1)
	go func() { ended <- worker.ConnectAndWorking() }() // ends with Shutdown, or with s.ctx; received below

	select {
	case err = <-ended:
		err = tunnelapi.FromSDK(s.transport.stage(), err)
		s.close((*conn).fence)
		worker.Shutdown()
	case <-s.stopping.Done():
		s.close((*conn).drain)
		s.stopWorker(worker, ended)
		err = nil
	}
	s.runs.Wait()
	s.cancel(errSessionOver)
	s.release()
	return err
}

// expire implements client. Further calls wait for the first one.
func (s *session) expire() {
	s.expired.Do(func() {
		s.close((*conn).fence)
		s.cancel(s.transport.lapsed())
	})
}

// heartbeat implements client.
func (s *session) heartbeat() { s.transport.heartbeatNow() }

// close lets no further run start, and ends each one by end.
func (s *session) close(end func(*conn)) {
	s.mu.Lock()
	s.closed = true
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		end(c)
	}
}

// stopWorker waits for the runs to end, with heartbeats still going out, and
// then for the worker.
func (s *session) stopWorker(worker tunnel.TunnelWorker, ended <-chan error) {
	runsEnded := make(chan struct{})
	go func() { // ends when the runs do, which their CloseTimeout bounds; awaited below
		s.runs.Wait()
		close(runsEnded)
	}()
	select {
	case <-s.transport.connected:
		select {
		case <-runsEnded:
			// The worker would finish its heartbeat before it makes the shutdown call, and that may
			// take long: both end here, and release makes the call.
			s.cancel(errSessionOver)
			worker.Shutdown()
			<-ended
		case <-ended: // the client was lost while draining
			s.close((*conn).fence)
			worker.Shutdown()
		}
	case <-ended:
		worker.Shutdown()
	default: // connecting: give up; Shutdown would race with the worker's connect
		s.cancel(errSessionOver)
		<-ended
		worker.Shutdown()
	}
	<-runsEnded
}

// newWorker returns a worker of the SDK's on the given transport.
func (s *session) newWorker(rt http.RoundTripper, every time.Duration) (tunnel.TunnelWorker, error) {
	return s.endpoint.SDK(rt).NewTunnelWorker(s.tunnelID, &tunnel.TunnelWorkerConfig{
		HeartbeatInterval: every,
		// Sent to the service at connect. The worker's own check against it never
		// fires before the transport's, which counts real heartbeats only.
		HeartbeatTimeout: s.cfg.HeartbeatTimeout,
		ChannelDialer:    s,
		ProcessorFactory: noProcessor{},
		LogConfig:        sdkLogConfig(),
		LogWriteSyncer:   sdkLogWriter{s.logger},
	})
}

// noProcessor stands for the SDK's processors: conn does their work.
type noProcessor struct{}

func (noProcessor) NewProcessor(string, string, string, tunnel.Checkpointer) (tunnel.ChannelProcessor, error) {
	return nil, nil
}

// ChannelDial implements tunnel.ChannelDialer. The SDK calls it from its state machine, for each
// channel that is new to the client; token and processor are stand-ins.
func (s *session) ChannelDial(_, clientID, channelID, _ string, _ tunnel.ChannelProcessor, state *tunnel.TunnelStateMachine) tunnel.ChannelConn {
	return &conn{session: s, id: channelID, clientID: clientID, state: state}
}

// open implements runs.
func (s *session) open(c *conn) *channelRun {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.conns[c] = struct{}{}
	s.runs.Add(1)
	s.mu.Unlock()
	r := s.channels.open(assignment{
		id: c.id, clientID: c.clientID, worker: s.worker, session: s.ctx, logger: s.logger,
		client: s, lease: s.transport.lease, reopen: s.reopen,
	})
	go func() { // ends with the channel; run waits for it
		defer s.runs.Done()
		end := r.main()
		s.channels.ended(r, end)
		c.ended(end)
	}()
	return r
}

// dismiss implements runs: close does not end c any more. Once the caller has given c.mu up, c
// may be opened again.
func (s *session) dismiss(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}
