package subscriber_test

import (
	"errors"
	"net/http"
	"sync/atomic"
)

// cutTransport is a transport whose requests fail once it is dead, as those of a
// process do that was killed: nothing arrives.
type cutTransport struct {
	transport http.RoundTripper
	dead      atomic.Bool
}

var errCut = errors.New("cut off")

func (c *cutTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.dead.Load() {
		return nil, errCut
	}
	return c.transport.RoundTrip(r)
}
