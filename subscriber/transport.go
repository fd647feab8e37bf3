package subscriber

import (
	"context"
	"errors"
	"net/http"
	"time"
)

const (
	// A call is bounded by HeartbeatTimeout, within these bounds: an answer that takes
	// longer than a channel may be silent comes too late. Calls of channels are bounded by
	// their patience, too. The SDK's own bound is 60 s.
	minCallTimeout, maxCallTimeout = 5 * time.Second, 30 * time.Second
)

// maxIdle is how many idle connections are kept: as many as there may be channels.
const maxIdle = 1024

// pooled is the default transport. When a call on one of its connections got no answer in
// time, the idle ones are given up, too: what swallowed that call, a firewall or a
// machine that is gone, has most likely swallowed them all, and each would cost the
// next call the same time.
type pooled struct{ *http.Transport }

// RoundTrip implements http.RoundTripper.
func (p pooled) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := p.Transport.RoundTrip(req)
	if err != nil && req.Context().Err() == context.DeadlineExceeded {
		p.CloseIdleConnections()
	}
	return resp, err
}

// errSessionOver is the cause of calls that end because the session ends.
var errSessionOver = errors.New("the tunnel session is over")
