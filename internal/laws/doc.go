// Package laws has the tests of guarantees across package borders: the laws L1
// to L9 of docs/guarantees.md with real processes, real sockets and a real
// emulator. It has no code to import.
package laws
