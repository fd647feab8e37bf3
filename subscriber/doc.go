// Package subscriber is a Watermill Subscriber over the tunnels of Aliyun
// Tablestore (OTS): it turns every change of a table into a message, and the
// acks of the messages into the tunnel's checkpoints.
//
// A topic is "table/tunnel". Each Subscribe connects tunnel clients of its own;
// the service shares the tunnel's channels among all clients of the tunnel, in
// this process and in others.
//
// # What is promised
//
//   - No loss: a checkpoint is stored only when every record before it was
//     acked. A crash at any moment loses nothing.
//   - Few duplicates: after a restart only records come again that were in
//     flight, or acked since the last checkpoint. A message's UUID is the same
//     on every delivery of the same record, in every process.
//   - Order: with OrderByKey, the default, records of one primary key are
//     delivered in order, the next one only after the one before is acked, also
//     after a Nack; different keys run side by side. OrderByChannel keeps the
//     order of the whole channel, Unordered none.
//   - Bounded memory: at most MaxInFlight records of at most MaxInFlightBytes are
//     in flight, plus one page a channel. Reading stops and starts again by itself.
//   - Clean end: when Subscribe's context ends, or at Close, reading stops,
//     messages that are out may be settled for CloseTimeout, what was acked is
//     committed, the clients are ended at the service, and the output is closed.
//   - A message that fails comes again after NackBackoff, for as long as it
//     takes. It holds back its own key and the checkpoint, nothing else.
//
// # What is not
//
// Delivery is at least once, never exactly once: a channel that moves to another
// client while a handler runs is read there again from the last checkpoint, so
// two handlers may have the same record at once. Use the UUID to drop duplicates
// where that matters.
//
// # Contexts
//
// A message's context carries the values of Subscribe's context and the typed
// record (RecordFromMessage). It is cancelled when the message is acked or
// nacked (cause ErrSettled), when its channel is lost (ErrChannelLost), when
// the time of a drain is up (ErrDrainTimeout), and when the message is called
// back because an earlier one of its key failed in a batch (ack.ErrCalledBack).
// It outlives Subscribe's context, whose end only starts the drain.
//
// # Failures of the service
//
// Calls that fail in a way that passes are tried again with backoff, for ever,
// and logged. A lost session is connected again. A tunnel that is deleted or
// expired closes the output; Err tells why.
//
// # Watching
//
// Status tells what goes on: clients, channels with their lag and what they have
// in flight, the records that fail and why, and counters of everything. RPO asks
// the service for its own view. Packages metrics and health show them to
// Prometheus, to a kubelet and to people; OnPhase, OnAlarm and OnAck in Config are told as
// things happen.
package subscriber
