package tunnels

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Keys of the saved state. A record carries its ids itself, so a key only has to
// be unique and to begin with its kind.
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

// takeChanges returns what has changed since the last call in its saved form.
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
		if err != nil { // strings, numbers, bytes and flags always have a JSON form
			panic(fmt.Sprintf("tunnels: encode %s: %v", key, err))
		}
		encoded[key] = b
	}
	clear(t.changed)
	return encoded
}

// load reads the saved state into an empty service.
func (s *Service) load() error {
	err := loadEach(s.src, tunnelPrefix, func(r *tunnelRecord) error {
		t := newTunnel(*r)
		s.tunnels[t.ID] = t
		s.names[name{t.Table, t.Name}] = t
		return nil
	})
	if err != nil {
		return err
	}
	err = loadEach(s.src, channelPrefix, func(r *channelRecord) error {
		t := s.tunnels[r.TunnelID]
		if t == nil {
			return fmt.Errorf("it belongs to no tunnel")
		}
		c := &channel{channelRecord: *r, readCount: r.Count, readRPO: r.RPO}
		t.channels = append(t.channels, c)
		t.byID[c.ID] = c
		return nil
	})
	if err != nil {
		return err
	}
	now := s.cfg.Now()
	err = loadEach(s.src, clientPrefix, func(r *clientRecord) error {
		t := s.tunnels[r.TunnelID]
		if t == nil {
			return fmt.Errorf("it belongs to no tunnel")
		}
		// A client that was only connected joins again with its next heartbeat.
		t.clients[r.ID] = &client{clientRecord: *r, lastSeen: now}
		return nil
	})
	if err != nil {
		return err
	}
	for _, t := range s.tunnels {
		slices.SortFunc(t.channels, func(a, b *channel) int { return cmp.Compare(a.Order, b.Order) })
		for _, c := range t.channels {
			if c.Owner == "" {
				continue
			}
			owner := t.clients[c.Owner]
			if owner == nil {
				return fmt.Errorf("tunnels: saved state: channel %s of tunnel %s is owned by the unknown client %s", c.ID, t.ID, c.Owner)
			}
			owner.joined = true
		}
	}
	return nil
}

// loadEach decodes each saved record whose key begins with prefix.
func loadEach[R any](src Source, prefix string, f func(*R) error) error {
	return src.LoadState(prefix, func(key string, value []byte) error {
		dec := json.NewDecoder(strings.NewReader(string(value)))
		dec.DisallowUnknownFields() // written by another version: better an error than half a state
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
