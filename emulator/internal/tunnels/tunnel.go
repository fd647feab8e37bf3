package tunnels

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/emulator/internal/assume"
)

// Stages of a tunnel. The service's third stage, InitBaseDataAndStreamShard, is
// over before create is answered.
const (
	stageBaseData = "ProcessBaseData"
	stageStream   = "ProcessStream"
)

// tunnelRecord is the saved form of a tunnel without its channels and clients.
// Times are nanoseconds since 1970.
type tunnelRecord struct {
	ID, Table, Name string
	TableID         string // of the table that the tunnel reads, see Source
	Type            protocol.TunnelType
	Created         int64
	StreamID        string // empty in a BaseData tunnel
	StartFlag       protocol.StartOffsetFlag
	StartOffset     int64 // zero: StartFlag counts
	EndOffset       int64 // zero: no end
	Expired         bool
	Ignored         []string // shards that ended before the tunnel's start, or begin after its end
}

// tunnel is a tunnel with its channels and clients.
//
// Invariants:
//   - a channel has an owner exactly when it is OPEN or CLOSING, and the owner is
//     one of clients;
//   - versions only grow, and grow with every change of status or owner;
//   - TERMINATED is final;
//   - channels holds base channels first, and parents before children;
//   - changed holds everything that differs from the saved state.
type tunnel struct {
	assume assume.Set // of the service
	mu     sync.Mutex // guards everything below; ID, Table, TableID, Name, Type, Created, Start*, EndOffset and StreamID never change
	tunnelRecord
	channels []*channel
	byID     map[string]*channel
	clients  map[string]*client
	deleted  bool
	lost     bool           // another tunnel has replaced this one: see restore
	changed  map[string]any // what to save, by key; nil: deleted
	news     []event        // what to log once the lock is released

	seen    int64     // value of Service.changes at the last update of the channels
	checked time.Time // when the log was last compared with the checkpoints
}

func (s *Service) newTunnel(r tunnelRecord) *tunnel {
	return &tunnel{
		assume:       s.cfg.Assume,
		tunnelRecord: r,
		byID:         make(map[string]*channel),
		clients:      make(map[string]*client),
		changed:      make(map[string]any),
	}
}

// event is a log line to be written.
type event struct {
	level   slog.Level
	message string
	args    []any
}

// client is a connected client. Its tunnel's mutex guards it.
type client struct {
	clientRecord
	lastSeen time.Time // of the last heartbeat, or of the connect
	heard    time.Time // the same by the aging clock
	joined   bool      // whether it has sent a heartbeat and so takes part in the balance
}

// clientRecord is the saved form of a client.
type clientRecord struct {
	TunnelID, ID string
	Tag          string
	Timeout      time.Duration
	Connected    int64 // nanoseconds since 1970
}

func (t *tunnel) hasBase() bool   { return t.Type != protocol.TunnelType_Stream }
func (t *tunnel) hasStream() bool { return t.Type != protocol.TunnelType_BaseData }

// end is the commit time at which the stream channels end, or zero for never.
func (t *tunnel) end() time.Time {
	if t.EndOffset == 0 {
		return time.Time{}
	}
	return time.Unix(0, t.EndOffset)
}

// addChannel adds a channel to the tunnel, once.
func (t *tunnel) addChannel(c *channel) {
	if t.byID[c.ID] != nil {
		return
	}
	t.channels = append(t.channels, c)
	t.byID[c.ID] = c
	t.touch(c)
}

// prune forgets a shard that the stream has dropped. It removes its channel if
// that is TERMINATED, since its children no longer wait for it.
func (t *tunnel) prune(id string) {
	if n := slices.Index(t.Ignored, id); n >= 0 {
		t.Ignored = slices.Delete(t.Ignored, n, n+1)
		t.touchSelf()
	}
	if c := t.byID[id]; c != nil && c.Status == StatusTerminated {
		t.channels = slices.DeleteFunc(t.channels, func(o *channel) bool { return o == c })
		delete(t.byID, id)
		t.changed[channelKey(t.ID, id)] = nil
	}
}

// baseDone reports whether all base channels have been read.
func (t *tunnel) baseDone() bool {
	return !slices.ContainsFunc(t.channels, func(c *channel) bool { return c.Base && c.Status != StatusTerminated })
}

func (t *tunnel) stage() string {
	if t.baseDone() { // a Stream tunnel has no base channels; a BaseData tunnel reaches this stage too
		return stageStream
	}
	return stageBaseData
}

// ready reports whether everything before the channel has ended. baseDone is
// t.baseDone(), which callers compute once for many channels.
func (t *tunnel) ready(c *channel, baseDone bool) bool {
	if c.Base {
		return true
	}
	if !baseDone && !t.assume[assume.StreamBeforeBase] {
		return false
	}
	if t.assume[assume.ChildrenBeforeParents] {
		return true
	}
	for _, id := range c.Parents {
		// A parent without a channel ended before the tunnel's start.
		if p := t.byID[id]; p != nil && p.Status != StatusTerminated {
			return false
		}
	}
	return true
}

// dropSilent removes the clients whose timeout has passed without a heartbeat.
// now is the aging clock's time.
func (t *tunnel) dropSilent(now time.Time) {
	for _, c := range t.clients {
		if now.Sub(c.heard) > c.Timeout {
			t.news = append(t.news, event{slog.LevelInfo, "client timed out", []any{"client_id", c.ID, "timeout", c.Timeout}})
			t.removeClient(c)
		}
	}
}

// removeClient removes a client. Its channels are free, except those whose finish
// token it has stored: they have ended.
func (t *tunnel) removeClient(c *client) {
	delete(t.clients, c.ID)
	t.changed[clientKey(t.ID, c.ID)] = nil
	for _, ch := range t.channels {
		if ch.Owner == c.ID {
			to := StatusWait
			if ch.Token == finishToken && !t.assume[assume.FinishNeedsReport] {
				to = StatusTerminated
			}
			t.move(ch, to, "", ch.Version+1)
		}
	}
}

// move is the only place where a channel's status, owner and version change.
func (t *tunnel) move(c *channel, to Status, owner string, version int64) {
	t.news = append(t.news, event{slog.LevelDebug, "channel moved", []any{
		"channel_id", c.ID, "from", c.Status, "to", to, "client_id", owner, "version", version}})
	if owner != c.Owner {
		c.FinishServed = false // the next owner has to reach the end itself
	}
	c.Status, c.Owner, c.Version = to, owner, version
	t.touch(c)
}

// expire makes the tunnel permanently unusable: a part of the log that it still
// needs was dropped.
func (t *tunnel) expire() {
	if !t.Expired {
		t.news = append(t.news, event{slog.LevelWarn, "tunnel expired", nil})
		t.Expired = true
		t.touchSelf()
	}
}

// delete marks everything of the tunnel for removal. Callers that wait for the
// lock see deleted.
func (t *tunnel) delete() {
	t.deleted = true
	t.changed[tunnelKey(t.ID)] = nil
	for _, c := range t.channels {
		t.changed[channelKey(t.ID, c.ID)] = nil
	}
	for _, c := range t.clients {
		t.changed[clientKey(t.ID, c.ID)] = nil
	}
}

// sortedClients returns the clients in the order of their connect calls.
func (t *tunnel) sortedClients() []*client {
	clients := make([]*client, 0, len(t.clients))
	for _, c := range t.clients {
		clients = append(clients, c)
	}
	slices.SortFunc(clients, func(a, b *client) int {
		return cmp.Or(cmp.Compare(a.Connected, b.Connected), cmp.Compare(a.ID, b.ID))
	})
	return clients
}
