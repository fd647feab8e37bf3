package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// PanicError is what becomes of a panic in Process or in a middleware: the
// message's failure.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // the goroutine's stack, as from runtime/debug.Stack
}

// Error implements error. It has the value but not the stack, since error texts
// end up in dead letters.
func (e *PanicError) Error() string { return fmt.Sprintf("handler panicked: %v", e.Value) }

// Unwrap returns the value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// letterTimeout bounds the writing of one dead letter.
const letterTimeout = 30 * time.Second

// letterbox takes dead letters. put returns when the letter is kept. The same
// letter may come twice.
type letterbox interface {
	put(ctx context.Context, letter *DeadLetter) error
}

// policy is a pipeline's failure policy, the outermost part of it. A failed
// message is nacked, and the subscriber delivers it again, in order and with
// its backoff; after enough attempts the message becomes a dead letter and is acked.
//
// What counts as a failed attempt is judged in one place, verdictOf.
type policy struct {
	pipeline string
	letters  letterbox // nil: messages are tried again for ever
	attempts int
	failed   func(*message.Message, error) // nil: nobody is told
	stopping <-chan struct{}
	counts   *counts
	logger   watermill.LoggerAdapter
}

func newPolicy(name string, f Failure, letters letterbox, failed func(*message.Message, error), stopping <-chan struct{}, logger watermill.LoggerAdapter) *policy {
	return &policy{
		pipeline: name,
		letters:  letters,
		attempts: cmp.Or(f.Attempts, DefaultAttempts),
		failed:   failed,
		stopping: stopping,
		counts:   newCounts(cmp.Or(f.BackoffMax, DefaultBackoffMax)),
		logger:   logger,
	}
}

// middleware wraps the chain of a pipeline.
func (p *policy) middleware(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		came := p.snapshot(msg)
		produced, err := guarded(h, msg)
		msg.SetContext(came.ctx)
		switch verdictOf(came.ctx, err) {
		case succeeded:
			p.counts.forget(came.id)
			return produced, nil
		case takenBack:
			// Nobody waits for the outcome; an error would only be logged.
			return nil, nil
		case interrupted:
			return nil, err
		}
		return nil, p.failure(msg, came, err)
	}
}

// arrival is a message as it came: Process may change it.
type arrival struct {
	ctx      context.Context
	id       string
	payload  message.Payload
	metadata message.Metadata
}

// snapshot keeps what a dead letter needs. The payload is not copied:
// replacing it, as handlers do, leaves this one as it was.
func (p *policy) snapshot(msg *message.Message) arrival {
	a := arrival{ctx: msg.Context(), id: msg.UUID}
	if p.letters != nil {
		a.payload, a.metadata = msg.Payload, maps.Clone(msg.Metadata)
	}
	return a
}

// guarded calls h and makes an error of a panic.
func guarded(h message.HandlerFunc, msg *message.Message) (produced []*message.Message, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return h(msg)
}

// verdict is what an outcome means for the policy.
type verdict uint8

const (
	succeeded   verdict = iota
	failed              // a failed attempt: counted
	interrupted         // not the message's fault: not counted, and it comes again
	takenBack           // not counted, and the subscriber ignores the outcome
)

// verdictOf judges the outcome err of a message that came with ctx.
func verdictOf(ctx context.Context, err error) verdict {
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), ack.ErrCalledBack):
		return takenBack
	case err == nil:
		return succeeded
	case errors.Is(ctx.Err(), context.Canceled):
		return interrupted // the channel is lost, or the time to drain is over
	case errors.Is(err, context.Canceled),
		errors.Is(err, batching.ErrClosed), errors.Is(err, batching.ErrCloseTimeout), errors.Is(err, batching.ErrAllEnded):
		return interrupted
	}
	return failed
}

// failure handles a failed attempt. It returns nil when the message has become
// a dead letter.
func (p *policy) failure(msg *message.Message, came arrival, err error) error {
	p.tell(msg, err)
	if p.letters == nil {
		return err
	}
	select {
	case <-p.stopping:
		// What a handler needs may be closing as well. The message comes again
		// after the start.
		return err
	default:
	}
	n := p.counts.add(came.id, time.Now())
	if n < p.attempts {
		return err
	}
	ctx, cancel := context.WithTimeout(came.ctx, letterTimeout)
	defer cancel()
	letter := p.letter(msg, came, err, n)
	fields := watermill.LogFields{"message_uuid": letter.ID, "key": letter.Key, "attempts": n}
	if putErr := p.letters.put(ctx, letter); putErr != nil {
		// The message stays: it is tried again, and so is the letter.
		return fmt.Errorf("keeping a dead letter after %d attempts: %w; the message failed with: %w", n, putErr, err)
	}
	p.counts.forget(came.id)
	p.logger.Error("Message became a dead letter", err, fields)
	return nil
}

// letter makes a dead letter of a message.
func (p *policy) letter(msg *message.Message, came arrival, err error, attempts int) *DeadLetter {
	l := &DeadLetter{
		Pipeline: p.pipeline,
		ID:       came.id,
		Error:    err.Error(),
		Attempts: attempts,
		FailedAt: now(),
		Metadata: came.metadata,
		Payload:  came.payload,
		Table:    came.metadata[subscriber.MetadataTable],
		Tunnel:   came.metadata[subscriber.MetadataTunnel],
		Channel:  came.metadata[subscriber.MetadataChannel],
		Type:     came.metadata[subscriber.MetadataType],
		Key:      came.metadata[subscriber.MetadataKey],
	}
	// The record knows better: metadata is the Unmarshaler's, which may be the user's.
	if r, ok := subscriber.RecordFromMessage(msg); ok {
		l.Record = r
		l.Table, l.Tunnel, l.Channel = r.Table, r.Tunnel, r.Channel
		l.Type, l.Key = r.Type.String(), r.KeyText()
		if !r.Sequence.IsZero() {
			l.Sequence = r.Sequence.String()
		}
	}
	return l
}

// tell calls Handlers.Failed, which is the user's: it may panic, and must not
// change the outcome by that.
func (p *policy) tell(msg *message.Message, err error) {
	if p.failed == nil {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			p.logger.Error("Handlers.Failed panicked", &PanicError{Value: v}, watermill.LogFields{"stack": string(debug.Stack())})
		}
	}()
	p.failed(msg, err)
}
