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
// Messages with the same ordering key join batches in the order in which the
// processing step ends, and batches that share an ordering key run one after
// the other, also across batchers. The ordering key comes from the subscriber
// (ack.Delivery) or from Config.OrderingKey. The batch key has nothing to do
// with it: it only says which messages may be in one batch.
//
// A subscriber whose messages carry an ack.Delivery may deliver the next
// message of a key while the one before waits in a batch: the middleware tells
// it (HandOff) when a message has its place. If the message fails, it has the
// later ones taken back (CallBack) before anybody hears of the error. A message
// that is taken back leaves its batch, or, if that runs already, has its outcome
// ignored; its handler returns nil and publishes nothing.
//
// With any other subscriber a failed message does not hold back those behind
// it, as everywhere in Watermill.
//
// # When a message's context ends
//
//   - Called back (the cause is ack.ErrCalledBack): as said above.
//   - With a Delivery, cancelled: the message is fenced or the time to drain is
//     over. It leaves its batch and returns the context's error. In a running
//     batch it stays until that is done, since the batch handler has it in its
//     hands; that handler's context ends when the last message of the batch has
//     ended so.
//   - With a deadline (Watermill's Timeout outside), or with no Delivery: waiting
//     for more messages is over. The batch is handled at once, with the message.
//     Watermill's Router cancels all contexts to close, and the messages are
//     better handled than dropped.
//
// # Watching
//
// Stats has counters and what waits and runs, for each batcher. Config.OnBatch is
// told of each batch that was handled. Package metrics shows both to Prometheus.
package batching
