// Package ledger tracks the records of tunnel channels between the read and the
// checkpoint: what is in flight, what may be delivered next, which token may be
// committed, and whether one more page may be read. It knows pages, keys and opaque
// tokens; it does no I/O, reads no clock and starts no goroutine.
//
// A Tracker serves one channel. The channel's reader adds pages, its deliverer takes
// attempts with Next and gives them to handlers, and the outcome of each attempt is
// reported with Ack or Nack. The channels of one Subscribe share a Window, in which
// each has a Lane. Handlers and batching middlewares do not see this package: they see
// an ack.Delivery, which subscriber builds from an Attempt.
//
// # Guarantees
//
//   - No loss (L1). A token is committable only when every record of its page
//     and of all pages before is acked. Tokens become committable in the order
//     of the pages; some may be skipped, none is repeated.
//   - Bounded duplicates (L2). The watermark is always as far as L1 allows: one
//     call of Committable after an ack returns all that this ack made final.
//   - Order (L3). Of the records with one ordering key, each is delivered only
//     when all earlier ones are acked or handed off. After a failure the failed
//     record is redelivered first, then the later ones, in order, and only after
//     every handler of these records has ended.
//   - Fencing (L4). After Fence no outcome counts and no token is committable;
//     while a tracker drains no more records are delivered.
//   - Bounded memory (L6). See Window: records and bytes in flight exceed the
//     capacity by at most one page a lane (and by the growth that Window names, where Release adds to pages), each lane has a share that others
//     cannot take, and a waiting lane is woken when it may read. The tracker's own
//     memory is limited by the records in flight, however many pages the channel
//     reads past a record that is stuck.
//   - Poison stays local (L8). A record that always fails holds back the records
//     of its key and the watermark, nothing else. Stats names it.
//
// # Not guaranteed
//
//   - An order between different keys, or between channels.
//   - That a cancelled handler has stopped. The handler of a fenced attempt may still
//     run; that is at-least-once.
//   - That only one handler has a record. One tracker ensures it, but when another
//     worker takes over the channel there are two trackers.
//   - That an ack can be taken back. Of two records of one key that are handed off,
//     the later may be acked before the earlier fails; then the earlier is redelivered
//     alone. A caller of HandOff must settle in order, or call back first.
//
// # States of an entry
//
//	          Next             HandOff           Begin
//	queued ──────────▶ delivered ──────▶ waiting ──────▶ begun
//	   ▲                   │                │              │
//	   │ due               └────────────────┼──────────────┘
//	   │                                    │ CallBack
//	retrying                                ▼
//	                                      failed
//
// In each of delivered, waiting, begun and failed, which are called in force:
//
//	Ack                                       ──▶ gone
//	Nack                                      ──▶ retrying (queued, if without backoff)
//	Nack or CallBack of an earlier record
//	with the same key                         ──▶ called back
//
// In called back, where a handler still runs and its outcome is ignored:
//
//	Ack or Nack, which only report its end           ──▶ queued
//
// The records of a page that is added as Withheld begin in the state withheld, and Release makes
// them queued, from the front of the page on.
//
// Drain turns withheld, queued and retrying into gone; entries that would later become queued or
// retrying become gone too. Their page is then lost, and holds the watermark back for
// good. Fence turns all states into gone.
//
// Waiting and begun together are called handed off: only in these states may the next
// record of the key be delivered. The difference between the two matters only to Hurry.
//
// # Cost
//
// All operations on a record are amortised O(1), except for O(log r) on a nack with r
// records waiting for their retry, O(n) in Drain and Fence, and O(lanes) for each page.
// A page allocates one slice for its entries, a key in flight a queue, which is reused.
// A single record does not allocate.
package ledger
