// Package emulator is a Tablestore that runs on one machine: the table API and
// the tunnel API over HTTP, for tests, examples and cmd/ots-emulator. The
// official SDKs use it unmodified.
//
//	e, err := emulator.Start(emulator.Options{Instance: "test"})
//	if err != nil { … }
//	defer e.Close()
//	client := tunnel.NewTunnelClient(e.Endpoint(), "test", "any", "any")
//
// # What it imitates
//
// Tables with versions, time to live, conditions, filters, auto-increment keys,
// local transactions and secondary indexes; streams with partitions that split
// and merge; tunnels with clients, heartbeats, channels, checkpoints, tokens and
// ownership; signatures; the service's errors with their codes and statuses.
// What a client sees on the wire is what the public documentation and the
// official SDKs' code say of the service; where neither says it, the choice is
// written down at the code.
//
// # What it does not
//
// Search, SQL, time series and delivery tasks answer with
// OTSUnsupportOperation; docs/emulator.md has a table of all operations.
// Reserved throughput is kept but never enforced; partitions never split by
// themselves, only by Split.
//
// # Strictness
//
// What the service documents as refused is refused, with its codes and messages,
// so that what passes here passes in production. Options.Lenient takes what the
// SDKs' own tests do against the documentation.
//
// # Safety
//
// Web pages in a browser of the same machine can reach an emulator. Requests of
// other origins and for unknown host names are refused; see Options.AllowedHosts.
//
// # Faults
//
// Inject makes chosen requests fail, hang, break off or come twice, so that a
// client's error handling can be tested on purpose.
//
// # Time
//
// The emulator uses package time and starts no goroutine outside Start, so it
// runs inside a testing/synctest bubble when InMemory is set: sockets are
// replaced by pipes in memory, which Transport dials.
package emulator
