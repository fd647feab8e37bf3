// Package store keeps the emulator's tables: rows with their cell versions,
// ordered by primary key and divided into partitions, and for each table with
// a stream a log per shard that holds every change once, in order, encoded as
// it will be served.
//
// Memory is authoritative. With a data directory every change also goes to one
// bbolt file; a write returns after the commit that holds it, and a record of
// the log is readable from then on, so nothing that a consumer has seen and
// checkpointed can be missing after a crash.
//
// # Locks
//
// They are taken in this order and never held over I/O:
// Store.mu, Table.mu, partition.mu, shard.mu, committer.mu.
// Rows and log records are never changed in place: a slice that was read under
// a lock stays valid, and unchanged, after the lock is released.
package store
