package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/internal/probe"
)

// failuresInARow is how many different messages must fail, with no success in
// between, until the gate closes.
const failuresInARow = 8

// gate holds messages back before Process, including the forward of a pipeline
// without batchers, during an outage: while nothing succeeds there. Single messages
// pass as probes, with growing pauses, until one succeeds. Batchers have the same
// (batching.Batcher.Probe).
//
// Invariants:
//   - shut is set under mu, and only while outage is not nil.
//   - There is at most one probe, and probing is true until its outcome is known.
type gate struct {
	stopping <-chan struct{}
	logger   watermill.LoggerAdapter

	shut     atomic.Bool  // messages read it without the lock
	failures atomic.Int64 // different messages in a row; written under mu

	mu      sync.Mutex // guards what follows
	last    string     // record that failed last
	outage  *batching.Outage
	pause   time.Duration
	probing bool
	logged  time.Time     // when the outage was last logged; zero: never
	touched time.Time     // when a message failed last
	token   chan struct{} // capacity 1: full when the next probe may pass
	open    chan struct{} // closed at the end of the outage
	timer   *time.Timer
}

func newGate(stopping <-chan struct{}, logger watermill.LoggerAdapter) *gate {
	return &gate{stopping: stopping, logger: logger, token: make(chan struct{}, 1)}
}

// around puts the gate before h, the processing step.
func (g *gate) around(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) (produced []*message.Message, err error) {
		probe, err := g.enter(msg)
		if err != nil {
			return nil, err
		}
		ctx, id := msg.Context(), msg.UUID
		outcome := errPanicked // a panic continues to the caller
		defer func() { g.note(ctx, id, probe, outcome) }()
		produced, err = h(msg)
		outcome = err
		return produced, err
	}
}

var errPanicked = errors.New("a panic in Process")

// note counts the outcome of a message that arrived with ctx.
func (g *gate) note(ctx context.Context, id string, probe bool, err error) {
	switch v := verdictOf(ctx, err); {
	case v == succeeded, errors.Is(err, errDropped):
		g.succeeded()
	case v == failed:
		g.failed(recordOf(ctx, id), probe, err)
	case probe:
		g.left()
	}
}

// recordOf returns the identity of the record whose message arrived with ctx and the
// UUID id. Only failures call it, since it decodes the record.
func recordOf(ctx context.Context, id string) string {
	msg := message.NewMessage(id, nil) // the message itself may have another context by now
	msg.SetContext(ctx)
	return arrival{id: id}.identity(msg)
}

// enter waits until the message may pass. probe says that it passes as a probe.
func (g *gate) enter(msg *message.Message) (probe bool, err error) {
	if !g.shut.Load() {
		return false, nil
	}
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	if open == nil {
		return false, nil
	}
	defer parked(msg)()
	select {
	case <-open:
		return false, nil
	case <-g.token:
		return g.takeToken(), nil
	case <-g.stopping:
		return false, fmt.Errorf("waiting for the end of an outage: %w", errGivenBack)
	case <-msg.Context().Done():
		return false, fmt.Errorf("waiting for the end of an outage: %w", context.Cause(msg.Context()))
	}
}

// takeToken lets the caller pass as the probe, if the outage has not ended. It reports whether it
// has not.
func (g *gate) takeToken() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probing = g.outage != nil
	return g.probing
}

// parked marks the message as waiting outside of its handler, for the subscriber, until
// the returned function is called.
func parked(msg *message.Message) (resume func()) {
	d, _ := ack.FromContext(msg.Context())
	p, ok := d.(ack.Parker)
	if !ok {
		return func() {}
	}
	p.Park()
	return p.Resume
}

// succeeded counts a message that was handled, and ends the outage.
func (g *gate) succeeded() {
	if g.failures.Load() == 0 && !g.shut.Load() {
		return
	}
	g.mu.Lock()
	g.failures.Store(0)
	ended := g.outage
	logged := g.logged
	if ended != nil {
		g.outage, g.probing = nil, false
		g.shut.Store(false)
		g.timer.Stop()
		close(g.open)
		g.open = nil
	}
	g.mu.Unlock()
	if ended != nil && !logged.IsZero() {
		g.logger.Info("Process works again", watermill.LogFields{
			"since": ended.Since.UTC().Format(time.RFC3339), "took": time.Since(ended.Since).String(), "probes": ended.Probes,
		})
	}
}

// failed counts a message that failed, and begins an outage if it is one too many.
func (g *gate) failed(id string, asProbe bool, err error) {
	g.mu.Lock()
	if id != g.last {
		g.last = id
		g.failures.Add(1)
	}
	g.touched = time.Now()
	log := nothing
	switch {
	case g.outage == nil && g.failures.Load() >= failuresInARow && !isClosed(g.stopping):
		g.outage = &batching.Outage{Since: time.Now(), Err: err}
		g.pause, g.logged, g.open = probe.FirstPause, time.Time{}, make(chan struct{})
		select { // of an earlier outage
		case <-g.token:
		default:
		}
		g.timer = time.AfterFunc(g.pause, g.release)
		g.shut.Store(true)
	case g.outage != nil:
		g.outage.Err = err
		if asProbe {
			log = g.probed()
		}
	}
	var o batching.Outage
	if g.outage != nil {
		o = *g.outage
	}
	g.mu.Unlock()
	fields := watermill.LogFields{"since": o.Since.UTC().Format(time.RFC3339), "probes": o.Probes}
	switch log {
	case outageBegan:
		g.logger.Error("Process is down: messages wait, and single messages probe it", err, fields)
	case outageLasts:
		g.logger.Error("Process is still down", err, fields)
	}
}

// logLine is what to log about an outage.
type logLine uint8

const (
	nothing logLine = iota
	outageBegan
	outageLasts
)

// probed needs mu. It counts a probe that failed, and returns what to log.
func (g *gate) probed() logLine {
	g.probing = false
	g.outage.Probes++
	g.pause = probe.Next(g.pause)
	g.timer.Reset(g.pause)
	switch now := time.Now(); {
	case g.logged.IsZero():
		g.logged = now
		return outageBegan
	case now.Sub(g.logged) >= probe.LogEvery:
		g.logged = now
		return outageLasts
	}
	return nothing
}

// left is called when a probe ended without an outcome of its own: another one may pass at
// once.
func (g *gate) left() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.outage != nil && g.probing {
		g.probing = false
		g.timer.Reset(0)
	}
}

// release lets the next probe pass.
func (g *gate) release() {
	select {
	case g.token <- struct{}{}:
	default:
	}
}

// state returns the current outage, nil if there is none.
func (g *gate) state() *batching.Outage {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.outage == nil || time.Since(g.touched) > probe.IdleAfter {
		return nil
	}
	o := *g.outage
	return &o
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
