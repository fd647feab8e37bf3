package emulator

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/tables"
	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
)

// Fault says which requests fail and how. Operation, After, Times and Chance
// choose requests. The effects can be combined where that makes sense, for
// example a delay with an error code.
type Fault struct {
	// Operation is "PutRow", "tunnel/readrecords" or, with a star at its end,
	// the beginning of such a name. Empty: every operation. Inject refuses names
	// that match no operation.
	Operation string `json:"operation,omitempty"`
	// After is the number of matching requests that are served normally first.
	After int `json:"after,omitempty"`
	// Times is the number of requests that meet the fault. 0: one; negative: all
	// until ClearFaults.
	Times int `json:"times,omitempty"`
	// Chance is the probability that a matching request meets the fault. The
	// random choices depend on Options.Seed. 0: always.
	Chance float64 `json:"chance,omitempty"`

	// Delay is how much later the request is handled, unless its client
	// disconnects meanwhile.
	Delay time.Duration `json:"delay,omitempty"`
	// Hang leaves the request unanswered until the client disconnects or the
	// emulator is closed.
	Hang bool `json:"hang,omitempty"`
	// Code is the error code to answer with instead of handling the request.
	Code string `json:"code,omitempty"`
	// Status is the HTTP status to answer with Code. 0: the usual one.
	Status int `json:"status,omitempty"`
	// Message is the text to answer with Code.
	Message string `json:"message,omitempty"`
	// Break resets the connection.
	Break Break `json:"break,omitempty"`
	// Corrupt changes one byte in the middle of the response's body.
	Corrupt bool `json:"corrupt,omitempty"`
	// Trickle sends the response's body in 16 pieces with this pause before each.
	Trickle time.Duration `json:"trickle,omitempty"`
	// Duplicate delivers the request twice; the second response is sent.
	Duplicate bool `json:"duplicate,omitempty"`
}

// Break is the moment at which a fault resets the connection.
type Break int

const (
	NoBreak       Break = iota // the connection is not reset
	BeforeRequest              // the request is not handled
	BeforeAnswer               // the request is handled, nothing is sent
	MidAnswer                  // the request is handled, half of the response's body is sent
)

// tricklePieces is the number of pieces in which Trickle sends a body.
const tricklePieces = 16

// Inject adds a fault. Faults are tried in the order in which they were added,
// and a request meets at most one.
//
// A fault that cannot happen is refused, with a suggestion for a misspelt
// operation or code: a test must not pass because its fault never happened. A
// code that is not one of the service's needs a Status.
func (e *Emulator) Inject(f Fault) error {
	return e.inject(f, func(name string) string { return "Fault." + name })
}

// inject is Inject; field returns the name of a Fault's field as the caller
// knows it.
func (e *Emulator) inject(f Fault, field func(string) string) error {
	if err := f.check(operationNames(), field); err != nil {
		e.log.Error("fault refused", "error", err)
		return fmt.Errorf("injecting a fault: %w", err)
	}
	e.faults.add(f)
	return nil
}

// operationNames are all operations that Fault.Operation can name.
func operationNames() []string {
	names := tables.Names()
	for _, op := range append(tunnels.Operations(), tunnels.Missing()...) {
		names = append(names, tunnelPrefix+op)
	}
	return names
}

// ClearFaults removes all faults, whether they have happened or not. Requests
// that hang keep hanging.
func (e *Emulator) ClearFaults() { e.faults.clear() }

// faultBefore applies a fault's effects before the request is handled, and
// reports whether to handle it at all.
func (e *Emulator) faultBefore(x *exchange, f *Fault) bool {
	e.log.Debug("fault", "operation", x.op, "fault", *f)
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
			if x.req.Context().Err() != nil {
				x.reset()
				return false
			}
		case <-x.req.Context().Done():
			x.reset()
			return false
		case <-e.closing:
			x.reset()
			return false
		}
	}
	if f.Hang {
		select {
		case <-x.req.Context().Done():
		case <-e.closing:
		}
		x.reset()
		return false
	}
	if f.Break == BeforeRequest {
		x.reset()
		return false
	}
	return true
}

// faultAfter sends the response to a request that met a fault.
func (e *Emulator) faultAfter(x *exchange, f *Fault, status int) {
	if f.Break == BeforeAnswer {
		x.reset()
		return
	}
	if f.Corrupt && len(x.response) > 0 {
		x.response[len(x.response)/2] ^= 0xFF
	}
	switch {
	case f.Break == MidAnswer:
		x.sendPart(status, x.response[:len(x.response)/2])
		x.reset()
	case f.Trickle > 0:
		e.trickle(x, f.Trickle, status)
	default:
		x.send(status)
	}
}

func (e *Emulator) trickle(x *exchange, pause time.Duration, status int) {
	rest := x.response
	x.sendPart(status, nil)
	size := max(1, (len(rest)+tricklePieces-1)/tricklePieces)
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for len(rest) > 0 {
		select {
		case <-ticker.C:
		case <-x.req.Context().Done():
			return
		case <-e.closing:
			x.reset()
			return
		}
		n := min(size, len(rest))
		x.sendMore(rest[:n])
		rest = rest[n:]
	}
}

// sendPart sends the headers of the whole response, and b as a part of its body.
func (x *exchange) sendPart(status int, b []byte) {
	x.w.Header().Set("Content-Length", strconv.Itoa(len(x.response)))
	x.w.WriteHeader(status)
	x.sendMore(b)
}

// sendMore sends b at once. The client may have disconnected already.
func (x *exchange) sendMore(b []byte) {
	x.extendDeadline()
	x.w.Write(b)
	http.NewResponseController(x.w).Flush()
}

// reset closes the connection as a crashed server would: a TCP client sees a
// reset, not an orderly end.
func (x *exchange) reset() {
	conn, _, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // the server closes the connection
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// gate makes requests wait while it is closed.
type gate struct {
	mu   sync.Mutex    // guards the following
	open chan struct{} // nil: the gate is open; closed when the gate opens
}

// wait returns true when the gate is open, and false when the request or the
// emulator has ended, so that the request must not be handled.
func (g *gate) wait(ctx context.Context, closing <-chan struct{}) bool {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	if open == nil {
		return true
	}
	select {
	case <-open:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	case <-closing:
		return false
	}
}

// Pause makes all requests wait until Resume. Time continues, so clients and
// tunnels may expire meanwhile. A request whose client disconnects during the
// pause is not handled, nor is one that still waits when the emulator is closed.
func (e *Emulator) Pause() {
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	if e.gate.open == nil {
		e.gate.open = make(chan struct{})
	}
}

// Resume ends Pause.
func (e *Emulator) Resume() {
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	if e.gate.open != nil {
		close(e.gate.open)
		e.gate.open = nil
	}
}

// maxSkew bounds the argument of SkewClock: times in nanoseconds end in the year
// 2262.
const maxSkew = 100 * 365 * 24 * time.Hour

// SkewClock sets how far the service's clock is ahead of the machine's, by at
// most 100 years. Log records, cell versions and time to live follow it; the
// times of a shard's records never go back. Heartbeat deadlines and the retention
// of logs follow it forward only: when it jumps forward, everything due in
// between expires, and when it is set back, nothing lasts longer.
func (e *Emulator) SkewClock(ahead time.Duration) {
	e.aging.Now() // counts the time that has passed so far
	e.skew.Store(int64(min(max(ahead, -maxSkew), maxSkew)))
	e.aging.Now()
}
