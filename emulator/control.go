package emulator

// Split divides the table's largest partition in two: its stream shard is
// closed, and two children go on where it ended. It returns once that is
// durable. Writes and reads of the table may go on meanwhile.
func (e *Emulator) Split(table string) error { return e.store.Split(table) }

// Merge joins the table's two neighbouring partitions with the fewest rows:
// their stream shards are closed, and one child goes on where they ended.
func (e *Emulator) Merge(table string) error { return e.store.Merge(table) }

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
