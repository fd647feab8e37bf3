package tunnels

import "github.com/watermill-ots/watermill-ots/emulator/internal/wire"

// errLost is the answer to a request that depends on a change which could not
// be saved.
var errLost = wire.Errorf(wire.CodeTunnelServerUnavailable, "a change that this call depends on could not be saved, and was taken back; try again")

// restore restores the service to what is saved, after the Source refused to
// save more: a checkpoint that was not stored is not served, and what is stored
// continues to be served. To clients it looks like a restart: they keep their
// ids and channels, with a fresh heartbeat deadline.
//
// The previous tunnel objects are marked lost: a caller that holds one finds
// out when it has locked it.
func (s *Service) restore(cause error) error {
	all, err := s.loadTunnels()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, old := range s.tunnels {
		old.mu.Lock()
		old.lost = true
		if t := all[old.ID]; t != nil {
			t.keepStatistics(old)
		}
		old.mu.Unlock()
	}
	// No previous tunnel changes any more, and none of the restored ones has
	// changed yet.
	s.journal.discard(cause)
	s.take(all)
	return nil
}

// keepStatistics copies what is not saved: how far channels were read.
func (t *tunnel) keepStatistics(old *tunnel) {
	for _, c := range t.channels {
		if before := old.byID[c.ID]; before != nil {
			c.accessTime, c.readCount, c.readRPO, c.served = before.accessTime, before.readCount, before.readRPO, before.served
		}
	}
}

// gone returns why the tunnel can no longer be used. t.mu is held.
func (t *tunnel) gone() error {
	switch {
	case t.lost:
		return errLost
	case t.deleted:
		return unknownTunnel(t.assume, t.ID)
	}
	return nil
}
