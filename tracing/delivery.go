package tracing

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/watermill-ots/watermill-ots/ack"
	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/subscriber"
)

// delivery is the state of a traced delivery. The message's context holds it while the
// middleware handles the message.
type delivery struct {
	span  trace.Span
	batch atomic.Pointer[trace.SpanContext] // of the batch that handles the message; nil: none does

	// interrupted is set when the message's last batch failed because the batch's
	// context was cancelled. The message's own context may be alive then.
	interrupted atomic.Bool
}

type deliveryKey struct{}

// deliveryOf returns the traced delivery that ctx belongs to, or nil.
func deliveryOf(ctx context.Context) *delivery {
	d, _ := ctx.Value(deliveryKey{}).(*delivery)
	return d
}

// Middleware creates a span for each delivery. It lasts until h, with all middlewares
// inside of this one, is done with the message; with batches inside that is the end of the
// message's batch. Add it outside of batches, and outside of a Retry whose attempts should
// share one span. Add it inside of middlewares that need the original metadata.
//
// The message's context carries the span, its metadata the trace context. So do the
// produced messages, unless they have their own. When the middleware returns, the message
// has its original context again; the metadata stays.
//
// The span's parent is the span in the message's context, or else the one in its metadata.
func (t *Tracing) Middleware(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) (produced []*message.Message, err error) {
		came := msg.Context()
		ctx, d := t.startDelivery(msg)
		span := d.span
		t.propagator.Inject(ctx, carrier{msg})
		msg.SetContext(ctx)
		returned := false
		defer func() {
			msg.SetContext(came)
			// A panic propagates with its stack: it is not recovered here.
			if !returned {
				span.SetStatus(codes.Error, "handler panicked")
				span.SetAttributes(attribute.String(AttributeOutcome, OutcomeFailed))
			}
			span.End()
		}()
		produced, err = h(msg)
		returned = true
		t.endDelivery(came, d, err)
		t.hand(ctx, produced)
		return produced, err
	}
}

// startDelivery starts the span of msg's delivery.
func (t *Tracing) startDelivery(msg *message.Message) (context.Context, *delivery) {
	from := originOf(msg)
	opts := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithAttributes(startAttributes(from)...),
	}
	ctx := msg.Context()
	outside := trace.SpanFromContext(ctx)
	ctx = t.propagator.Extract(ctx, carrier{msg})
	if outside.SpanContext().IsValid() {
		if carried := t.carried(msg); carried.IsValid() {
			opts = append(opts, trace.WithLinks(trace.Link{SpanContext: carried}))
		}
		ctx = trace.ContextWithSpan(ctx, outside)
	}
	ctx, span := t.tracer.Start(ctx, "process "+from.destination, opts...)
	if span.IsRecording() {
		span.SetAttributes(t.attributes(msg, from)...)
	}
	d := &delivery{span: span}
	return context.WithValue(ctx, deliveryKey{}, d), d
}

// interrupted reports whether ctx, the context of a message or a batch, was cancelled
// while its handler ran. Only then is the handler's error not a failure. What the error
// wraps does not matter, because it may be the cancellation of a call that the handler
// made. An exceeded deadline is not a cancellation. Nor is the end of a context because the
// handler itself acked or nacked the message.
func interrupted(ctx context.Context) bool {
	return errors.Is(ctx.Err(), context.Canceled) && !errors.Is(context.Cause(ctx), subscriber.ErrSettled)
}

// leftByBatching reports whether err is an error of package batching for a message that was
// not completely handled, although the message's context is alive.
func leftByBatching(err error) bool {
	for _, left := range []error{batching.ErrClosed, batching.ErrCloseTimeout, batching.ErrAllEnded, ack.ErrCalledBack} {
		if errors.Is(err, left) {
			return true
		}
	}
	return false
}

// endDelivery records the outcome of a delivery whose message arrived with ctx.
func (t *Tracing) endDelivery(ctx context.Context, d *delivery, err error) {
	span := d.span
	if !span.IsRecording() {
		return
	}
	outcome := OutcomeSucceeded
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), ack.ErrCalledBack):
		outcome = OutcomeCalledBack
	case err == nil:
	case interrupted(ctx) || d.interrupted.Load() || leftByBatching(err):
		outcome = OutcomeInterrupted
		span.RecordError(err)
	default:
		outcome = OutcomeFailed
		fail(span, err)
	}
	span.SetAttributes(attribute.String(AttributeOutcome, outcome))
}

// hand adds the trace context of ctx to messages that have none.
func (t *Tracing) hand(ctx context.Context, produced []*message.Message) {
	span := trace.SpanFromContext(ctx)
	if !span.SpanContext().IsValid() {
		return
	}
	for _, msg := range produced {
		if !trace.SpanContextFromContext(msg.Context()).IsValid() {
			msg.SetContext(trace.ContextWithSpan(msg.Context(), span))
		}
		if !t.carried(msg).IsValid() {
			t.propagator.Inject(ctx, carrier{msg})
		}
	}
}
