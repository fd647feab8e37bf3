package tunnels

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Keys of the saved state. A record contains its ids, so a key only has to be
// unique and to begin with its kind.
const (
	tunnelPrefix  = "tunnels/tunnel/"
	channelPrefix = "tunnels/channel/"
	clientPrefix  = "tunnels/client/"
)

func tunnelKey(id string) string            { return tunnelPrefix + id }
func channelKey(tunnelID, id string) string { return channelPrefix + tunnelID + "/" + id }
func clientKey(tunnelID, id string) string  { return clientPrefix + tunnelID + "/" + id }
func (t *tunnel) touch(c *channel)          { t.changed[channelKey(t.ID, c.ID)] = &c.channelRecord }
func (t *tunnel) touchSelf()                { t.changed[tunnelKey(t.ID)] = &t.tunnelRecord }
func (t *tunnel) touchClient(c *client)     { t.changed[clientKey(t.ID, c.ID)] = &c.clientRecord }

// takeChanges returns what has changed since the last call, in its saved form.
func (t *tunnel) takeChanges() map[string][]byte {
	if len(t.changed) == 0 {
		return nil
	}
	encoded := make(map[string][]byte, len(t.changed))
	for key, record := range t.changed {
		if record == nil {
			encoded[key] = nil
			continue
		}
		b, err := json.Marshal(record)
		if err != nil { // strings, numbers, bytes and booleans always have a JSON form
			panic(fmt.Sprintf("tunnels: encode %s: %v", key, err))
		}
		encoded[key] = b
	}
	clear(t.changed)
	return encoded
}

// load reads the saved state.
func (s *Service) load() error {
	all, err := s.loadTunnels()
	if err == nil {
		s.take(all)
	}
	return err
}

// take replaces all tunnels. s.mu is held, or the service is not shared yet.
func (s *Service) take(all map[string]*tunnel) {
	s.tunnels, s.names = all, make(map[name]*tunnel, len(all))
	for _, t := range all {
		s.names[name{t.Table, t.Name}] = t
	}
}

// loadTunnels reads all saved tunnels, by id.
func (s *Service) loadTunnels() (map[string]*tunnel, error) {
	all := make(map[string]*tunnel)
	err := loadEach(s.src, tunnelPrefix, func(r *tunnelRecord) error {
		t := s.newTunnel(*r)
		if t.TableID == "" { // saved by a version that identified tables by name only
			id, err := s.src.TableID(t.Table)
			if err != nil && !noTable(err) {
				return err
			}
			t.TableID = id
			t.touchSelf()
			s.journal.add(t.takeChanges())
		}
		all[r.ID] = t
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = loadEach(s.src, channelPrefix, func(r *channelRecord) error {
		t := all[r.TunnelID]
		if t == nil {
			return fmt.Errorf("its tunnel does not exist")
		}
		c := &channel{channelRecord: *r, readCount: r.Count, readRPO: r.RPO}
		t.channels = append(t.channels, c)
		t.byID[c.ID] = c
		return nil
	})
	if err != nil {
		return nil, err
	}
	now := s.cfg.Now()
	err = loadEach(s.src, clientPrefix, func(r *clientRecord) error {
		t := all[r.TunnelID]
		if t == nil {
			return fmt.Errorf("its tunnel does not exist")
		}
		// A client that had only connected joins with its next heartbeat.
		t.clients[r.ID] = &client{clientRecord: *r, lastSeen: now, heard: s.cfg.Aging.Now()}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, t := range all {
		slices.SortFunc(t.channels, func(a, b *channel) int { return cmp.Compare(a.Order, b.Order) })
		for _, c := range t.channels {
			if c.Owner == "" {
				continue
			}
			owner := t.clients[c.Owner]
			if owner == nil {
				return nil, fmt.Errorf("tunnels: saved state: channel %s of tunnel %s is owned by the unknown client %s", c.ID, t.ID, c.Owner)
			}
			owner.joined = true
		}
	}
	return all, nil
}

// loadEach decodes each saved record whose key begins with prefix.
func loadEach[R any](src Source, prefix string, f func(*R) error) error {
	return src.LoadState(prefix, func(key string, value []byte) error {
		dec := json.NewDecoder(strings.NewReader(string(value)))
		dec.DisallowUnknownFields() // if another version wrote it, an error is better than half a state
		r := new(R)
		err := dec.Decode(r)
		if err == nil {
			err = f(r)
		}
		if err != nil {
			return fmt.Errorf("tunnels: saved state %q: %w", key, err)
		}
		return nil
	})
}
