package tracing

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// scope is the instrumentation scope of all spans.
const scope = "github.com/watermill-ots/watermill-ots/tracing"

// Config configures a Tracing. Every zero field means its default.
type Config struct {
	// Provider creates the spans. Default: the global one (otel.SetTracerProvider).
	Provider trace.TracerProvider

	// Propagator writes trace contexts into message metadata and reads them from it.
	// Default: the global one, which writes nothing until the program calls
	// otel.SetTextMapPropagator.
	Propagator propagation.TextMapPropagator

	// Keys adds primary keys and batch keys to the attributes. They may be personal
	// data, which a trace store should seldom keep. Default off.
	Keys bool
}

// Tracing creates spans for deliveries, batches and publishing. All methods may be called
// from any goroutine.
type Tracing struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	keys       bool
}

// New returns a Tracing. It starts no goroutine.
func New(cfg Config) *Tracing {
	if cfg.Provider == nil {
		cfg.Provider = otel.GetTracerProvider()
	}
	if cfg.Propagator == nil {
		cfg.Propagator = otel.GetTextMapPropagator()
	}
	return &Tracing{
		tracer:     cfg.Provider.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL)),
		propagator: cfg.Propagator,
		keys:       cfg.Keys,
	}
}

// carrier makes a message's metadata available to OpenTelemetry's propagators.
type carrier struct{ msg *message.Message }

var _ propagation.TextMapCarrier = carrier{}

func (c carrier) Get(key string) string { return c.msg.Metadata.Get(key) }

func (c carrier) Set(key, value string) {
	if c.msg.Metadata == nil { // in a message that NewMessage did not create
		c.msg.Metadata = make(message.Metadata)
	}
	c.msg.Metadata.Set(key, value)
}

func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c.msg.Metadata))
	for key := range c.msg.Metadata {
		keys = append(keys, key)
	}
	return keys
}

// carried returns the trace context in msg's metadata; it may be invalid.
func (t *Tracing) carried(msg *message.Message) trace.SpanContext {
	return trace.SpanContextFromContext(t.propagator.Extract(context.Background(), carrier{msg}))
}

// fail marks a span as failed.
func fail(span trace.Span, err error) {
	span.RecordError(err)
	span.SetStatus(codes.Error, err.Error())
	span.SetAttributes(errorType(err))
}

// errorType returns the type of err's innermost cause. The type of err itself is nearly
// always *fmt.wrapError.
func errorType(err error) attribute.KeyValue {
	for {
		cause := errors.Unwrap(err)
		if cause == nil {
			return semconv.ErrorType(err)
		}
		err = cause
	}
}
