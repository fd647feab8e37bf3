package tunnels

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"
	"pgregory.net/rapid"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
	_ "github.com/watermill-ots/watermill-ots/internal/nofailfiles"
)

// world is a tunnel under load: several clients that follow the SDKs' rules,
// writes, splits, merges, restarts. After every step it checks what the service
// promises:
//
//   - no channel is assigned to a client while another live one may still read
//     it;
//   - a channel's version never decreases, and increases with each change;
//   - a channel is opened only when everything before it has ended;
//   - checkpoints cover the channel's log, each record once, in order.
type world struct {
	*rapid.T
	*bench
	id      string
	clients []*modelClient
	dead    []*modelClient // no longer live, but they may still send requests

	holder    map[string]*modelClient // client that may read the channel
	seen      map[string]ChannelState // after the last step
	committed map[string][]string     // rows up to the checkpoint, by channel
	written   int
}

// modelClient is a client with one connection per channel, as in both SDKs.
type modelClient struct {
	*apiClient
	timeout  time.Duration
	lastBeat time.Time
	conns    map[string]*conn
}

type connState int

const (
	connWait connState = iota
	connRunning
	connClosing
	connClosed
)

// conn is a client's connection of a channel.
type conn struct {
	state    connState
	version  int64
	token    string
	sequence int64
	pending  []string // read, not committed
	finished bool     // the finish token is committed
	failed   bool     // the first getcheckpoint failed
}

// live reports whether the service must still consider the client alive.
func (w *world) live(c *modelClient) bool {
	return !w.clock.now().After(c.lastBeat.Add(c.timeout))
}

func (w *world) connectClient() {
	if len(w.clients) == 4 {
		return
	}
	timeout := time.Duration(rapid.SampledFrom([]int{20, 60, 300}).Draw(w.T, "timeout")) * time.Second
	c, err := w.tryConnect(w.id, timeout)
	w.must(err)
	w.clients = append(w.clients, &modelClient{apiClient: c, timeout: timeout, lastBeat: w.clock.now(), conns: make(map[string]*conn)})
}

// bury moves clients whose timeout has passed to the dead.
func (w *world) bury() {
	w.clients = slices.DeleteFunc(w.clients, func(c *modelClient) bool {
		if w.live(c) {
			return false
		}
		w.dead = append(w.dead, c)
		return true
	})
}

func (w *world) pick() *modelClient {
	w.bury()
	if len(w.clients) == 0 {
		return nil
	}
	return w.clients[rapid.IntRange(0, len(w.clients)-1).Draw(w.T, "client")]
}

// beat sends a heartbeat; lose drops its response.
func (w *world) beat(c *modelClient, lose bool) {
	ended := make(map[string]bool)
	for id, ch := range c.channels {
		if ch.GetStatus() == statusClose || ch.GetStatus() == statusTerminated {
			ended[id] = true
		}
	}
	answer, err := c.exchange()
	w.must(err)
	c.lastBeat = w.clock.now()
	for id := range ended {
		if w.holder[id] == c {
			delete(w.holder, id) // the service knows that this client has released the channel
		}
	}
	for _, ch := range answer {
		w.checkHandOut(c, ch)
	}
	if lose {
		return
	}
	c.merge(answer)
	for _, id := range sortedKeys(c.channels) {
		w.notify(c, c.channels[id])
	}
	maps.DeleteFunc(c.conns, func(id string, _ *conn) bool { return c.channels[id] == nil })
}

func (w *world) checkHandOut(c *modelClient, ch *protocol.Channel) {
	id := ch.GetChannelId()
	if old := w.holder[id]; old != nil && old != c && w.live(old) && slices.Contains(w.clients, old) {
		w.Fatalf("%s is handed to %s while %s holds it", id, c.id, old.id)
	}
	w.holder[id] = c
	state := w.s.Snapshot()[0]
	var parents []string
	for _, other := range state.Channels {
		if other.ChannelID == id {
			parents = other.Parents
			if other.Type == channelTypeStream && state.Stage != stageStream {
				w.Fatalf("%s is open in stage %s", id, state.Stage)
			}
		}
	}
	for _, other := range state.Channels {
		if slices.Contains(parents, other.ChannelID) {
			if other.Status != StatusTerminated {
				w.Fatalf("%s is open while its parent %s is %s", id, other.ChannelID, other.Status)
			}
			if want := len(w.shardRows(other.ChannelID)); len(w.committed[other.ChannelID]) != want {
				w.Fatalf("%s is open with %d of %d records of its parent consumed", id, len(w.committed[other.ChannelID]), want)
			}
		}
	}
}

// notify is what a connection does with the merged entry of its channel.
func (w *world) notify(c *modelClient, ch *protocol.Channel) {
	id := ch.GetChannelId()
	cn := c.conns[id]
	if cn == nil {
		cn = &conn{}
		var err error
		if cn.token, cn.sequence, err = c.getCheckpoint(id); err != nil {
			// The entry may be the client's own pending report about a channel
			// that it has lost.
			w.wantCode(err, wire.CodeResourceGone)
			cn.failed = true
		}
		c.conns[id] = cn
	}
	if cn.version > ch.GetVersion() {
		return
	}
	cn.version = ch.GetVersion()
	switch ch.GetStatus() {
	case statusOpen:
		if cn.state == connWait && !cn.failed {
			cn.state = connRunning
			return
		}
	case statusClosing:
		switch cn.state {
		case connWait:
			cn.state = connClosed
		case connRunning:
			cn.state = connClosing
		}
	default:
		cn.state = connClosed
		return
	}
	switch {
	case cn.finished:
		w.report(c, id, statusTerminated)
	case cn.state == connClosed || cn.failed:
		w.report(c, id, statusClose)
	}
}

// report changes a status on the client's side; a closed connection is
// forgotten.
func (w *world) report(c *modelClient, id string, status protocol.ChannelStatus) {
	c.set(id, status)
	delete(c.conns, id)
}

// work makes one connection read a page, commit, close after a CLOSING, or
// fail.
func (w *world) work(c *modelClient) {
	if len(c.conns) == 0 {
		return
	}
	id := rapid.SampledFrom(sortedKeys(c.conns)).Draw(w.T, "channel")
	cn := c.conns[id]
	switch rapid.SampledFrom([]string{"read", "read", "commit", "close", "fail"}).Draw(w.T, "work") {
	case "read":
		if cn.state != connRunning || cn.finished || cn.token == finishToken {
			return
		}
		rows, next, _, err := c.read(id, cn.token)
		w.must(err)
		cn.pending, cn.token = append(cn.pending, rows...), next
	case "commit":
		w.commit(c, id, cn)
	case "close":
		if cn.state == connClosing {
			w.commit(c, id, cn)
			cn.state = connClosed
		}
	case "fail":
		cn.pending, cn.state = nil, connClosed // the next connection reads again what was not committed
	}
}

func (w *world) commit(c *modelClient, id string, cn *conn) {
	if cn.finished || cn.failed || cn.state == connClosed {
		return
	}
	w.must(c.checkpoint(id, cn.token, cn.sequence+1))
	cn.sequence++
	w.committed[id] = append(w.committed[id], cn.pending...)
	cn.pending = nil
	cn.finished = cn.token == finishToken
}

// haunt sends a request from a dead client, which must fail.
func (w *world) haunt() {
	w.bury()
	if len(w.dead) == 0 {
		return
	}
	c := w.dead[rapid.IntRange(0, len(w.dead)-1).Draw(w.T, "dead client")]
	w.wantCode(c.tryHeartbeat(), wire.CodeResourceGone)
	for id, cn := range c.conns {
		_, _, _, err := c.read(id, cn.token)
		w.wantCode(err, wire.CodeResourceGone)
		w.wantCode(c.checkpoint(id, cn.token, cn.sequence+1), wire.CodeResourceGone)
	}
}

func (w *world) put() {
	w.written++
	w.src.put("tbl", rapid.SampledFrom(strings.Split("abcdefghijklmnop", "")).Draw(w.T, "key"), fmt.Sprint(w.written))
}

func (w *world) split() {
	open := w.src.open("tbl")
	if len(open) >= 8 {
		return
	}
	s := open[rapid.IntRange(0, len(open)-1).Draw(w.T, "shard")]
	at := rapid.SampledFrom(strings.Split("bcdefghijklmnop", "")).Draw(w.T, "at")
	if at > s.start && (s.end == "" || at < s.end) {
		w.src.split("tbl", s.ID, at)
	}
}

func (w *world) merge() {
	open := w.src.open("tbl")
	if len(open) < 2 {
		return
	}
	i := rapid.IntRange(0, len(open)-2).Draw(w.T, "left")
	w.src.merge("tbl", open[i].ID, open[i+1].ID)
}

// shardRows returns the whole log of a shard.
func (w *world) shardRows(id string) []string {
	w.src.mu.Lock()
	defer w.src.mu.Unlock()
	s := w.src.tables["tbl"].shard(id)
	if s == nil { // a base channel
		return nil
	}
	var rows []string
	for _, r := range s.log {
		rows = append(rows, r.row)
	}
	return rows
}

// check runs after every step.
func (w *world) check() {
	state := w.s.Snapshot()[0]
	for _, ch := range state.Channels {
		old := w.seen[ch.ChannelID]
		w.seen[ch.ChannelID] = ch
		if ch.Version < old.Version {
			w.Fatalf("version of %s went from %d to %d", ch.ChannelID, old.Version, ch.Version)
		}
		if old.Status != "" && ch.Version == old.Version && (ch.Status != old.Status || ch.ClientID != old.ClientID) {
			w.Fatalf("%s of %q became %s of %q at the same version", old.Status, old.ClientID, ch.Status, ch.ClientID)
		}
		if owned := ch.Status == StatusOpen || ch.Status == StatusClosing; owned != (ch.ClientID != "") {
			w.Fatalf("%s is %s with the owner %q", ch.ChannelID, ch.Status, ch.ClientID)
		}
		got := w.committed[ch.ChannelID]
		if ch.Consumed != int64(len(got)) {
			w.Fatalf("%s: consumed count is %d, want %d", ch.ChannelID, ch.Consumed, len(got))
		}
		if ch.Type == channelTypeStream {
			want := w.shardRows(ch.ChannelID)
			if len(got) > len(want) || !slices.Equal(got, want[:len(got)]) {
				w.Fatalf("%s: consumed %q of %q", ch.ChannelID, got, want)
			}
		}
	}
}

// drainAll makes the remaining clients read everything, and another one after
// all of them have expired.
func (w *world) drainAll() {
	for range 500 {
		w.clock.advance(time.Second)
		if w.bury(); len(w.clients) == 0 {
			w.connectClient()
		}
		for _, c := range w.clients {
			w.beat(c, false)
			for _, id := range sortedKeys(c.conns) {
				cn := c.conns[id]
				for cn.state == connRunning && cn.token != finishToken {
					rows, next, _, err := c.read(id, cn.token)
					w.must(err)
					cn.pending, cn.token = append(cn.pending, rows...), next
					if len(rows) == 0 {
						break
					}
				}
				w.commit(c, id, cn)
				if cn.state == connClosing {
					cn.state = connClosed
				}
			}
		}
		w.check()
		if w.allConsumed() {
			return
		}
	}
	w.Fatalf("not everything is consumed: %s", w.statuses())
}

func (w *world) allConsumed() bool {
	for _, ch := range w.s.Snapshot()[0].Channels {
		switch {
		case ch.Status == StatusTerminated:
		case ch.Type == channelTypeBase || w.closedShard(ch.ChannelID):
			return false
		case len(w.committed[ch.ChannelID]) < len(w.shardRows(ch.ChannelID)):
			return false
		}
	}
	return true
}

func (w *world) closedShard(id string) bool {
	w.src.mu.Lock()
	defer w.src.mu.Unlock()
	return w.src.tables["tbl"].shard(id).Closed
}

func TestClientsUnderLoad(t *testing.T) {
	steps := 250
	if testing.Short() {
		steps = 100
	}
	rapid.Check(t, func(t *rapid.T) {
		b := newBench(t)
		b.cfg.MaxRows = 3
		b.restart()
		b.src.createTable("tbl", "d", "h", "l")
		w := &world{T: t, bench: b, holder: make(map[string]*modelClient), seen: make(map[string]ChannelState), committed: make(map[string][]string)}
		typ := rapid.SampledFrom([]protocol.TunnelType{stream, both}).Draw(t, "type")
		for range rapid.IntRange(0, 10).Draw(t, "rows") {
			w.put()
		}
		before := slices.Sorted(maps.Keys(b.src.tables["tbl"].rows))
		w.id = w.create(typ)

		withClient := func(f func(*modelClient)) func() {
			return func() {
				if c := w.pick(); c != nil {
					f(c)
				}
			}
		}
		actions := map[string]func(){
			"advance": func() {
				w.clock.advance(time.Duration(rapid.IntRange(1, 25).Draw(t, "seconds")) * time.Second)
			},
			"beat":      withClient(func(c *modelClient) { w.beat(c, false) }),
			"lose beat": withClient(func(c *modelClient) { w.beat(c, true) }),
			"connect":   w.connectClient,
			"haunt":     w.haunt,
			"merge":     w.merge,
			"put":       w.put,
			"rebalance": func() { w.must(w.s.Rebalance(w.id)) },
			"restart": func() {
				w.bury()
				w.restart()
				for _, c := range w.clients { // a fresh deadline
					c.lastBeat = w.clock.now()
				}
				// The service may not have noticed the silent clients yet: then
				// they are alive again until their new deadline.
				w.dead = nil
			},
			"shutdown": withClient(func(c *modelClient) {
				w.must(c.shutdown())
				w.clients = slices.DeleteFunc(w.clients, func(o *modelClient) bool { return o == c })
				w.dead = append(w.dead, c)
			}),
			"split": w.split,
			"work":  withClient(w.work),
		}
		weighted := []string{"advance", "beat", "beat", "beat", "beat", "lose beat", "connect", "haunt", "merge", "put", "put", "put",
			"rebalance", "restart", "shutdown", "split", "work", "work", "work", "work", "work", "work", "work", "work"}
		for range steps {
			actions[rapid.SampledFrom(weighted).Draw(t, "action")]()
			w.check()
		}
		w.drainAll()
		w.checkBase(before)
		w.checkKeyOrder()
	})
}

// checkBase checks that the base channels together have each row that existed
// at the creation, and no key twice.
func (w *world) checkBase(before []string) {
	seen := make(map[string]bool)
	hasBase := false
	for id, rows := range w.committed {
		if !strings.HasPrefix(id, baseChannelPrefix) {
			continue
		}
		hasBase = true
		for _, row := range rows {
			key, _, _ := strings.Cut(row, "=")
			if seen[key] {
				w.Fatalf("base data have %s twice", key)
			}
			seen[key] = true
		}
	}
	for _, key := range before {
		if hasBase && !seen[key] {
			w.Fatalf("base data lack %s", key)
		}
	}
}

// checkKeyOrder checks that the generations of channels, read in order, have
// the writes of each key in order.
func (w *world) checkKeyOrder() {
	last := make(map[string]int)
	for _, ch := range w.s.Snapshot()[0].Channels { // parents come before children
		if ch.Type == channelTypeBase {
			continue
		}
		for _, row := range w.committed[ch.ChannelID] {
			key, value, _ := strings.Cut(row, "=")
			var n int
			if _, err := fmt.Sscan(value, &n); err != nil || n <= last[key] {
				w.Fatalf("write %s of %s comes after %d (%v)", value, key, last[key], err)
			}
			last[key] = n
		}
	}
}
