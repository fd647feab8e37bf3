// Package laws holds the tests of the promises that cross package borders: the
// laws L1 to L9 of docs/guarantees.md with real processes, real sockets and a
// real emulator. There is no code to import here.
package laws
