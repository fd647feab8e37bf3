// Package store keeps the emulator's tables: rows with their cell versions,
// ordered by primary key and divided into partitions. Each table with a stream
// has a log per shard, which holds every change once, in order, encoded as it
// will be served.
//
// Memory is authoritative. With a data directory every change also goes to one
// bbolt file: a write returns after the commit that holds it, and its log
// record becomes readable at the same time. Until then memory is ahead of the
// file, so rows and descriptions must be read in Store.Read, which waits until
// what was read is on disk: nothing that a client has seen can be missing after
// a crash. When the disk refuses a commit, memory is read from the file again.
//
// # Clocks
//
// Cells and log records have the time of Config.Now, which may jump. Expiry is
// counted by Config.Aging, which never goes back.
//
// # Locks
//
// Locks are taken in this order and never held over I/O: Store.mu, Table.mu,
// partition.mu, shard.mu, committer.mu, transactions.mu. A table's lock is
// taken before those of its indexes. Rows and log records are never changed in
// place: a slice that was read under a lock stays valid and unchanged after the
// lock is released.
package store
