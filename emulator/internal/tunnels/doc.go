// Package tunnels is the emulator's tunnel service: which tunnels a table has,
// which channels they are read in, who owns a channel, and how far it was
// consumed. It serves the thirteen operations below /tunnel/ as protobuf in,
// protobuf out; HTTP, signatures and injected faults are its caller's, and the
// table's rows and log come from a [Source].
//
// # A channel's life
//
//	        owner's heartbeat            balance, schedule
//	WAIT ─────────────────────▶ OPEN ─────────────────────▶ CLOSING
//	 ▲                           │                            │
//	 ├── owner reports CLOSE ────┴────────────────────────────┤
//	 ├── owner is silent for its timeout, or shuts down ──────┤
//	 │                                                        │
//	 └────── the owner reports TERMINATED ──▶ TERMINATED ◀────┘
//
// A channel is handed out only once everything that comes before it has ended:
// a stream channel after its parents (a shard's split or merge) and, in a
// BaseAndStream tunnel, after all base channels. That, and one owner at a time,
// is all the order the service gives.
//
// # Versions
//
// Each change of a channel's status raises its version, whichever side makes
// it. A heartbeat's entry counts only with a version above the stored one (a
// CLOSE or TERMINATED also with the same, when it has crossed a CLOSING of the
// service), and the answer never holds a version below one that the client has reported:
// both SDKs keep their own entry against a lower version, and build a dead
// connection from a stale one. A channel that was reported CLOSE or TERMINATED
// is left out of that same answer, or is OPEN again with a higher version.
//
// # What the real service does not document
//
// Decided here, and kept by tests with that name:
//
//   - TERMINATED is believed of an owner that was handed the channel's finish
//     token, or found it as the checkpoint. (The official Go SDK may lose the
//     last checkpoint, so an older one is no reason to doubt.) Any other
//     TERMINATED counts as CLOSE: the channel is opened again at its checkpoint.
//   - A client takes part in the balance from its first heartbeat on.
//   - Channels are handed to the client whose heartbeat is being answered, up to
//     its fair share; nothing is kept for a client before it asks.
//   - An idle stream channel's recovery point is the time of its last read.
//   - Deleting a table deletes its tunnels, before the deletion is answered. A new
//     table of the same name has none of them.
//   - A channel that nobody owns may be read, not written, without a client.
//   - A stream that was turned off, or whose log was dropped beyond a channel's
//     checkpoint, expires the tunnel for good.
//
// # State
//
// Everything but statistics is saved through the Source before the call that
// changed it is answered, so a killed process looks like a pause to its
// clients: they keep their ids and channels, with a fresh heartbeat deadline.
// A change that the Source refuses to save is taken back in the same way.
// The package starts no goroutine and owns no timer: deadlines are looked at
// when somebody calls, so the service may live in a testing/synctest bubble.
package tunnels
