// Package tunnels is the emulator's tunnel service: which tunnels a table has,
// in which channels they are read, who owns a channel, and how far it has been
// consumed. It implements the thirteen operations below /tunnel/, protobuf in,
// protobuf out. Its caller handles HTTP, signatures and injected faults; a
// [Source] provides the table's rows and log.
//
// # The states of a channel
//
//	        owner's heartbeat            balance, schedule
//	WAIT ─────────────────────▶ OPEN ─────────────────────▶ CLOSING
//	 ▲                           │                            │
//	 ├── owner reports CLOSE ────┴────────────────────────────┤
//	 ├── owner is silent for its timeout, or shuts down ──────┤
//	 │                                                        │
//	 └────── the owner reports TERMINATED, ─▶ TERMINATED ◀────┘
//	         or has stored the finish token
//
// A channel is assigned only once everything before it has ended: a stream
// channel after its parents (a shard's split or merge) and, in a BaseAndStream
// tunnel, after all base channels. The service gives no order beyond that and a
// single owner at a time.
//
// # Versions
//
// Each change of a channel's status raises its version, whether the service or
// the client makes it. A heartbeat's entry counts only if its version is above
// the stored one (a CLOSE or TERMINATED also with the same version, since it
// may have crossed a CLOSING of the service). The response never has a version
// below one that the client has reported: both SDKs keep their own entry
// against a lower version, and build a dead connection from a stale one. A
// channel that was reported CLOSE or TERMINATED is left out of that response,
// or is OPEN in it with a higher version.
//
// # What the real service does not document
//
// These are our decisions, and tests check them:
//
//   - TERMINATED is accepted from an owner that was given the channel's finish
//     token, or that found it as the checkpoint. (The official Go SDK may lose
//     the last checkpoint, so an older one is not a reason for doubt.) Any
//     other TERMINATED counts as CLOSE: the channel is opened again at its
//     checkpoint.
//   - A stored finish token ends the channel with the next heartbeat of any
//     client, or with the owner's shutdown or timeout. Until then the owner may
//     still read the checkpoint: the test of ex_aliyun_ots (Elixir) does.
//   - A client takes part in the balance once it has sent a heartbeat.
//   - Channels are assigned to the client whose heartbeat is being answered, up
//     to its fair share; none is reserved for a client in advance.
//   - An idle stream channel's recovery point is the time of its last read.
//   - Deleting a table deletes its tunnels before the deletion is answered. A
//     later table with the same name has none of them.
//   - A channel without an owner may be read, not written, without a client.
//   - If a stream was turned off, or its log was dropped beyond a channel's
//     checkpoint, the tunnel has expired permanently.
//
// # State
//
// Everything except statistics is saved through the Source before the request
// that changed it is answered, so to its clients a killed process looks like a
// pause: they keep their ids and channels, with a fresh heartbeat deadline. A
// change that the Source refuses to save is taken back, with the same result.
// The package has no goroutines and no timers: deadlines are checked on each
// request, so the service works in a testing/synctest bubble.
package tunnels
