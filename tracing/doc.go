// Package tracing makes OpenTelemetry spans of deliveries, batches and
// publishing. It works with any Watermill subscriber and knows the records of
// package subscriber.
//
//	tr := tracing.New(tracing.Config{})
//	router.AddMiddleware(tr.Middleware, batches.Middleware) // a span for each delivery
//	batching.Batcher{Handler: tr.Batch(insert)}             // a span for each batch
//	publisher = tr.Publisher(publisher)                     // a span for each call of Publish
//
// # How the spans hang together
//
//	trace of record 1:  process orders/to-warehouse ◀──link──▶ ┐
//	                      └ whatever Process does              │
//	trace of record 2:  process orders/to-warehouse ◀──link──▶ ┤
//	trace of the batch: process batch s3 ◀─────────────────────┘
//	                      └ publish archive ◀──link── each record
//
// A table's change carries no trace context, so each delivery of a record
// begins a trace. A message of another subscriber that carries one is the child
// of it. A batch has many origins: its span is a trace of its own, linked with
// the delivery of each of its messages, in both directions.
//
// The delivery's trace context is written into the message's metadata, so that
// it goes along with copies, forwarded and dead messages through any publisher,
// and into what the handler produces. Who consumes these continues the record's trace.
//
// # Cost
//
// Without the middleware nothing is traced. The OpenTelemetry API is all that
// this package imports; which spans are kept, and where they go, is up to the
// TracerProvider of the program.
package tracing
