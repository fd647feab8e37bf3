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
)

// delivery is what a message's context holds while the middleware handles it.
type delivery struct {
	span  trace.Span
	batch atomic.Pointer[trace.SpanContext] // of the batch that has the message in its hands; nil: none has
}

type deliveryKey struct{}

// deliveryOf returns the traced delivery that ctx belongs to, or nil.
func deliveryOf(ctx context.Context) *delivery {
	d, _ := ctx.Value(deliveryKey{}).(*delivery)
	return d
}

// Middleware makes a span of each delivery: from here until h, with all
// middlewares inside of this one, is done with the message. With batches inside
// that is the end of the message's batch. Put it outside of batches, and outside
// of a Retry that is to be one span, inside of what is to see the messages as they came.
//
// The message's context carries the span, its metadata the trace context. So
// do the produced messages, unless they have one of their own. The context
// is as it was when the middleware returns, the metadata stays.
//
// The span is the child of the one in the message's context, or else of the
// one that its metadata names.
func (t *Tracing) Middleware(h message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) (produced []*message.Message, err error) {
		came := msg.Context()
		ctx, span := t.startDelivery(msg)
		t.propagator.Inject(ctx, carrier{msg})
		msg.SetContext(ctx)
		returned := false
		defer func() {
			msg.SetContext(came)
			// A panic goes on with its stack: it is not recovered here.
			if !returned {
				span.SetStatus(codes.Error, "handler panicked")
				span.SetAttributes(attribute.String(AttributeOutcome, OutcomeFailed))
			}
			span.End()
		}()
		produced, err = h(msg)
		returned = true
		t.endDelivery(came, span, err)
		t.hand(ctx, produced)
		return produced, err
	}
}

// startDelivery starts the span of msg's delivery.
func (t *Tracing) startDelivery(msg *message.Message) (context.Context, trace.Span) {
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
	return context.WithValue(ctx, deliveryKey{}, &delivery{span: span}), span
}

// endDelivery says how the delivery of a message that came with ctx ended.
func (t *Tracing) endDelivery(ctx context.Context, span trace.Span, err error) {
	if !span.IsRecording() {
		return
	}
	outcome := OutcomeSucceeded
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), ack.ErrCalledBack):
		outcome = OutcomeCalledBack
	case err == nil:
	case errors.Is(ctx.Err(), context.Canceled) || !batching.IsFailure(err):
		outcome = OutcomeInterrupted
		span.RecordError(err)
	default:
		outcome = OutcomeFailed
		fail(span, err)
	}
	span.SetAttributes(attribute.String(AttributeOutcome, outcome))
}

// hand gives the trace context of ctx to messages that have none.
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
