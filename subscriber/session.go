package subscriber

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"github.com/cenkalti/backoff/v4"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
)

// session is one connection of one tunnel client, from connect to shutdown. The
// SDK's worker does connect, heartbeats and the state machine of the channels;
// session owns the worker, and is the ChannelDialer that it gives channels to.
//
// Invariants:
//   - conns has exactly the conns that have a run; run waits for all of them.
//   - Once stopping is set no run starts any more.
//   - The shutdown call is sent only after every run has ended, that is after
//     its last checkpoint was answered.
type session struct {
	sub    *subscription
	logger watermill.LoggerAdapter

	transport *workerTransport
	ctx       context.Context // of the transport and of all runs
	cancel    context.CancelCauseFunc

	mu       sync.Mutex
	stopping bool
	conns    map[*conn]struct{}
	failing  map[string]backoff.BackOff // channels that could not be read, by id
	runs     sync.WaitGroup
}

func newSession(sub *subscription, logger watermill.LoggerAdapter) *session {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(sub.ctx))
	s := &session{
		sub: sub, logger: logger, ctx: ctx, cancel: cancel,
		transport: newWorkerTransport(ctx, sub.endpoint, sub.cfg.HeartbeatInterval, sub.cfg.HeartbeatTimeout, logger),
		conns:     make(map[*conn]struct{}),
		failing:   make(map[string]backoff.BackOff),
	}
	s.transport.noteError = func(op string, err error) { sub.noteError(op, err) }
	return s
}

// run connects and works until stop is closed (nil) or the session ends by
// itself (its error). When it returns, no goroutine of the session is left, and
// the service was told that the client ended, if it could be reached.
func (s *session) run(stop <-chan struct{}) error {
	defer s.cancel(errSessionOver)
	if _, err := s.sub.endpoint.creds.get(s.ctx); err != nil {
		return err
	}
	worker, err := s.newWorker(s.transport, min(tick, s.sub.cfg.HeartbeatInterval))
	if err != nil {
		return fmt.Errorf("tunnel worker: %w", fromSDK("connect", err))
	}
	ended := make(chan error, 1)
	go func() { ended <- worker.ConnectAndWorking() }() // ends with Shutdown, or with s.ctx; received below

	select {
	case err = <-ended:
		err = fromSDK(s.transport.stage(), err)
		s.stop((*conn).lose)
		worker.Shutdown()
	case <-stop:
		s.stop((*conn).drain)
		s.stopWorker(worker, ended)
		err = nil
	}
	s.runs.Wait()
	s.release()
	return err
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

// reopenPause returns how long a channel that could not be read is kept.
func (s *session) reopenPause(channelID string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.failing[channelID]
	if !ok {
		b = s.sub.cfg.ReconnectBackoff()
		s.failing[channelID] = b
	}
	return nextPause(b)
}

// readable ends what reopenPause began: the channel can be read.
func (s *session) readable(channelID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.failing, channelID)
}

// runEnded undoes admit.
func (s *session) runEnded(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.runs.Done()
}

// release tells the service that the client ended, unless the worker has done
// so already. The worker only does when its loop sees the end before its next
// tick; another worker, whose ticks never come, does it for sure.
func (s *session) release() {
	id, released := s.transport.client()
	if id == "" || released {
		return
	}
	connect, err := proto.Marshal(protoadapt.MessageV2Of(&protocol.ConnectResponse{ClientId: &id}))
	if err != nil {
		s.logger.Error("Cannot end the tunnel client at the service", err, nil)
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), releaseTimeout)
	defer cancel()
	rt := &releaseTransport{
		workerTransport: newWorkerTransport(ctx, s.sub.endpoint, time.Hour, 2*time.Hour, s.logger),
		connect:         connect,
	}
	worker, err := s.newWorker(rt, time.Hour)
	if err != nil {
		s.logger.Error("Cannot end the tunnel client at the service", err, nil)
		return
	}
	ended := make(chan error, 1)
	go func() { ended <- worker.ConnectAndWorking() }() // ends with Shutdown; received below
	<-rt.connected                                      // at once: connect is answered locally
	worker.Shutdown()
	err = <-ended
	if _, released := rt.client(); !released && classify(fromSDK("shutdown", err)) != lost {
		s.logger.Info("Could not end the tunnel client at the service; its channels stay with it until HeartbeatTimeout", watermill.LogFields{
			"client_id": id, "err": fmt.Sprint(fromSDK("shutdown", err)),
		})
	}
}

// conn is a channel as the SDK's state machine sees it: it takes the statuses
// that the service sends and reports ours.
//
// Invariants:
//   - version only grows; a status with an older one is ignored. A report of ours has version+1.
//   - At most one run is active. mu is taken before the session's. Closed is true while there is none, so that the
//     state machine drops the conn with its report; a later OPEN starts a new run
//     in a new conn.
//   - Once dropped no run starts: the state machine forgot the conn, and notices still
//     under way (it sends them from goroutines of their own) are of the past.
type conn struct {
	session  *session
	id       string
	clientID string
	state    *tunnel.TunnelStateMachine

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
	c.mu.Lock()
	c.run = nil
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
	c.session.runEnded(c)
}
