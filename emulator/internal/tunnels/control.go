package tunnels

import (
	"fmt"
	"time"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// TunnelState is a tunnel as tests and the admin API see it. Times are UTC, zero for never.
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
	ClientID     string // owner; empty: none
	Suspended    bool
	Parents      []string
	Checkpoint   string
	Sequence     int64
	Consumed     int64     // records up to the checkpoint
	ConsumedTo   time.Time // point in time of the checkpoint
	Served       int64     // records answered to reads by this process, repetitions included
	FinishServed bool      // the owner was handed the finish token
}

// ClientState is a connected client.
type ClientState struct {
	ClientID, Tag string
	Timeout       time.Duration
	LastHeartbeat time.Time // or the time of the connect
}

// Snapshot tells of all tunnels, by table and name. Clients whose timeout has
// passed are in it until somebody calls their tunnel.
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

// TunnelID finds a tunnel by its table and name.
func (s *Service) TunnelID(table, tunnelName string) (string, error) {
	t, err := s.named(table, tunnelName, "")
	if err != nil {
		return "", err
	}
	return t.ID, nil
}

// Rebalance asks for every open channel of the tunnel back, and hands each to
// another client where one has room for it.
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
// free, and its calls are answered with OTSResourceGone.
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

// ExpireTunnel makes every call of the tunnel's clients fail with
// OTSTunnelExpired from here on, as if a part of its log had been dropped.
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
