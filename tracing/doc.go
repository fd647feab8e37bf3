// Package tracing creates OpenTelemetry spans for deliveries, batches and publishing. It
// works with any Watermill subscriber and adds attributes for the records of package
// subscriber.
//
//	tr := tracing.New(tracing.Config{})
//	router.AddMiddleware(tr.Middleware, batches.Middleware) // a span for each delivery
//	batching.Batcher{Handler: tr.Batch(insert)}             // a span for each batch
//	publisher = tr.Publisher(publisher)                     // a span for each call of Publish
//
// # How the spans are related
//
//	trace of record 1:  process orders/to-warehouse ◀──link──▶ ┐
//	                      └ whatever Process does              │
//	trace of record 2:  process orders/to-warehouse ◀──link──▶ ┤
//	trace of the batch: process batch s3 ◀─────────────────────┘
//	                      └ publish archive ◀──link── each record
//
// A table's change carries no trace context, so each delivery of a record starts a trace.
// A delivery of another subscriber's message that carries one continues that trace. A
// batch has many origins: its span is a separate trace, linked with the delivery of each
// of its messages, in both directions.
//
// The delivery's trace context is written into the message's metadata, so that copies,
// forwarded messages, dead letters and the messages that the handler produces carry it
// through any publisher. Their consumers continue the record's trace.
//
// # Cost
//
// Without the middleware nothing is traced. This package imports only the OpenTelemetry
// API; the program's TracerProvider decides which spans are kept, and where they are sent.
package tracing
