package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v4"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/internal/letters"
	"github.com/watermill-ots/watermill-ots/ots"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// policy is a pipeline's failure policy, its outermost step. A failed message is
// nacked, and the subscriber redelivers it, in order and with its backoff. A message
// becomes a dead letter and is acked when the message itself is the reason: it has
// failed often enough while others succeeded, it has been failing for giveUpAfter, or
// its error says so (backoff.Permanent).
//
// verdictOf decides what counts as a failed attempt, and attempts decides whether the
// message is the reason.
type policy struct {
	pipeline    string
	letters     letterStore // nil: messages are retried without limit
	attempts    int
	giveUpAfter time.Duration                 // 0: never
	failed      func(*message.Message, error) // Handlers.Failed; nil: not called
	stopping    <-chan struct{}
	counts      *attempts
	down        func() bool // reports whether a batcher of the pipeline is down; nil: there are no batchers
	brake       *brake
	succeeded   atomic.Uint64 // messages
	logger      watermill.LoggerAdapter
}

func newPolicy(p parts, stopping <-chan struct{}) *policy {
	f := p.cfg.Failure
	giveUpAfter := max(0, cmp.Or(f.GiveUpAfter, DefaultGiveUpAfter))
	return &policy{
		pipeline:    p.name,
		letters:     p.letters,
		attempts:    cmp.Or(f.Attempts, DefaultAttempts),
		giveUpAfter: giveUpAfter,
		failed:      p.handlers.Failed,
		stopping:    stopping,
		counts:      newAttempts(cmp.Or(f.BackoffMax, DefaultBackoffMax), giveUpAfter),
		brake:       newBrake(p.name, f.StopAfter, p.end),
		logger:      p.logger,
	}
}

// middleware wraps the chain of a pipeline.
func (p *policy) middleware(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		came := p.snapshot(msg)
		produced, err := guarded(h, msg)
		msg.SetContext(came.ctx)
		if err := p.conclude(msg, came, err); err != nil {
			return nil, err
		}
		return produced, nil
	}
}

// conclude returns what becomes of a message with the outcome err of all other steps: nil
// acks it.
func (p *policy) conclude(msg *message.Message, came arrival, err error) error {
	switch p.verdict(came.ctx, err) {
	case succeeded:
		p.success(msg, came)
		return nil
	case takenBack:
		// The subscriber ignores the outcome; an error would only be logged.
		return nil
	case interrupted:
		return err
	}
	return p.failure(msg, came, err)
}

// success notes a message that was handled.
func (p *policy) success(msg *message.Message, came arrival) {
	p.succeeded.Add(1)
	if p.counts.some.Load() { // otherwise the record need not be decoded
		p.counts.forget(came.identity(msg))
	}
	p.brake.note(false)
}

// arrival is a message as it arrived: Process may change it.
type arrival struct {
	ctx      context.Context
	id       string // UUID
	payload  message.Payload
	metadata message.Metadata
}

// snapshot copies what a dead letter needs. Handlers may change the payload in place.
func (p *policy) snapshot(msg *message.Message) arrival {
	a := arrival{ctx: msg.Context(), id: msg.UUID}
	if p.letters != nil {
		a.payload, a.metadata = slices.Clone(msg.Payload), maps.Clone(msg.Metadata)
	}
	return a
}

// identity returns the record's identity, by which attempts are counted. msg must have
// the context with which it arrived; Process may have changed its UUID.
func (a arrival) identity(msg *message.Message) string {
	if r, ok := ots.RecordFromMessage(msg); ok && r.UUID != "" {
		return r.UUID
	}
	return a.id
}

// guarded calls h and turns a panic into an error.
func guarded(h message.HandlerFunc, msg *message.Message) (produced []*message.Message, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = ack.NewPanicError("handler", v)
		}
	}()
	return h(msg)
}

// verdict is what an outcome means for the policy.
type verdict uint8

const (
	succeeded   verdict = iota
	failed              // a failed attempt: counted
	interrupted         // not the message's fault: not counted, and it is redelivered
	takenBack           // not counted, and the subscriber ignores the outcome
)

// errGivenBack is the outcome of a message that the pipeline gives back to the
// subscriber unhandled, because the pipeline stops.
var errGivenBack = errors.New("the pipeline stops")

// verdict returns what the outcome err of a message means that arrived with ctx.
func (p *policy) verdict(ctx context.Context, err error) verdict {
	if errors.Is(err, batching.ErrClosed) && isClosed(p.stopping) {
		return interrupted
	}
	return verdictOf(ctx, err)
}

// verdictOf returns what the outcome err of a message means that arrived with ctx. Only
// the message's own context and this pipeline's own errors interrupt it: a call by the
// handler that was cancelled is a failure.
func verdictOf(ctx context.Context, err error) verdict {
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), ack.ErrCalledBack):
		return takenBack
	case err == nil:
		return succeeded
	case errors.Is(ctx.Err(), context.Canceled):
		return interrupted // the channel is lost, or the drain has timed out
	case errors.Is(err, errGivenBack), errors.Is(err, ack.ErrCalledBack):
		return interrupted
	}
	if f := new(batching.Failure); errors.As(err, &f) && f.Interrupted {
		return interrupted
	}
	return failed
}

// failure handles a failed attempt. It returns nil when the message has become
// a dead letter.
func (p *policy) failure(msg *message.Message, came arrival, err error) error {
	p.callFailed(msg, err)
	if p.letters == nil || isClosed(p.stopping) {
		// While the pipeline stops, what a handler uses may be closing too. The message
		// is redelivered after the next start.
		return err
	}
	j := p.counts.failed(came.identity(msg), p.evidence(err), time.Now())
	reason := p.reason(j, err)
	if reason == "" || p.brake.holds() {
		return err
	}
	ctx, cancel := context.WithTimeout(came.ctx, letters.Timeout)
	defer cancel()
	letter := p.letter(msg, came, err, max(1, j.attempts))
	fields := watermill.LogFields{"message_uuid": letter.ID, "key": letter.Key, "attempts": letter.Attempts, "reason": reason}
	if putErr := p.letters.Put(ctx, letter); putErr != nil {
		// The message is redelivered, and the letter is written after its next failure.
		return fmt.Errorf("keeping a dead letter after %d attempts: %w; the message failed with: %w", letter.Attempts, putErr, err)
	}
	p.counts.forget(letter.Identity)
	p.logger.Error("Message became a dead letter", err, fields)
	p.brake.note(true)
	return nil
}

// evidence returns what err shows about the reason of the failure.
func (p *policy) evidence(err error) evidence {
	transient, lost := ack.IsTransient(err), connectionLost(err)
	if f := new(batching.Failure); errors.As(err, &f) {
		return evidence{place: f.Batcher, own: f.Alone && !transient, lost: lost, before: f.Before, after: f.After}
	}
	// A failure outside of the batches while a batcher is down may have the same cause, and
	// few other messages get as far, so there are hardly any witnesses.
	n := p.succeeded.Load()
	return evidence{own: !transient && (p.down == nil || !p.down()), lost: lost, before: n, after: n}
}

// connectionLost reports whether err is the error of a broken connection or of a call that
// took too long. A message may cause that, and so may an outage.
func connectionLost(err error) bool {
	var op *net.OpError
	var timeout net.Error // also context.DeadlineExceeded; a *url.Error has this type for any failure of a request
	return errors.As(err, &op) || errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// reason returns why the message is given up, "" if it is not.
func (p *policy) reason(j judgement, err error) string {
	var permanent *backoff.PermanentError
	switch {
	case errors.As(err, &permanent):
		return "its error is permanent"
	case j.witness && j.attempts >= p.attempts:
		return "it failed while others succeeded"
	case p.giveUpAfter > 0 && j.age >= p.giveUpAfter:
		return "it has been failing for give_up_after"
	}
	return ""
}

// letter makes a dead letter of a message.
func (p *policy) letter(msg *message.Message, came arrival, err error, attempts int) *letters.Letter {
	l := &letters.Letter{
		Pipeline: p.pipeline,
		ID:       came.id,
		Identity: came.identity(msg),
		Error:    err.Error(),
		Attempts: attempts,
		FailedAt: letters.Now(),
		Metadata: came.metadata,
		Payload:  came.payload,
		Table:    came.metadata[subscriber.MetadataTable],
		Tunnel:   came.metadata[subscriber.MetadataTunnel],
		Channel:  came.metadata[subscriber.MetadataChannel],
		Type:     came.metadata[subscriber.MetadataType],
		Key:      came.metadata[subscriber.MetadataKey],
	}
	// The record is more reliable: the Unmarshaler sets the metadata, and may be the user's.
	if r, ok := ots.RecordFromMessage(msg); ok {
		l.Record = r
		l.Table, l.Tunnel, l.Channel = r.Table, r.Tunnel, r.Channel
		l.Type, l.Key = r.Type.String(), r.KeyText()
		if !r.Sequence.IsZero() {
			l.Sequence = r.Sequence.String()
		}
	}
	return l
}

// callFailed calls Handlers.Failed. A panic of this user function does not change the
// outcome of the message.
func (p *policy) callFailed(msg *message.Message, err error) {
	if p.failed == nil {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			panicked := ack.NewPanicError("Handlers.Failed", v)
			p.logger.Error("Handlers.Failed panicked", panicked, watermill.LogFields{"stack": string(panicked.Stack)})
		}
	}()
	p.failed(msg, err)
}
