package emulator

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/faults"
	"github.com/watermill-ots/watermill-ots/emulator/internal/tables"
	"github.com/watermill-ots/watermill-ots/emulator/internal/tunnels"
)

// Fault says which requests go wrong and how. Operation, After, Times and
// Chance choose requests; what happens to them may be combined where that makes
// sense (a delay with an error code, say).
type Fault struct {
	// Operation is "PutRow", "tunnel/readrecords" or, with a star at its end,
	// the beginning of such a name. Empty: every operation. Inject refuses what
	// no operation is called.
	Operation string
	// After is how many matching requests pass first.
	After int
	// Times is how many requests are hit. 0: one; negative: until ClearFaults.
	Times int
	// Chance is the probability that a matching request is hit, by the dice of
	// Options.Seed. 0: always.
	Chance float64

	// Delay is how much later the request is handled, unless its client leaves
	// meanwhile.
	Delay time.Duration
	// Hang: no answer comes until the client leaves or the emulator is closed.
	Hang bool
	// Code is the error that is answered instead of handling the request.
	Code string
	// Status is the HTTP status that goes with Code. 0: the usual one.
	Status int
	// Message is the text that goes with Code.
	Message string
	// Break resets the connection.
	Break Break
	// Corrupt changes one byte in the middle of the answer's body.
	Corrupt bool
	// Trickle lets the answer's body come in 16 pieces that far apart.
	Trickle time.Duration
	// Duplicate delivers the request twice; the second answer is sent.
	Duplicate bool
}

// Break is a place at which a fault resets the connection.
type Break = faults.Break

// The places.
const (
	NoBreak       = faults.NoBreak       // the connection stays
	BeforeRequest = faults.BeforeRequest // the request is not handled
	BeforeAnswer  = faults.BeforeAnswer  // the request is handled, nothing is answered
	MidAnswer     = faults.MidAnswer     // the request is handled, half of the answer's body arrives
)

// tricklePieces is how many pieces a trickling body comes in.
const tricklePieces = 16

// Inject adds a fault. Faults are tried in the order in which they were added,
// and a request meets one at most.
//
// A fault that can't happen is refused, with the likely meaning of a misspelt
// operation or code: a test must not pass because its fault never came. A code
// that is not one of the service's needs a Status.
func (e *Emulator) Inject(f Fault) error {
	return e.add(f, func(name string) string { return "Fault." + name })
}

// add is Inject for a caller to whom field spells the names of a Fault's fields.
func (e *Emulator) add(f Fault, field func(string) string) error {
	fault := faults.Fault(f)
	if err := fault.Check(operationNames(), field); err != nil {
		e.log.Error("fault refused", "error", err)
		return fmt.Errorf("injecting a fault: %w", err)
	}
	e.faults.Add(fault)
	return nil
}

// operationNames are what Fault.Operation can name.
func operationNames() []string {
	names := tables.Names()
	for _, op := range tunnels.Operations() {
		names = append(names, tunnelPrefix+op)
	}
	return names
}

// ClearFaults removes all faults, hit or not. Requests that hang go on hanging.
func (e *Emulator) ClearFaults() { e.faults.Clear() }

// faultBefore does what happens before a request is handled, and reports
// whether it is handled at all.
func (e *Emulator) faultBefore(x *exchange, f *faults.Fault) bool {
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

// faultAfter sends the answer of a request that met a fault.
func (e *Emulator) faultAfter(x *exchange, f *faults.Fault, status int) {
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

// sendPart sends the headers for the whole response, and b of its body.
func (x *exchange) sendPart(status int, b []byte) {
	x.w.Header().Set("Content-Length", strconv.Itoa(len(x.response)))
	x.w.WriteHeader(status)
	x.sendMore(b)
}

// sendMore sends b at once. A client that is gone is no matter.
func (x *exchange) sendMore(b []byte) {
	x.extendDeadline()
	x.w.Write(b)
	http.NewResponseController(x.w).Flush()
}

// reset ends the connection as a crashed server would: a TCP client sees a
// reset, not an end.
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

// gate holds requests back while it is shut.
type gate struct {
	mu   sync.Mutex    // guards the following
	open chan struct{} // nil while the gate is open, closed to open it
}

// wait returns when the gate is open, or the request or the emulator ends: then
// it reports false, and the request is not to be handled any more.
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

// Pause stops the world: requests wait until Resume. Time goes on, so clients
// and tunnels may expire meanwhile. A request whose client leaves during the
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

// maxSkew bounds what SkewClock takes: times in nanoseconds end in the year 2262.
const maxSkew = 100 * 365 * 24 * time.Hour

// SkewClock sets how far the service's clock is ahead of the machine's, by 100
// years at most. Log records, cell versions and time to live follow it, within a
// shard without ever going back. Heartbeat deadlines and the retention of logs
// follow it forward only: what it skips expires, and set back it makes nothing
// last longer.
func (e *Emulator) SkewClock(ahead time.Duration) {
	e.aging.Now() // what has passed by now counts
	e.skew.Store(int64(min(max(ahead, -maxSkew), maxSkew)))
	e.aging.Now()
}
