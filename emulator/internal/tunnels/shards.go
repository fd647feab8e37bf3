package tunnels

import (
	"math"
	"slices"
	"time"

	"github.com/aliyun/aliyun-tablestore-go-sdk/tunnel/protocol"

	"github.com/watermill-ots/watermill-ots/emulator/internal/wire"
)

// logCheckInterval is how long a tunnel relies on what it knows of its log. In
// between, only the Source's notifications make it check again. Logs expire
// after hours.
const logCheckInterval = time.Second

// tail is a time after every log record.
var tail = time.Unix(0, math.MaxInt64)

// firstShards creates the stream channels of a tunnel that is not shared yet.
func (s *Service) firstShards(t *tunnel) error {
	shards, err := s.src.Shards(t.TableID)
	if err != nil {
		return err
	}
	at, rpo := tail, t.Created // LATEST: whatever is written after the tail was looked up
	switch {
	case t.StartOffset != 0:
		at, rpo = time.Unix(0, t.StartOffset), t.StartOffset
	case t.StartFlag == protocol.StartOffsetFlag_EARLIEST:
		at, rpo = time.Time{}, 0
	}
	for _, shard := range shards {
		end, _, err := s.src.SeekShard(t.TableID, shard.ID, tail)
		if err != nil {
			return err
		}
		offset := end
		if !at.Equal(tail) {
			var truncated bool
			if offset, truncated, err = s.src.SeekShard(t.TableID, shard.ID, at); err != nil {
				return err
			}
			if truncated && t.StartOffset != 0 {
				return wire.Invalid("start offset %d: the log of shard %q does not go back that far", t.StartOffset, shard.ID)
			}
		}
		// A shard that ended before the start has nothing to deliver; its
		// children need not wait for it.
		if shard.Closed && offset >= end || t.afterEnd(shard) {
			t.Ignored = append(t.Ignored, shard.ID)
			continue
		}
		t.addShard(shard, offset, rpo)
	}
	return nil
}

// afterEnd reports whether the shard begins after the tunnel's end.
func (t *tunnel) afterEnd(shard Shard) bool {
	return t.EndOffset != 0 && !shard.Created.Before(t.end())
}

// nextOrder returns a position after all channels.
func (t *tunnel) nextOrder() int {
	if n := len(t.channels); n > 0 {
		return t.channels[n-1].Order + 1
	}
	return 0
}

func (t *tunnel) addShard(shard Shard, offset, rpo int64) {
	t.addChannel(&channel{channelRecord: channelRecord{
		TunnelID: t.ID,
		ID:       shard.ID,
		Order:    t.nextOrder(),
		Parents:  slices.Clone(shard.Parents),
		Status:   StatusWait,
		Token:    tokenString(position{shard: shard.ID, offset: offset, time: rpo}),
		RPO:      rpo,
	}, readRPO: rpo})
}

// refresh updates the tunnel after changes of its table: shards that were split
// or merged get channels, a log that was dropped before it was consumed expires
// the tunnel, and if the table does not exist any more the tunnel is deleted.
//
// Several calls may run at once. Each reads the tunnel's channels first and
// then the Source, and judges only what it has read in that order.
func (s *Service) refresh(t *tunnel) error {
	changes, now := s.changes.Load(), s.cfg.Now()
	t.mu.Lock()
	if err := t.gone(); err != nil {
		t.mu.Unlock()
		return err
	}
	known := t.streamPositions()
	fresh := t.seen >= changes && now.Sub(t.checked).Abs() < logCheckInterval
	t.mu.Unlock()
	if fresh {
		return nil
	}
	found, err := s.look(t, known)
	if err != nil {
		return s.sourceError(t, err)
	}
	return s.update(t, func(time.Time) error {
		if found.lost {
			t.expire()
		}
		for _, id := range found.gone {
			t.prune(id)
		}
		for _, f := range found.shards {
			if t.afterEnd(f.Shard) {
				if !slices.Contains(t.Ignored, f.ID) {
					t.Ignored = append(t.Ignored, f.ID)
					t.touchSelf()
				}
				continue
			}
			t.addShard(f.Shard, f.oldest, f.Created.UnixNano())
		}
		t.seen, t.checked = max(t.seen, changes), now
		return nil
	})
}

// allRead is the offset of a shard that is not needed any more.
const allRead = math.MaxInt64

// streamPositions maps each known shard to the offset of its oldest record that
// is still needed.
func (t *tunnel) streamPositions() map[string]int64 {
	known := make(map[string]int64, len(t.channels)+len(t.Ignored))
	for _, id := range t.Ignored {
		known[id] = allRead
	}
	for _, c := range t.channels {
		if c.Base {
			continue
		}
		known[c.ID] = allRead
		if c.Status != StatusTerminated && c.Token != finishToken {
			if p, err := positionIn(&c.channelRecord, []byte(c.Token)); err == nil {
				known[c.ID] = p.offset
			}
		}
	}
	return known
}

// findings are what a tunnel learns from its table's stream.
type findings struct {
	lost   bool     // whether records that the tunnel still needs were dropped
	gone   []string // shards that the stream has dropped and that were not needed any more
	shards []foundShard
}

// foundShard is a shard for which the tunnel had no channel.
type foundShard struct {
	Shard
	oldest int64
}

// look compares the table's stream with the positions that the tunnel knows. It
// does not hold a lock.
func (s *Service) look(t *tunnel, known map[string]int64) (findings, error) {
	var found findings
	info, err := s.src.Stream(t.TableID, false)
	if err != nil || !t.hasStream() {
		return found, err
	}
	needed := func() bool {
		for _, offset := range known {
			if offset != allRead {
				return true
			}
		}
		return false
	}
	if !info.Enabled || info.StreamID != t.StreamID {
		found.lost = needed() // the shards belong to another stream
		return found, nil
	}
	shards, err := s.src.Shards(t.TableID)
	if err != nil {
		return found, err
	}
	kept := make(map[string]bool, len(shards))
	for _, shard := range shards {
		kept[shard.ID] = true
		offset, isKnown := known[shard.ID]
		if isKnown && offset == allRead {
			continue
		}
		oldest, _, err := s.src.SeekShard(t.TableID, shard.ID, time.Time{})
		if err != nil {
			return found, err
		}
		if isKnown {
			found.lost = found.lost || offset < oldest
			continue
		}
		_, truncated, err := s.src.SeekShard(t.TableID, shard.ID, shard.Created)
		if err != nil {
			return found, err
		}
		// Records of it, or a whole generation before it, were added and
		// dropped unseen.
		found.lost = found.lost || truncated || !descends(shard, known, kept)
		found.shards = append(found.shards, foundShard{shard, oldest})
	}
	for id, offset := range known {
		switch {
		case kept[id]:
		case offset == allRead:
			found.gone = append(found.gone, id)
		default:
			found.lost = true
		}
	}
	return found, nil
}

// descends reports whether the tunnel knows, or is about to know, each parent
// of a new shard.
func descends(shard Shard, known map[string]int64, kept map[string]bool) bool {
	return !slices.ContainsFunc(shard.Parents, func(parent string) bool {
		_, ok := known[parent]
		return !ok && !kept[parent]
	})
}
