package tunnels

import (
	"fmt"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// TunnelState is the state of a tunnel for tests and the admin API. Times are
// UTC, zero for never.
type TunnelState struct {
	TunnelID, Table, Name string
	Type                  string
	Stage                 string
	Expired               bool
	Created               time.Time
	Channels              []ChannelState
	Clients               []ClientState
}

// ChannelState is a channel of a tunnel.
type ChannelState struct {
	ChannelID    string
	Type         string
	Status       Status
	Version      int64
	ClientID     string // the owner; empty: none
	Suspended    bool
	Parents      []string
	Checkpoint   string
	Sequence     int64
	Consumed     int64     // records up to the checkpoint
	ConsumedTo   time.Time // time of the checkpoint's position
	Served       int64     // records that this process has served, repeated reads included
	FinishServed bool      // whether the owner was given the finish token
}

// ClientState is a connected client.
type ClientState struct {
	ClientID, Tag string
	Timeout       time.Duration
	LastHeartbeat time.Time // or the time of the connect, if later
}

// Snapshot returns the state of all tunnels, by table and name. It includes
// clients whose timeout has passed until the next request for their tunnel.
func (s *Service) Snapshot() []TunnelState {
	var all []TunnelState
	for _, t := range s.sorted() {
		t.mu.Lock()
		if t.gone() == nil {
			all = append(all, t.state())
		}
		t.mu.Unlock()
	}
	return all
}

func (t *tunnel) state() TunnelState {
	st := TunnelState{
		TunnelID: t.ID, Table: t.Table, Name: t.Name,
		Type: t.Type.String(), Stage: t.stage(), Expired: t.Expired, Created: timeOf(t.Created),
	}
	for _, c := range t.channels {
		st.Channels = append(st.Channels, ChannelState{
			ChannelID: c.ID, Type: c.kind(), Status: c.Status, Version: c.Version, ClientID: c.Owner,
			Suspended: c.Suspended, Parents: c.Parents, Checkpoint: c.Token, Sequence: c.Sequence,
			Consumed: c.Count, ConsumedTo: timeOf(c.RPO), Served: c.served, FinishServed: c.FinishServed,
		})
	}
	for _, c := range t.sortedClients() {
		st.Clients = append(st.Clients, ClientState{ClientID: c.ID, Tag: c.Tag, Timeout: c.Timeout, LastHeartbeat: c.lastSeen.UTC()})
	}
	return st
}

func timeOf(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// TunnelID returns the id of a tunnel by its table and name.
func (s *Service) TunnelID(table, tunnelName string) (string, error) {
	t, err := s.named(table, tunnelName, "")
	if err != nil {
		return "", err
	}
	return t.ID, nil
}

// Rebalance takes every open channel of the tunnel back and assigns each to
// another client, if that client may hold more.
func (s *Service) Rebalance(tunnelID string) error {
	return s.control("rebalance", tunnelID, func(t *tunnel) error {
		for _, ch := range t.channels {
			if ch.Status == StatusOpen {
				ch.avoid = ch.Owner
				t.move(ch, StatusClosing, ch.Owner, ch.Version+1)
			}
		}
		return nil
	})
}

// ExpireClient drops a client as if its timeout had passed: its channels are
// freed, and its requests are answered with OTSResourceGone.
func (s *Service) ExpireClient(tunnelID, clientID string) error {
	return s.control("expire client", tunnelID, func(t *tunnel) error {
		c := t.clients[clientID]
		if c == nil {
			return wire.ResourceGone(t.ID, "client %q is not connected", clientID)
		}
		t.removeClient(c)
		return nil
	})
}

// ExpireTunnel makes every later request of the tunnel's clients fail with
// OTSTunnelExpired, as if a part of its log had been dropped.
func (s *Service) ExpireTunnel(tunnelID string) error {
	return s.control("expire tunnel", tunnelID, func(t *tunnel) error {
		t.expire()
		return nil
	})
}

func (s *Service) control(what, tunnelID string, f func(*tunnel) error) error {
	before := s.journal.lost()
	t, err := s.tunnel(tunnelID)
	if err == nil {
		err = s.update(t, func(time.Time) error { return f(t) })
	}
	if err == nil && s.journal.lost() != before {
		err = errLost
	}
	if err != nil {
		return fmt.Errorf("tunnels: %s: %w", what, err)
	}
	return nil
}
