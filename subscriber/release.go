package subscriber

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"github.com/cenkalti/backoff/v4"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
)

const (
	// releaseTimeout bounds one call that ends a client at the service.
	releaseTimeout = 2 * time.Second
	// releaseTries is how often it is made when the subscription ends: then there is no
	// later session that could make it.
	releaseTries = 3
)

// release tells the service that the session's client ends. The subscription's next
// session tries it again if that fails (endGhosts).
func (s *session) release() {
	id := s.transport.client()
	if id == "" {
		return
	}
	ctx, cancel := s.sub.lastCalls()
	defer cancel()
	tries := 1
	if s.sub.stopping.Err() != nil {
		tries = releaseTries
	}
	pauses := releasePauses()
	for {
		over, err := s.endClient(ctx, id)
		if over {
			return
		}
		if tries--; tries == 0 || !sleep(ctx, nextPause(pauses)) {
			s.sub.noteGhost(id, time.Now().Add(s.sub.cfg.HeartbeatTimeout))
			s.logger.Info("Could not end the tunnel client at the service; its channels stay with it until HeartbeatTimeout, or until the next session ends it", watermill.LogFields{
				"client_id": id, "err": fmt.Sprint(err),
			})
			return
		}
	}
}

func releasePauses() backoff.BackOff { return exponential(200*time.Millisecond, 5*time.Second)() }

// sleep waits for d; false when ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// endGhosts ends the clients of earlier sessions that could not be ended then. As long
// as the service takes them for alive they hold a share of the channels that nobody
// reads. It ends with the session.
func (s *session) endGhosts() {
	pauses := releasePauses()
	for {
		ghosts := s.sub.takeGhosts()
		if len(ghosts) == 0 {
			return
		}
		for id, until := range ghosts {
			if time.Now().After(until) {
				continue // the service has given it up
			}
			if over, err := s.endClient(s.ctx, id); over {
				s.logger.Info("Tunnel client of an earlier session ended at the service", watermill.LogFields{"ended": id})
			} else {
				s.sub.noteGhost(id, until)
				s.logger.Debug("Could not end the tunnel client of an earlier session", watermill.LogFields{"ended": id, "err": fmt.Sprint(err)})
			}
		}
		if !sleep(s.ctx, nextPause(pauses)) {
			return
		}
	}
}

// endClient makes the call that ends a client. It reports whether the client is over:
// ended by the call, or not known any more.
func (s *session) endClient(ctx context.Context, id string) (over bool, err error) {
	connect, err := proto.Marshal(protoadapt.MessageV2Of(&protocol.ConnectResponse{ClientId: &id}))
	if err != nil {
		return false, fmt.Errorf("shutdown: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	if ctx.Err() != nil {
		return false, fmt.Errorf("shutdown: %w", context.Cause(ctx))
	}
	rt := &releaseTransport{
		workerTransport: newWorkerTransport(ctx, s.sub.endpoint, time.Hour, 2*time.Hour, s.logger),
		connect:         connect,
	}
	worker, err := s.newWorker(rt, time.Hour)
	if err != nil {
		return false, fmt.Errorf("shutdown: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- worker.ConnectAndWorking() }() // ends with Shutdown; received below
	<-rt.connected                                      // at once: connect is answered locally
	worker.Shutdown()
	err = fromSDK("shutdown", <-ended)
	if rt.isReleased() {
		return true, nil
	}
	c := classify(err)
	return c == lost || c == fatal, err
}

// noteGhost keeps the id of a client that could not be ended. The service gives it up by itself at until.
func (s *subscription) noteGhost(id string, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ghosts == nil {
		s.ghosts = make(map[string]time.Time)
	}
	s.ghosts[id] = until
}

// takeGhosts hands the clients that are to be ended to the caller.
func (s *subscription) takeGhosts() map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	ghosts := s.ghosts
	s.ghosts = nil
	return ghosts
}

const (
	// closeGrace is the time for the last calls to the service, counted from the end of
	// CloseTimeout. With handlersGrace and credentialsGrace it stays below the five
	// seconds that the documentation promises.
	closeGrace = 3500 * time.Millisecond
	// lastCommitTimeout is the part of it for the last commits.
	lastCommitTimeout = 2500 * time.Millisecond
)

var errCloseOver = errors.New("CloseTimeout and the time for the last calls are over")

// lastCalls returns a context for calls that end a session. It does not end with the
// session, and once the subscription stops it ends in time for Close to keep its bound.
func (s *subscription) lastCalls() (context.Context, context.CancelFunc) {
	if s.closeOver == nil { // in tests of a session alone
		return context.WithCancel(context.Background())
	}
	return context.WithCancel(s.closeOver)
}

// boundClose starts the time for the drain and the last calls.
func (s *subscription) boundClose() {
	time.AfterFunc(s.cfg.CloseTimeout+closeGrace, func() { s.endClose(errCloseOver) })
}
