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

// Batch makes a span of each call of a batch handler; ctx carries it. It is
// linked with the spans of the messages' deliveries, in both directions, if
// Middleware is around the batches. (The OpenTelemetry SDK keeps 128 links a span
// unless it is told to keep more.)
//
// The span is a failure when the handler returns an error, unless the batch's
// context was cancelled: whether it was decides, not what the error wraps. Messages
// given to Batch.Fail are counted in AttributeFailed; their own spans tell the errors.
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
				d.batch.CompareAndSwap(&here, nil) // what comes now is the delivery's
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

// batchAttributes describes b. A batch's destination is only named when all
// messages share it.
func (t *Tracing) batchAttributes(b *batching.Batch) []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, 12),
		semconv.MessagingOperationName("process"),
		semconv.MessagingOperationTypeProcess,
		semconv.MessagingBatchMessageCount(len(b.Messages)),
		attribute.String(AttributeBatcher, b.Batcher),
		attribute.String(AttributeTrigger, string(b.Trigger)),
		attribute.Int(AttributePartition, b.Partition),
	)
	if !b.Oldest.IsZero() { // not in a Batch made by hand
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
