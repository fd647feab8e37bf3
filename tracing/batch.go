package tracing

import (
	"context"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/watermill-ots/watermill-ots/batching"
)

// Batch returns h with a span for each call; ctx carries it. The span is linked with the
// spans of the messages' deliveries, in both directions, if Middleware is outside of the
// batches. (By default the OpenTelemetry SDK keeps 128 links in a span.)
//
// The span is a failure when the handler returns an error, unless the batch's context was
// cancelled. Only the context decides that, not what the error wraps. Messages given to
// Batch.Fail are counted in AttributeFailed; their own spans have the errors.
func (t *Tracing) Batch(h batching.HandlerFunc) batching.HandlerFunc {
	return func(ctx context.Context, b *batching.Batch) (err error) {
		deliveries := make([]*delivery, 0, len(b.Messages))
		owners := make([]*message.Message, 0, len(b.Messages)) // of deliveries
		links := make([]trace.Link, 0, len(b.Messages))
		for _, msg := range b.Messages {
			if d := deliveryOf(msg.Context()); d != nil && d.span.SpanContext().IsValid() {
				d.interrupted.Store(false)
				deliveries, owners = append(deliveries, d), append(owners, msg)
				links = append(links, trace.Link{SpanContext: d.span.SpanContext()})
			}
		}
		ctx, span := t.tracer.Start(ctx, "process batch "+b.Batcher,
			trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links...), trace.WithAttributes(t.batchAttributes(b)...))
		here := span.SpanContext()
		for _, d := range deliveries {
			d.span.AddLink(trace.Link{SpanContext: here})
			d.batch.Store(&here)
		}

		messages := slices.Clone(b.Messages) // the handler may change the slice
		returned := false
		defer func() {
			if !returned {
				span.SetStatus(codes.Error, "batch handler panicked")
			}
			for _, d := range deliveries {
				d.batch.CompareAndSwap(&here, nil) // later spans belong to the delivery
			}
			span.End()
		}()
		err = h(ctx, b)
		returned = true
		ended := interrupted(ctx)
		for i, d := range deliveries {
			d.interrupted.Store(err != nil && ended && b.Err(owners[i]) == nil)
		}
		if !span.IsRecording() {
			return err
		}
		failed := 0
		for _, msg := range messages {
			if b.Err(msg) != nil {
				failed++
			}
		}
		span.SetAttributes(attribute.Int(AttributeFailed, failed))
		switch {
		case err == nil:
		case ended:
			span.RecordError(err)
		default:
			fail(span, err)
		}
		return err
	}
}

// batchAttributes returns the attributes of b. The destination is set only if all messages
// share it.
func (t *Tracing) batchAttributes(b *batching.Batch) []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, 12),
		semconv.MessagingOperationName("process"),
		semconv.MessagingOperationTypeProcess,
		semconv.MessagingBatchMessageCount(len(b.Messages)),
		attribute.String(AttributeBatcher, b.Batcher),
		attribute.String(AttributeTrigger, string(b.Trigger)),
		attribute.Int(AttributePartition, b.Partition),
	)
	if !b.Oldest.IsZero() { // it is zero in a Batch that a test created
		attrs = append(attrs, attribute.Float64(AttributeWaited, time.Since(b.Oldest).Seconds()))
	}
	if t.keys && b.Key != "" {
		attrs = append(attrs, attribute.String(AttributeBatchKey, b.Key))
	}
	if len(b.Messages) == 0 {
		return append(attrs, systemWatermill)
	}
	from := originOf(b.Messages[0])
	attrs = append(attrs, from.system)
	for _, msg := range b.Messages[1:] {
		if originOf(msg).destination != from.destination {
			return attrs
		}
	}
	return append(attrs, semconv.MessagingDestinationName(from.destination))
}
