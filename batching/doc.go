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
// The message's Router handler is held all the while. That is the back-pressure:
// there is no queue but the messages that the subscriber lets be in flight, so
// it has to let more be in flight than a batch has messages.
//
// # Outcome
//
// Each message ends exactly once. It succeeds (and what the processing step
// produced is published by the Router) if the batch handler returns nil and has
// not called Batch.Fail for it. An error or a panic of the batch handler fails all
// messages of the batch; Batcher.Isolate finds out which of them are to blame.
//
// # Order
//
// Messages with the same ordering key are handled in the order in which the
// processing step ends, also across batchers: a message joins a batch only when
// the earlier ones of its key are in the same batch or done. The ordering key
// comes from the subscriber (ack.Delivery) or from Config.OrderingKey. The batch
// key has nothing to do with it: it only says which messages may be in one batch.
//
// The order holds for what follows the batch, too: the handlers of a key's
// messages return one after the other, each when the message before is settled.
//
// A subscriber whose messages carry an ack.Delivery may deliver the next
// message of a key while the one before waits in a batch: the middleware tells
// it (HandOff) when a message has its place. If the message fails, it has the
// later ones taken back (CallBack) before anybody hears of the error. A message
// that is taken back leaves its batch, or, if that runs already, has its outcome
// ignored; its handler returns nil and publishes nothing.
//
// With any other subscriber, the messages of the key that are here fail with an
// error that wraps ack.ErrCalledBack, so that they are redelivered.
//
// # Outages
//
// Batcher.Isolate finds the messages that make a batch fail, and tells them from
// an outage. With Batcher.Probe a batcher handles single messages only, at
// growing pauses, while nothing succeeds.
//
// # When a message's context ends
//
//   - Called back (the cause is ack.ErrCalledBack): as said above.
//   - Cancelled: the message is fenced, the time to drain is over, or a
//     subscriber without Deliveries stops, after which its acks do not count. It
//     leaves its batch and returns the context's error. In a running
//     batch it stays until that is done, since the batch handler has it in its
//     hands; that handler's context ends when the last message of the batch, if
//     all have Deliveries, has ended so.
//   - With a deadline (Watermill's Timeout outside): waiting for more messages
//     is over. The batch is handled at once, with the message.
//
// # Watching
//
// Stats has counters and what waits and runs, for each batcher. Config.OnBatch is
// told of each batch that was handled. Package metrics shows both to Prometheus.
package batching
