// Package batching is a Watermill middleware that groups messages into
// batches, for any Watermill subscriber.
//
// A message passes the middleware like this:
//
//	            ┌─ processing step ─┐      ┌──── batcher "s3" ────┐
//	message ──▶ │ the wrapped       │ ───▶ │ open batch of key a  │ ──▶ Handler(ctx, batch) ──▶ nil: ack
//	            │ handler; may call │      │ open batch of key b  │                            error: nack
//	            │ SetBatcher, ...   │      └──────────────────────┘
//	            └───────────────────┘      ┌──── batcher "sqs" ───┐
//	                                  ───▶ │ ...                  │
//	                                       └──────────────────────┘
//
// The message's Router handler blocks until its batch is done. That is the
// back-pressure: there is no queue besides the subscriber's in-flight messages, so
// the subscriber must allow more messages in flight than a batch has.
//
// # Outcome
//
// Each message has exactly one outcome. It succeeds (and the Router publishes what
// the processing step produced) if the batch handler returns nil and has not called
// Batch.Fail for it. An error or a panic of the batch handler fails all messages of
// the batch; Batcher.Isolate finds out which of them cause it.
//
// # Order
//
// Messages with the same ordering key are handled in the order in which their
// processing steps end, also across batchers: a message joins a batch only when
// the earlier ones of its key are in the same batch or done. The ordering key
// comes from the subscriber (ack.Delivery) or from Config.OrderingKey. The batch
// key is unrelated: it only says which messages may be in one batch.
//
// The order also holds after the batch: the handlers of a key's messages return one
// at a time, each after the previous message is settled.
//
// A subscriber whose messages carry an ack.Delivery may deliver the next message of
// a key while the previous one waits in a batch: the middleware calls HandOff when a
// message has its place. If the message fails, the middleware has the later ones
// taken back (CallBack) before it returns the error. A message that is taken back
// leaves its batch, or, if the batch already runs, has its outcome ignored; its
// handler returns nil and publishes nothing.
//
// With any other subscriber, the key's later messages that were delivered already
// fail with an error that wraps ack.ErrCalledBack, so that they are redelivered.
//
// # Outages
//
// Batcher.Isolate finds the messages that make a batch fail, and distinguishes
// them from an outage. With Batcher.Probe a batcher handles only single messages,
// with growing pauses, while all of them fail.
//
// # When a message's context ends
//
//   - Called back (the cause is ack.ErrCalledBack): as described above.
//   - Cancelled: the message is fenced, the drain timed out, or a subscriber
//     without Deliveries stops, after which its acks do not count. The message
//     leaves its batch and returns the context's error. If the batch is running,
//     the message stays until the batch is done, because the batch handler is using
//     it. The handler's context ends when all messages of the batch have ended this
//     way, if all have Deliveries.
//   - Deadline exceeded (Watermill's Timeout outside): the batch stops waiting for
//     more messages and is handled at once, with this message.
//
// # Observing
//
// Stats returns counters for each batcher, and how many messages and batches wait
// and run. Config.OnBatch is called for each batch that was handled. Package metrics
// exports both to Prometheus.
package batching
