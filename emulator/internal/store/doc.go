// Package store keeps the emulator's tables: rows with their cell versions,
// ordered by primary key and divided into partitions, and for each table with
// a stream a log per shard that holds every change once, in order, encoded as
// it will be served.
//
// Memory is authoritative. With a data directory every change also goes to one
// bbolt file; a write returns after the commit that holds it, and a record of
// the log is readable from then on. Memory is ahead of the file meanwhile, so
// whoever reads rows or descriptions does it in Store.Read, which waits until what
// was read is on disk: nothing that anybody has seen can be missing after a crash.
// When the disk refuses a commit, memory is read from the file again.
//
// # Clocks
//
// Cells and log records have the time of Config.Now, which may jump. What expires
// is counted by Config.Aging, which never goes back.
//
// # Locks
//
// They are taken in this order and never held over I/O:
// Store.mu, Table.mu, partition.mu, shard.mu, committer.mu, transactions.mu.
// Of a table and its indexes the table's comes first.
// Rows and log records are never changed in place: a slice that was read under
// a lock stays valid, and unchanged, after the lock is released.
package store
