package tracing

import (
	"context"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// publisher creates a span for each call of Publish.
type publisher struct {
	message.Publisher
	tracing *Tracing
}

// Publisher returns pub with a span for each call of Publish.
//
// A message that carries a trace context keeps it, and the span is linked with it: copies
// of a record's message, and messages that its handler produced, stay in the record's
// trace. Other messages get the span's context. The span's parent is the span in the
// messages' contexts if all have the same; in a traced batch, the batch's span. The span is
// a failure when Publish returns an error, unless the context of one of the messages was
// cancelled.
func (t *Tracing) Publisher(pub message.Publisher) message.Publisher {
	return &publisher{Publisher: pub, tracing: t}
}

// MaxPayloadBytes returns the traced publisher's MaxPayloadBytes: the largest payload that
// it accepts. 0: it has no such limit or no such method.
func (p *publisher) MaxPayloadBytes() int {
	if limited, ok := p.Publisher.(interface{ MaxPayloadBytes() int }); ok {
		return limited.MaxPayloadBytes()
	}
	return 0
}

// PublisherDecorator is Publisher for message.Router.AddPublisherDecorators.
func (t *Tracing) PublisherDecorator(pub message.Publisher) (message.Publisher, error) {
	return t.Publisher(pub), nil
}

// Publish implements message.Publisher.
func (p *publisher) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return p.Publisher.Publish(topic)
	}
	t := p.tracing
	parent := commonParent(messages)
	kind := trace.SpanKindClient // the messages were created elsewhere
	var links []trace.Link
	var bare []*message.Message
	for _, msg := range messages {
		carried := t.carried(msg)
		if !carried.IsValid() {
			kind = trace.SpanKindProducer
			bare = append(bare, msg)
		} else if carried.SpanID() != parent.SpanID() {
			links = append(links, trace.Link{SpanContext: carried})
		}
	}
	ctx := trace.ContextWithSpanContext(messages[0].Context(), parent)
	_, span := t.tracer.Start(ctx, "publish "+topic,
		trace.WithSpanKind(kind), trace.WithLinks(links...), trace.WithAttributes(publishAttributes(topic, messages)...))
	defer span.End()
	for _, msg := range bare {
		t.propagator.Inject(trace.ContextWithSpan(msg.Context(), span), carrier{msg})
	}
	err := p.Publisher.Publish(topic, messages...)
	switch {
	case err == nil:
	case slices.ContainsFunc(messages, func(msg *message.Message) bool { return interrupted(msg.Context()) }):
		span.RecordError(err)
	default:
		fail(span, err)
	}
	return err
}

func publishAttributes(topic string, messages []*message.Message) []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, 5),
		systemWatermill,
		semconv.MessagingDestinationName(topic),
		semconv.MessagingOperationName("publish"),
		semconv.MessagingOperationTypeSend,
	)
	if len(messages) == 1 {
		return append(attrs, semconv.MessagingMessageID(messages[0].UUID))
	}
	return append(attrs, semconv.MessagingBatchMessageCount(len(messages)))
}

// commonParent returns the span in which all messages are published, or an invalid one if
// there is none or more than one.
func commonParent(messages []*message.Message) trace.SpanContext {
	first := parentOf(messages[0].Context())
	for _, msg := range messages[1:] {
		if !parentOf(msg.Context()).Equal(first) {
			return trace.SpanContext{}
		}
	}
	return first
}

// parentOf returns the span that ctx is in: the batch's, for a delivery that is in one.
func parentOf(ctx context.Context) trace.SpanContext {
	current := trace.SpanContextFromContext(ctx)
	if d := deliveryOf(ctx); d != nil && d.span.SpanContext().Equal(current) {
		if batch := d.batch.Load(); batch != nil {
			return *batch
		}
	}
	return current
}
