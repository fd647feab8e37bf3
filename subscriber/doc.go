// Package subscriber is a Watermill Subscriber over the tunnels of Aliyun
// Tablestore (OTS): it turns every change of a table into a message, and the
// acks of the messages into the tunnel's checkpoints.
//
// A topic is "table/tunnel". Each Subscribe connects tunnel clients of its own;
// the service shares the tunnel's channels among all clients of the tunnel, in
// this process and in others. Where there are several processes, set
// Config.Preset to PresetFleet: at the defaults the channels of a process that
// is killed stand still for 5 minutes.
//
// # What is promised
//
//   - No loss: a checkpoint is stored only when every record before it was
//     acked. A crash at any moment loses nothing.
//   - Few duplicates: after a restart only records are redelivered that were in
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
//   - A failed message is redelivered after NackBackoff, for as long as it
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
// At the start, what cannot succeed fails at once (credentials that are refused, no such
// table or tunnel, a tunnel that has expired or is of another type), and while the service
// is busy, throttles, cannot be reached or does not answer in time, Subscribe tries again
// with backoff, which it logs once, until it succeeds, its context ends or Close is called.
//
// Later, failed calls are retried with backoff, without limit, and logged. A lost
// session is connected again. A tunnel that is deleted or
// expired closes the output, and so does a gap: changes that the service deleted before
// they were read. Err tells why. With OnGapRecreate the subscription replaces the tunnel instead, and
// delivers all rows of the table again.
//
// # Ends
//
// An output closes, or Handle's done, when its context ends, at Close, when the tunnel is deleted or
// expires, and when a tunnel that has an end was read to it, as BaseData is. A message.Router
// makes no difference between them: RunRouter runs one and returns what went wrong.
//
// # Watching
//
// Status shows the current state: clients, channels with their lag and what they have
// in flight, the records that fail and why, the calls that fail without success
// (Trouble), and counters of everything. It also has the tunnel as the service sees it
// (TunnelView): who reads each channel, in this process or in others, and which
// channels are not read. RPO asks the service for its own view. Packages metrics and health show them to
// Prometheus, to a kubelet and to people; OnPhase, OnAlarm and OnAck in Config are called as
// things happen.
package subscriber
