package subscriber

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"github.com/cenkalti/backoff/v4"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/watermill-ots/watermill-ots/internal/tunnelapi"
)

// ghosts are the tunnel clients of a subscription's earlier sessions that could not be ended
// at the service: as long as it takes them for alive they hold a share of the channels that is not
// read. Safe for concurrent use.
type ghosts struct {
	mu  sync.Mutex
	ids map[string]time.Time // and when the service gives them up by itself
}

// add keeps the id of a client that could not be ended.
func (g *ghosts) add(id string, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ids == nil {
		g.ids = make(map[string]time.Time)
	}
	g.ids[id] = until
}

// take returns the clients to end, and forgets them.
func (g *ghosts) take() map[string]time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	ids := g.ids
	g.ids = nil
	return ids
}

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
	ctx, cancel := s.lastCalls()
	defer cancel()
	tries := 1
	if s.stopping.Err() != nil {
		tries = releaseTries
	}
	pauses := releasePauses()
	for {
		over, err := s.endClient(ctx, id)
		if over {
			return
		}
		if tries--; tries == 0 || !sleep(ctx, nextPause(pauses)) {
			s.ghosts.add(id, time.Now().Add(s.cfg.HeartbeatTimeout))
			s.logger.Info("Could not end the tunnel client at the service; its channels stay with it until HeartbeatTimeout, or until the next session ends it", watermill.LogFields{
				"client_id": id, "err": fmt.Sprint(err),
			})
			return
		}
	}
}

func releasePauses() backoff.BackOff { return exponential(200*time.Millisecond, 5*time.Second)() }

// endGhosts ends the clients of earlier sessions that could not be ended then. It ends with the session.
func (s *session) endGhosts() {
	pauses := releasePauses()
	for {
		ghosts := s.ghosts.take()
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
				s.ghosts.add(id, until)
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
		workerTransport: newWorkerTransport(ctx, s.endpoint, time.Hour, 2*time.Hour, s.logger),
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
	err = tunnelapi.FromSDK("shutdown", <-ended)
	if rt.isReleased() {
		return true, nil
	}
	c := tunnelapi.Classify(err)
	return c == notOurs || c == fatal, err
}

// releaseTransport is the RoundTripper under a worker that only exists to send
// the shutdown call of a client: the SDK has no other way to make it. It answers connect
// with the client's id, and heartbeats with no channels.
type releaseTransport struct {
	*workerTransport
	connect []byte
}

// RoundTrip implements http.RoundTripper.
func (t *releaseTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	switch path.Base(req.URL.Path) {
	case "connect":
		return answer(req, http.StatusOK, t.connect), nil
	case "heartbeat":
		t.connectedOnce.Do(func() { close(t.connected) })
		return answer(req, http.StatusOK, nil), nil
	}
	return t.workerTransport.RoundTrip(req)
}
