package subscriber

import (
	"sync"
	"time"
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

// take hands the clients that are to be ended to the caller.
func (g *ghosts) take() map[string]time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	ids := g.ids
	g.ids = nil
	return ids
}
