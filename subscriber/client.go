package subscriber

import (
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
	"github.com/watermill-ots/watermill-ots/ots"
)

// steadySession is how long a session must have lasted for the pauses between
// sessions to begin anew.
const steadySession = time.Minute

// client keeps tunnel client n connected until the subscription stops.
func (s *subscription) client(n int) {
	logger := s.logger.With(watermill.LogFields{"worker": n})
	pauses := s.cfg.ReconnectBackoff()
	for {
		started := time.Now()
		err := s.session(n, logger)
		if err == nil {
			return
		}
		if tunnelapi.Classify(err) == fatal {
			s.fail(fmt.Errorf("%s: %w%s", s.topic, err, s.cfg.anewAdvice(err)))
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
		if s.observer.callFailed(clientName(n), "connect", err) {
			logger.Error("Tunnel session ended; connecting again", err, fields)
		} else {
			logger.Debug("Tunnel session ended; connecting again", fields.Add(watermill.LogFields{"err": err.Error()}))
		}
		if !sleep(s.stopping, pause) {
			return
		}
	}
}

// session runs one session of tunnel client n. It returns nil when the subscription stops.
func (s *subscription) session(n int, logger watermill.LoggerAdapter) error {
	ses := newSession(&s.sessionConfig, logger)
	ses.worker = n
	ses.transport.noteConnected = func() { s.noteConnected(n, ses) }
	s.clients.sessionBegins(n, s.cfg.WorkerSize, ses)
	err := ses.run()
	var failure *Failure
	if err != nil {
		failure = s.observer.calls.note("connect", err)
	}
	s.clients.sessionEnds(n, failure)
	return err
}

// noteConnected notes that the service has admitted tunnel client n.
func (s *subscription) noteConnected(n int, ses *session) {
	s.channels.clientConnected()
	ses.logger.Info("Connected to the tunnel", watermill.LogFields{
		"client_id": ses.transport.client(), "heartbeat_interval": s.cfg.HeartbeatInterval.String(), "heartbeat_timeout": s.cfg.HeartbeatTimeout.String(),
	})
	s.observer.callSucceeded(clientName(n), "connect", "heartbeat")
	ses.transport.background.Go(ses.endGhosts) // ends with the session
}

// anewAdvice says what to do about a tunnel that is of no use any more. With OnGapRecreate there is
// nothing to do.
func (c *Config) anewAdvice(err error) string {
	switch {
	case c.OnGap == OnGapRecreate:
		return ""
	case errors.Is(err, ots.ErrTunnelGone):
		return "; the tunnel or its table was deleted: create it anew and start again, and expect that changes made in between are missing; or let OnGapRecreate (on_gap: recreate) create it"
	case errors.Is(err, ots.ErrTunnelExpired):
		return "; delete the tunnel and create it anew as BaseAndStream, which reads the whole table again, or let OnGapRecreate (on_gap: recreate) do that"
	}
	return ""
}
