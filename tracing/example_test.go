package tracing_test

import (
	"context"
	"fmt"
	"log"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/watermill-ots/watermill-ots/batching"
	"github.com/watermill-ots/watermill-ots/tracing"
)

// A delivery and its batch, traced. A program would have its own exporter, and a Router
// that calls the handler.
func Example() {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans), sdktrace.WithSampler(followLinks{sdktrace.ParentBased(sdktrace.AlwaysSample())}))
	tr := tracing.New(tracing.Config{Provider: provider, Propagator: propagation.TraceContext{}})

	batches, err := batching.New(batching.Config{Batchers: map[string]batching.Batcher{
		"default": {Size: 1, Handler: tr.Batch(func(ctx context.Context, b *batching.Batch) error { return nil })},
	}}, nil)
	if err != nil {
		log.Fatal(err)
	}
	handler := tr.Middleware(batches.Middleware(func(msg *message.Message) ([]*message.Message, error) {
		return nil, nil
	}))
	if _, err := handler(recordMessage(1)); err != nil {
		log.Fatal(err)
	}
	for _, s := range spans.GetSpans() {
		fmt.Printf("%s, %d link\n", s.Name, len(s.Links))
	}
	// Output:
	// process batch default, 1 link
	// process orders/to-warehouse, 1 link
}

// followLinks samples a batch if one of its deliveries is sampled, and calls the wrapped
// sampler for everything else. Without it, batches are sampled like any other root span,
// independently of their deliveries.
type followLinks struct{ sdktrace.Sampler }

func (s followLinks) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	for _, l := range p.Links {
		if l.SpanContext.IsSampled() {
			return sdktrace.AlwaysSample().ShouldSample(p)
		}
	}
	return s.Sampler.ShouldSample(p)
}
