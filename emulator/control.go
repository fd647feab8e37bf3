package emulator

import (
	"fmt"
	"slices"

	"github.com/watermill-ots/watermill-ots/internal/plainbuffer"
)

// Split divides the table's largest partition in two: its stream shard is
// closed, and two child shards continue where it ended. It returns once that is
// durable. The table can be written and read meanwhile.
func (e *Emulator) Split(table string) error { return naming("splitting", table, e.store.Split(table)) }

// SplitAt divides the table's partitions at the given values of the first
// primary key column, each an int64 or int, a string or a []byte, according to
// the column's type. A table that is split before its first use has one channel
// more than there are values, from the start.
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
// their stream shards are closed, and one child shard continues where they
// ended.
func (e *Emulator) Merge(table string) error {
	return naming("merging partitions of", table, e.store.Merge(table))
}

// naming adds the table's name to an error, since the service's messages do not
// contain it.
func naming(what, table string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s table %s: %w", what, table, err)
}

// Rebalance makes the service reassign the tunnel's channels.
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

// ExpireTunnel makes the tunnel answer OTSTunnelExpired, as if log records that
// it still needs were lost.
func (e *Emulator) ExpireTunnel(table, tunnel string) error {
	id, err := e.tunnels.TunnelID(table, tunnel)
	if err != nil {
		return err
	}
	return e.tunnels.ExpireTunnel(id)
}
