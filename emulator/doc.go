// Package emulator is a Tablestore that runs on one machine: the table API and
// the tunnel API over HTTP, for tests, examples and cmd/ots-emulator. The
// official SDKs work with it unmodified.
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
// What a client sees on the wire follows the public documentation and the code
// of the official SDKs. Where neither says anything, a comment at the code
// states the choice.
//
// # What it does not
//
// Search, SQL, time series and delivery tasks answer with
// OTSUnsupportOperation; docs/emulator.md has a table of all operations.
// Reserved throughput is stored but never enforced. Partitions split only when
// Split is called, never by themselves.
//
// # Strictness
//
// Requests that the service documents as refused are refused, with its codes
// and messages, so that what works here works in production. Options.Lenient
// accepts what the SDKs' own tests do against the documentation.
//
// # Safety
//
// Web pages in a browser of the same machine can reach an emulator. Requests of
// other origins and for unknown host names are refused; see Options.AllowedHosts.
//
// # Faults
//
// Inject makes chosen requests fail, hang, lose their connection or be
// delivered twice, so that a client's error handling can be tested.
//
// # Time
//
// The emulator uses package time, and every goroutine is started by Start. So
// with InMemory it runs inside a testing/synctest bubble: in-memory pipes,
// which Transport dials, replace the sockets.
package emulator
