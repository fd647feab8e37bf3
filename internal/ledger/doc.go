// Package ledger keeps the ledger of tunnel channels between the read and the
// checkpoint: what is in flight, what may be delivered next, which token may be
// committed, and whether there is room to read on. It knows pages, keys and
// opaque tokens; no I/O, no clock, no goroutine.
//
// A Tracker serves one channel. Its reader adds pages, a deliverer takes
// attempts with Next and hands them to handlers, and whoever sees an outcome
// says Ack or Nack. The channels of one Subscribe share a Window, in which each
// has a Lane. Handlers, and a middleware that batches, know nothing of this: they see
// an ack.Delivery, which subscriber makes of an Attempt.
//
// # What is promised
//
//   - No loss (L1). A token is committable only when every record of its page
//     and of all pages before is acked. Tokens become committable in the order
//     of the pages; some may be skipped, none comes twice.
//   - Bounded duplicates (L2). The watermark is always as far as L1 allows: one
//     look at Committable after an ack finds all that this ack made final.
//   - Order (L3). Of the records with one ordering key, each is delivered only
//     when all earlier ones are acked or handed off. After a failure the failed
//     record comes first, then the later ones, in order, and not before every
//     handler that had one of them has ended.
//   - Fencing (L4). After Fence no outcome counts and nothing is committable;
//     while a tracker drains nothing new is delivered.
//   - Bounded memory (L6). See Window: records and bytes in flight exceed the
//     capacity by at most one page a lane, each lane has a share that others
//     cannot take, and a lane that waits is woken when it has room. What the
//     tracker itself keeps is bounded by the records in flight, however far the
//     channel reads on past a record that is stuck.
//   - Poison stays local (L8). A record that fails for ever holds back the
//     records of its key and the watermark, nothing else. Stats names it.
//
// # What is not promised
//
//   - An order between different keys, or between channels.
//   - That a handler which was told to stop has stopped. A fenced attempt may
//     still run; that is at-least-once.
//   - That only one handler has a record. One tracker sees to it, but when another
//     worker takes the channel over there are two.
//   - That an ack can be taken back. Of two records of one key that are handed
//     off, the later may be acked before the earlier fails; then the earlier
//     comes alone. Whoever hands off settles in order, or calls back first.
//
// # The life of an entry
//
//	          Next             HandOff           Begin
//	queued ──────────▶ delivered ──────▶ waiting ──────▶ begun
//	   ▲                   │                │              │
//	   │ due               └────────────────┼──────────────┘
//	   │                                    │ CallBack
//	retrying                                ▼
//	                                      failed
//
// In each of delivered, waiting, begun and failed, which are the states in force:
//
//	Ack                                       ──▶ gone
//	Nack                                      ──▶ retrying (queued, if at once)
//	Nack or CallBack of an earlier record
//	with the same key                         ──▶ called back
//
// In called back, where a handler still runs whose outcome is ignored:
//
//	Ack or Nack, which means no more than its end    ──▶ queued
//
// Drain turns queued and retrying into gone, and so it does with every later way
// to them; the page is then lost, and holds the watermark back for ever. Fence
// turns everything into gone.
//
// Waiting and begun are together called handed off: only they let the next
// record of the key go. The difference between them matters to Hurry alone.
//
// # Cost
//
// Everything a record goes through is amortised O(1), but for O(log r) on a nack
// with r records waiting for their retry, O(n) in Drain and Fence, and O(lanes)
// once a page. A page costs one slice for its entries, a key in flight a queue,
// which is used again; a record allocates nothing by itself.
package ledger
