// Package verify checks what this project assumes about Tablestore's tunnel service,
// and its laws in miniature, against a real instance or the emulator. The command
// "ots verify" runs it; docs/assumptions.md is generated from its list.
//
// A check makes what it needs under names with a random prefix, in a table and in
// tunnels of its own, and nothing else is touched. What is made is written down before
// it is made (Made), so that Clean can remove it after a crash.
package verify
