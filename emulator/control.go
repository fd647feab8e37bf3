package emulator

import (
	"fmt"
	"slices"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// Split divides the table's largest partition in two: its stream shard is
// closed, and two children go on where it ended. It returns once that is
// durable. Writes and reads of the table may go on meanwhile.
func (e *Emulator) Split(table string) error { return naming("splitting", table, e.store.Split(table)) }

// SplitAt divides the table's partitions at the given values of the first
// primary key column, each an int64 or int, a string or a []byte, as that column is.
// A table that is divided before it is used has that many channels, and one
// more, from the start.
func (e *Emulator) SplitAt(table string, partitionKeys ...any) error {
	values := make([]plainbuffer.Value, len(partitionKeys))
	for i, key := range partitionKeys {
		switch key := key.(type) {
		case int64:
			values[i] = plainbuffer.IntegerValue(key)
		case int:
			values[i] = plainbuffer.IntegerValue(int64(key))
		case string:
			values[i] = plainbuffer.StringValue(key)
		case []byte:
			values[i] = plainbuffer.BinaryValue(slices.Clone(key))
		default:
			return fmt.Errorf("splitting table %s: partition key %v is a %T, not an int64, string or []byte", table, key, key)
		}
	}
	return naming("splitting", table, e.store.SplitAt(table, values...))
}

// Merge joins the table's two neighbouring partitions with the fewest rows:
// their stream shards are closed, and one child goes on where they ended.
func (e *Emulator) Merge(table string) error {
	return naming("merging partitions of", table, e.store.Merge(table))
}

// naming adds the table to an error, which the service's messages do not name.
func naming(what, table string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s table %s: %w", what, table, err)
}

// Rebalance makes the service hand out the tunnel's channels anew.
func (e *Emulator) Rebalance(table, tunnel string) error {
	id, err := e.tunnels.TunnelID(table, tunnel)
	if err != nil {
		return err
	}
	return e.tunnels.Rebalance(id)
}

// ExpireClient makes the service drop a client of the tunnel, as if its
// heartbeats had stopped.
func (e *Emulator) ExpireClient(table, tunnel, clientID string) error {
	id, err := e.tunnels.TunnelID(table, tunnel)
	if err != nil {
		return err
	}
	return e.tunnels.ExpireClient(id, clientID)
}

// ExpireTunnel makes the tunnel answer OTSTunnelExpired, as if the log that it
// still needs were gone.
func (e *Emulator) ExpireTunnel(table, tunnel string) error {
	id, err := e.tunnels.TunnelID(table, tunnel)
	if err != nil {
		return err
	}
	return e.tunnels.ExpireTunnel(id)
}
