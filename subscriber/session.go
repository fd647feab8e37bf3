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
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"github.com/cenkalti/backoff/v4"
)

// session is one connection of one tunnel client, from connect to shutdown. The
// SDK's worker does connect, heartbeats and the state machine of the channels;
// session owns the worker, and is the ChannelDialer that it gives channels to.
//
// Invariants:
//   - conns has exactly the conns that have a run; run waits for all of them.
//   - Once stopping is set no run starts any more.
//   - The shutdown call is sent only after every run has ended, that is after
//     its last checkpoint was answered or given up.
//   - When the transport's lease is over, every run is fenced (law L4), whatever the
//     worker is doing: expire is called by a timer of its own, and by whoever
//     finds the lease over before the timer does.
type session struct {
	sub    *subscription
	logger watermill.LoggerAdapter
	worker int // number of the subscription's client that it belongs to; set before run

	transport   *workerTransport
	lastFailure atomic.Pointer[Failure] // of a heartbeat
	ctx         context.Context         // of the transport and of all runs
	cancel      context.CancelCauseFunc

	mu       sync.Mutex
	stopping bool
	conns    map[*conn]struct{}
	failing  map[string]*reopening // channels that could not be read or committed, by id
	runs     sync.WaitGroup

	expired sync.Once
}

// reopening is what is known of a channel that the service lists as ours, and whose
// calls it refuses.
type reopening struct {
	pauses    backoff.BackOff
	op        string    // the call that failed last
	notBefore time.Time // when its next run may begin
}

func newSession(sub *subscription, logger watermill.LoggerAdapter) *session {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(sub.ctx))
	s := &session{
		sub: sub, logger: logger, ctx: ctx, cancel: cancel,
		transport: newWorkerTransport(ctx, sub.endpoint, sub.cfg.HeartbeatInterval, sub.cfg.HeartbeatTimeout, logger),
		conns:     make(map[*conn]struct{}),
		failing:   make(map[string]*reopening),
	}
	s.transport.tag = sub.cfg.ClientTag
	s.transport.noteError = func(op string, err error) { s.lastFailure.Store(sub.noteError(op, err)) }
	return s
}

// run connects and works until the subscription stops (nil) or the session ends by
// itself (its error). When it returns, no goroutine of the session is left, and
// the service was told that the client ended, if it could be reached.
func (s *session) run() error {
	defer s.transport.background.Wait()
	defer s.cancel(errSessionOver)
	stopping := s.sub.stopping
	// Nothing is connected yet: Close need not wait.
	starting, started := context.WithCancelCause(s.ctx)
	unlink := context.AfterFunc(stopping, func() { started(errSessionOver) })
	_, err := s.sub.endpoint.creds.Get(starting)
	unlink()
	started(nil)
	if stopping.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	worker, err := s.newWorker(s.transport, min(tick, s.sub.cfg.HeartbeatInterval))
	if err != nil {
		return fmt.Errorf("tunnel worker: %w", fromSDK("connect", err))
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
		err = fromSDK(s.transport.stage(), err)
		s.stop((*conn).lose)
		worker.Shutdown()
	case <-stopping.Done():
		s.stop((*conn).drain)
		s.stopWorker(worker, ended)
		err = nil
	}
	s.runs.Wait()
	s.cancel(errSessionOver)
	s.release()
	return err
}

// expire ends the session at once: its client may be lost. Further calls wait for the first one.
func (s *session) expire() {
	s.expired.Do(func() {
		s.stop((*conn).lose)
		s.cancel(s.transport.lapsed())
	})
}

// stop lets no further run start, and ends each one by end.
func (s *session) stop(end func(*conn)) {
	s.mu.Lock()
	s.stopping = true
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
			s.stop((*conn).lose)
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

// newWorker makes a worker of the SDK on the given transport.
func (s *session) newWorker(rt http.RoundTripper, every time.Duration) (tunnel.TunnelWorker, error) {
	return s.sub.endpoint.client(rt).NewTunnelWorker(s.sub.tunnelID, &tunnel.TunnelWorkerConfig{
		HeartbeatInterval: every,
		// Sent to the service at connect. The worker's own check against it never
		// fires before the transport's, which counts real heartbeats only.
		HeartbeatTimeout: s.sub.cfg.HeartbeatTimeout,
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
// channel that is new to the client; token and processor are stand-ins of ours.
func (s *session) ChannelDial(_, clientID, channelID, _ string, _ tunnel.ChannelProcessor, state *tunnel.TunnelStateMachine) tunnel.ChannelConn {
	return &conn{session: s, id: channelID, clientID: clientID, state: state}
}

// admit reports whether c may start a run, and counts it.
func (s *session) admit(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.conns[c] = struct{}{}
	s.runs.Add(1)
	return true
}

// reopenPause returns how long a channel is to rest whose call op the service
// refused. ReconnectBackoff and what it returns are the user's, so they are not called under
// mu. That is safe: a channel has one run at a time.
func (s *session) reopenPause(channelID, op string) time.Duration {
	s.mu.Lock()
	f := s.failing[channelID]
	s.mu.Unlock()
	if f == nil {
		f = &reopening{pauses: s.sub.cfg.ReconnectBackoff()}
	}
	pause := nextPause(f.pauses)
	s.mu.Lock()
	f.op, f.notBefore = op, time.Now().Add(pause)
	s.failing[channelID] = f
	s.mu.Unlock()
	return pause
}

// reopenIn returns how long the next run of a channel has to wait before its first call.
func (s *session) reopenIn(channelID string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.failing[channelID]; f != nil {
		return time.Until(f.notBefore)
	}
	return 0
}

// recovered ends what reopenPause began: a call succeeds that says that what failed is over. A
// page that was read says so of all but checkpoints.
func (s *session) recovered(channelID, op string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.failing[channelID]; f != nil && (op == "checkpoint" || f.op != "checkpoint") {
		delete(s.failing, channelID)
	}
}

// dismiss takes c out of the conns that stop ends. The caller holds c.mu: once it has given
// that up, c may be admitted again.
func (s *session) dismiss(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// reporter takes the statuses that conns report: the SDK's state machine.
type reporter interface {
	UpdateStatus(*tunnel.ChannelStatus)
}

// conn is a channel as the SDK's state machine sees it: it takes the statuses
// that the service sends and reports ours.
//
// Invariants:
//   - version only grows; a status with an older one is ignored. A report of ours has version+1.
//   - At most one run is active, and the session knows c exactly while there is one, so that
//     stop ends it. mu is taken before the session's. Closed is true while there is none, so that the
//     state machine drops the conn with its report; a later OPEN starts a new run
//     in a new conn.
//   - Once dropped no run starts: the state machine forgot the conn, and notices still
//     under way (it sends them from goroutines of their own) are of the past.
type conn struct {
	session  *session
	id       string
	clientID string
	state    reporter

	mu      sync.Mutex
	version int64
	run     *channelRun
	dropped bool
}

// NotifyStatus implements tunnel.ChannelConn. The SDK calls it from a goroutine of its own for each
// channel after each heartbeat, in no order.
func (c *conn) NotifyStatus(st *tunnel.ChannelStatus) {
	c.mu.Lock()
	if c.dropped || st.Version < c.version {
		c.mu.Unlock()
		return
	}
	c.version = st.Version
	active := c.run
	switch st.Status {
	case protocol.ChannelStatus_OPEN:
		if active == nil && c.session.admit(c) {
			c.run = newChannelRun(c.session, c)
			go c.run.main() // ends with the channel; session.run waits for it
		}
		c.mu.Unlock()
	case protocol.ChannelStatus_CLOSING:
		if active != nil {
			c.mu.Unlock()
			active.drain()
			return
		}
		report := c.report(protocol.ChannelStatus_CLOSE)
		c.mu.Unlock()
		c.state.UpdateStatus(report)
	default: // CLOSE, TERMINATED: the channel is somebody else's, or at its end
		c.mu.Unlock()
		c.lose()
	}
}

// report makes the next status report. The caller holds mu.
func (c *conn) report(status protocol.ChannelStatus) *tunnel.ChannelStatus {
	c.version++
	return &tunnel.ChannelStatus{ChannelId: c.id, Version: c.version, Status: status}
}

// Closed implements tunnel.ChannelConn. The state machine asks only when it drops
// a channel from its table if it is closed, or calls Close if it is not.
func (c *conn) Closed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run == nil {
		c.dropped = true
	}
	return c.run == nil
}

// Close implements tunnel.ChannelConn: the service does not list the channel
// any more, or the session is over.
func (c *conn) Close() {
	c.mu.Lock()
	c.dropped = true
	c.mu.Unlock()
	c.lose()
}

func (c *conn) lose() {
	if r := c.active(); r != nil {
		r.fence(ErrChannelLost)
	}
}

func (c *conn) drain() {
	if r := c.active(); r != nil {
		r.drain()
	}
}

func (c *conn) active() *channelRun {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.run
}

// runEnded is called by r as its last act.
func (c *conn) runEnded(r *channelRun, end runEnd) {
	defer c.session.runs.Done()
	c.mu.Lock()
	c.run = nil
	c.session.dismiss(c)
	var report *tunnel.ChannelStatus
	switch end {
	case endTerminated:
		report = c.report(protocol.ChannelStatus_TERMINATED)
	case endClosed:
		report = c.report(protocol.ChannelStatus_CLOSE)
	}
	c.mu.Unlock()
	if report != nil {
		c.state.UpdateStatus(report)
	}
}
