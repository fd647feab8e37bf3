package tunnels

import (
	"cmp"
	"slices"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
)

// The balance. With n clients that have sent a heartbeat and a channels that
// are open or could be, each client may hold a/n channels, and a%n of them one
// more: those that hold more already, so that a balanced enough tunnel stays
// unchanged. Only channels above the limit are taken away, and they go to a
// client below it, so no channel moves twice.

// shares returns how many OPEN channels each client that has joined may hold.
// The additional channels that no client holds yet go to the first clients
// without one that send a heartbeat: odd reports whether a client may take one.
func (t *tunnel) shares() (limits map[string]int, open map[string]int, odd func(id string) bool) {
	open = make(map[string]int)
	active, baseDone := 0, t.baseDone()
	for _, ch := range t.channels {
		switch {
		case ch.Status == StatusTerminated || ch.Suspended:
		case ch.Owner != "":
			active++
			if ch.Status == StatusOpen {
				open[ch.Owner]++
			}
		case t.ready(ch, baseDone):
			active++
		}
	}
	clients := slices.DeleteFunc(t.sortedClients(), func(c *client) bool { return !c.joined })
	if len(clients) == 0 {
		return nil, nil, func(string) bool { return false }
	}
	slices.SortStableFunc(clients, func(a, b *client) int { return cmp.Compare(open[b.ID], open[a.ID]) })
	quota, leftOver := active/len(clients), active%len(clients)
	limits = make(map[string]int, len(clients))
	for _, c := range clients {
		limits[c.ID] = quota
		if leftOver > 0 && open[c.ID] > quota {
			limits[c.ID]++
			leftOver--
		}
	}
	return limits, open, func(id string) bool { return leftOver > 0 && limits[id] == quota }
}

// balance takes channels away from clients that hold more than their share: it
// sets the newest ones to CLOSING.
func (t *tunnel) balance() {
	limits, open, _ := t.shares()
	for _, ch := range slices.Backward(t.channels) {
		if ch.Status == StatusOpen && open[ch.Owner] > limits[ch.Owner] {
			open[ch.Owner]--
			t.move(ch, StatusClosing, ch.Owner, ch.Version+1)
		}
	}
}

// handOut assigns waiting channels, oldest first, to the client whose heartbeat
// is being answered, up to its share. reported are that heartbeat's entries:
// the new versions are also above those, whatever the client sent.
func (t *tunnel) handOut(c *client, reported []*protocol.Channel) {
	limits, open, odd := t.shares()
	room := limits[c.ID] - open[c.ID]
	if odd(c.ID) {
		room++
	}
	others := false // whether another client may hold more channels
	for id, limit := range limits {
		others = others || id != c.ID && (open[id] < limit || odd(id) && open[id] == limit)
	}
	baseDone := t.baseDone()
	for _, ch := range t.channels {
		if room <= 0 {
			return
		}
		if ch.Status != StatusWait || ch.Suspended || !t.ready(ch, baseDone) {
			continue
		}
		if ch.avoid == c.ID && others {
			continue
		}
		ch.avoid = ""
		t.move(ch, StatusOpen, c.ID, max(ch.Version, reportedVersion(reported, ch.ID))+1)
		room--
	}
}

// reportedVersion is the version of a channel in a heartbeat's request, or zero
// if it has none.
func reportedVersion(reported []*protocol.Channel, id string) int64 {
	i := slices.IndexFunc(reported, func(r *protocol.Channel) bool { return r.GetChannelId() == id })
	if i < 0 {
		return 0
	}
	return reported[i].GetVersion()
}
